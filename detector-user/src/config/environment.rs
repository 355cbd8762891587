//! What the config takes from its surroundings; passed in, so that tests need no `set_var`.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::Value;

use crate::yaml::Problem;

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
pub(super) fn ce_overrides(
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> BTreeMap<String, String> {
    const NAME: &str = "K_CE_OVERRIDES";
    const EXPECTED: &str = "JSON such as {\"extensions\": {\"site\": \"edge\"}}";
    #[derive(Deserialize)]
    struct Overrides {
        #[serde(default)]
        extensions: Option<BTreeMap<String, Value>>,
    }
    let Some(text) = environment.get(NAME) else { return BTreeMap::new() };
    let overrides: Overrides = match serde_json::from_str(text) {
        Ok(overrides) => overrides,
        Err(e) => {
            problems.push(problem(NAME, format!("cannot be read ({e}); expected {EXPECTED}")));
            return BTreeMap::new();
        }
    };
    let mut extensions = BTreeMap::new();
    for (name, value) in overrides.extensions.unwrap_or_default() {
        match extension(&name, &value) {
            Ok(text) => drop(extensions.insert(name, text)),
            Err(why) => problems.push(problem(NAME, format!("extension \"{name}\" {why}"))),
        }
    }
    extensions
}

/// CloudEvents 1.0 section 3: attribute names are lower-case letters and digits; ingress answers
/// 400 to anything else, for every event.
fn extension(name: &str, value: &Value) -> Result<String, String> {
    const CORE: [&str; 9] = [
        "id",
        "source",
        "specversion",
        "type",
        "datacontenttype",
        "dataschema",
        "subject",
        "time",
        "data",
    ];
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    if name.is_empty() || !name.bytes().all(plain) {
        return Err("is no attribute name; expected lower-case letters and digits only".to_owned());
    }
    if CORE.contains(&name) {
        return Err("is an attribute Detector sets itself; expected another name".to_owned());
    }
    match value.as_str() {
        Some(text) if !text.chars().any(char::is_control) => Ok(text.to_owned()),
        Some(_) => Err("has control characters, which no HTTP header can carry".to_owned()),
        None => Err(format!("is {value}; expected a string")),
    }
}
