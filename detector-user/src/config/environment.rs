//! What the config takes from its surroundings; passed in, so that tests need no `set_var`.

use std::collections::BTreeMap;

use crate::{cloudevent::Overrides, yaml::Problem};

/// Environment variables and the host's name.
#[derive(Clone, Debug, Default)]
pub struct Environment {
    /// By name.
    pub variables: BTreeMap<String, String>,
    /// The node's name if nothing else gives one.
    pub hostname: Option<String>,
}

impl Environment {
    /// That of this process. Variables that are not UTF-8 are none of ours.
    pub fn of_process() -> Self {
        let text = |(name, value): (std::ffi::OsString, std::ffi::OsString)| {
            Some((name.into_string().ok()?, value.into_string().ok()?))
        };
        let hostname = std::fs::read_to_string("/proc/sys/kernel/hostname").ok();
        Self {
            variables: std::env::vars_os().filter_map(text).collect(),
            hostname: hostname.map(|name| name.trim().to_owned()),
        }
    }

    /// A variable that is set and not empty: a SinkBinding injects empty ones too.
    pub(super) fn get(&self, name: &str) -> Option<&str> {
        self.variables.get(name).map(String::as_str).filter(|value| !value.is_empty())
    }
}

/// The file that a problem with a variable is said to be in.
pub(super) fn problem(variable: &str, message: String) -> Problem {
    Problem { field: variable.to_owned(), ..Problem::whole("environment", message) }
}

/// `K_CE_OVERRIDES` (Knative `SinkBinding` and sources): extension attributes for every event.
pub(super) fn ce_overrides(environment: &Environment, problems: &mut Vec<Problem>) -> Overrides {
    const NAME: &str = "K_CE_OVERRIDES";
    let Some(text) = environment.get(NAME) else { return Overrides::default() };
    Overrides::parse(text).unwrap_or_else(|error| {
        problems.push(problem(NAME, error.to_string()));
        Overrides::default()
    })
}
