//! Templates over what was seen: `"{ue.ip} bought at {http.path}"`.

use crate::detection::Detection;

/// A string with fields in it. (Contract placeholder: the rules module fills it in.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {}

impl Template {
    /// The string for one detection; empty when nothing was asked for.
    pub fn render(&self, _: &Detection) -> String {
        String::new()
    }
}

/// JSON whose strings are templates. (Contract placeholder.)
#[derive(Clone, Debug, Default, PartialEq)]
pub struct DataTemplate {}

impl DataTemplate {
    /// The JSON for one detection; null when the rule names no data.
    pub fn render(&self, _: &Detection) -> serde_json::Value {
        serde_json::Value::Null
    }
}
