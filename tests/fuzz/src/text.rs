//! Files that people write.

use std::path::Path;

use detector_user::{
    broker::{manifest::Manifests, topology::Topology},
    config::{Config, Environment},
    rules::{self, compile::compile},
};

/// Rules of any bytes are refused with a reason on one line each, or can be compiled.
pub(crate) fn rules(bytes: &[u8]) {
    match rules::file::parse(&[("fuzz.yaml", bytes)]) {
        Ok(set) => {
            // Refusals are about sizes, which a parsed set may exceed.
            let _ = compile(&set, &[], 1);
        }
        Err(problems) => {
            assert!(!problems.list().is_empty());
            for problem in problems.list() {
                assert!(!problem.message.is_empty(), "{problem}");
                // As people see it, whatever the file says: programs get the message itself, as JSON.
                assert!(!problem.to_string().contains(char::is_control), "{problem}");
            }
        }
    }
}

/// So is a config.
pub(crate) fn config(bytes: &[u8]) {
    if let Err(problems) = Config::parse(Path::new("fuzz.yaml"), bytes, &Environment::default()) {
        assert!(!problems.list().is_empty());
    }
}

/// Manifests of a Broker are refused with a reason, or make a topology or none.
pub(crate) fn manifests(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let mut manifests = Manifests::default();
    match manifests.add(Path::new("fuzz.yaml"), text) {
        Ok(()) => {
            let _ = Topology::new(manifests, &[]);
        }
        Err(error) => assert!(!error.to_string().is_empty()),
    }
}
