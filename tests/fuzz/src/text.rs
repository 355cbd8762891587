//! Files that people write.

use std::path::Path;

use detector_user::{
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
                assert!(
                    !problem.message.is_empty() && !problem.message.contains('\n'),
                    "{problem}"
                );
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
