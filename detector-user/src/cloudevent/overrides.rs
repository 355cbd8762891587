//! `K_CE_OVERRIDES`: extensions that a SinkBinding wants on every event, as JSON such as
//! `{"extensions": {"site": "north"}}` (Knative `duck/v1.CloudEventOverrides`).

use std::collections::BTreeMap;

use cloudevents::Event;
use serde::Deserialize;
use thiserror::Error;

/// Names an extension may not have: the context attributes of CloudEvents 1.0, and the member
/// of the JSON format that holds the data.
const RESERVED: [&str; 9] = [
    "specversion",
    "id",
    "type",
    "source",
    "subject",
    "time",
    "datacontenttype",
    "dataschema",
    "data",
];

/// Extensions to set on every event, over what the agent sets itself.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Overrides {
    extensions: BTreeMap<String, String>,
}

/// Why a `K_CE_OVERRIDES` cannot be used.
#[derive(Debug, Error)]
pub enum OverridesError {
    /// Not JSON, or not of the expected shape.
    #[error(
        "cannot be read ({0}); expected {{\"extensions\": {{\"name\": \"value\"}}}}, \
         as a SinkBinding's spec.ceOverrides gives it"
    )]
    Shape(#[from] serde_json::Error),
    /// A name that CloudEvents does not allow for an extension.
    #[error(
        "extension name {0:?}: expected letters and digits only \
         (CloudEvents 1.0, attribute naming)"
    )]
    Name(String),
    /// A name that is taken.
    #[error("{0:?} is an attribute of CloudEvents itself, choose another name")]
    Reserved(String),
    /// A value that no HTTP header can carry.
    #[error("the value of {0:?} has control characters, which no HTTP header can carry")]
    Value(String),
}

/// As Knative writes it.
#[derive(Deserialize)]
struct Raw {
    #[serde(default)]
    extensions: Option<BTreeMap<String, String>>,
}

impl Overrides {
    /// Reads the variable's value. Empty is what Knative injects when nothing is overridden.
    pub fn parse(text: &str) -> Result<Self, OverridesError> {
        if text.trim().is_empty() {
            return Ok(Self::default());
        }
        let raw: Raw = serde_json::from_str(text)?;
        let extensions = raw.extensions.unwrap_or_default().into_iter().map(checked);
        Ok(Self { extensions: extensions.collect::<Result<_, _>>()? })
    }

    pub(super) fn apply(&self, event: &mut Event) {
        for (name, value) in &self.extensions {
            event.set_extension(name, value.as_str());
        }
    }
}

/// Knative lets capitals pass and its Go SDK writes them small, as CloudEvents wants them.
fn checked((name, value): (String, String)) -> Result<(String, String), OverridesError> {
    if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
        return Err(OverridesError::Name(name));
    }
    let name = name.to_ascii_lowercase();
    if RESERVED.contains(&name.as_str()) {
        return Err(OverridesError::Reserved(name));
    }
    if value.chars().any(char::is_control) {
        return Err(OverridesError::Value(name));
    }
    Ok((name, value))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn error(text: &str) -> String {
        Overrides::parse(text).unwrap_err().to_string()
    }

    #[test]
    fn nothing_to_override_is_no_error() {
        for text in ["", "  ", "{}", r#"{"extensions": null}"#, r#"{"extensions": {}}"#] {
            assert_eq!(Overrides::parse(text).unwrap(), Overrides::default(), "{text:?}");
        }
    }

    #[test]
    fn names_are_written_small() {
        let overrides = Overrides::parse(r#"{"extensions": {"Site7": "North"}}"#).unwrap();
        assert_eq!(overrides.extensions, [("site7".into(), "North".into())].into());
    }

    #[test]
    fn what_ingress_would_refuse_is_refused_with_the_name() {
        assert!(error(r#"{"extensions": {"my_site": "x"}}"#).contains("\"my_site\""));
        assert!(error(r#"{"extensions": {"": "x"}}"#).contains("letters and digits"));
        assert!(error(r#"{"extensions": {"Id": "x"}}"#).contains("\"id\" is an attribute"));
        assert!(error(r#"{"extensions": {"a": "x\ny"}}"#).contains("\"a\" has control characters"));
    }

    #[test]
    fn other_json_is_refused_with_the_place_and_the_shape() {
        let message = error(r#"{"extensions": {"a": 1}}"#);
        assert!(message.contains("line 1 column"), "{message}");
        assert!(message.contains("spec.ceOverrides"), "{message}");
        error("not json");
    }
}
