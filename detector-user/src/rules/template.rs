//! Templates over what was seen: `"{ue.ip} bought at {http.path}"`.
//!
//! `{name}` is a field of [`super::field::FIELDS`]; `{{` and `}}` are the braces themselves.

use std::fmt;

use schemars::Schema;
use serde_json::{Map, Value};

use super::{
    field::{self, Available, FIELDS, Field},
    term::is_field_name,
};
use crate::{
    detection::Detection,
    yaml::{Scalar, did_you_mean, scalar},
};

/// A string with fields in it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Template {
    /// Literal text is never empty and two literals never stand side by side.
    parts: Vec<Part>,
}

#[derive(Clone, Debug, PartialEq)]
enum Part {
    Literal(String),
    Field(Field),
    /// A header field of the request, by its name.
    Header(String),
}

/// Why a string is no template.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum TemplateError {
    /// No field has that name.
    #[error(
        "unknown template field {{{}}}; expected a field such as {{ue.ip}} or {{http.path}}{}",
        name.escape_debug(),
        did_you_mean(name, FIELDS.iter().map(|row| row.name))
    )]
    UnknownField {
        /// What stands between the braces.
        name: String,
    },
    /// `{` without `}`.
    #[error(
        "\"{{\" at character {at} is not closed; expected a field such as {{ue.ip}}, or {{{{ for a brace"
    )]
    Unclosed {
        /// Position in the string, from 1.
        at: usize,
    },
    /// `}` without `{`.
    #[error("\"}}\" at character {at} closes nothing; expected }}}} for a brace")]
    Unopened {
        /// Position in the string, from 1.
        at: usize,
    },
}

impl Template {
    /// Reads a template.
    pub fn parse(text: &str) -> Result<Self, TemplateError> {
        let mut template = Self::default();
        let mut rest = text;
        let position = |rest: &str| text[..text.len() - rest.len()].chars().count() + 1;
        while let Some(i) = rest.find(['{', '}']) {
            template.literal(&rest[..i]);
            rest = &rest[i..];
            if rest.starts_with("{{") || rest.starts_with("}}") {
                template.literal(&rest[..1]);
                rest = &rest[2..];
            } else if rest.starts_with('}') {
                return Err(TemplateError::Unopened { at: position(rest) });
            } else {
                let (name, after) = match rest[1..].split_once('}') {
                    Some((name, after)) if !name.contains('{') => (name, after),
                    Some(_) | None => return Err(TemplateError::Unclosed { at: position(rest) }),
                };
                template.parts.push(Part::named(name)?);
                rest = after;
            }
        }
        template.literal(rest);
        Ok(template)
    }

    /// The template that is exactly this field.
    pub fn of(field: Field) -> Self {
        Self { parts: vec![Part::Field(field)] }
    }

    fn literal(&mut self, text: &str) {
        match self.parts.last_mut() {
            _ if text.is_empty() => {}
            Some(Part::Literal(last)) => last.push_str(text),
            Some(Part::Field(_) | Part::Header(_)) | None => {
                self.parts.push(Part::Literal(text.to_owned()))
            }
        }
    }

    /// The fields it names, and which rules can have them.
    pub fn fields(&self) -> impl Iterator<Item = (String, Available)> {
        self.parts.iter().filter_map(|part| match part {
            Part::Field(field) => Some((field.name().to_owned(), field.available())),
            Part::Header(name) => {
                Some((format!("{}{name}", field::HEADER), field::HEADER_AVAILABLE))
            }
            Part::Literal(_) => None,
        })
    }

    /// The string; a field that was not seen is the empty string.
    pub fn render(&self, seen: &Detection) -> String {
        self.parts.iter().map(|part| part.value(seen).map_or_else(String::new, in_text)).collect()
    }

    /// As JSON: a template that is exactly one field keeps the field's type, and is null if it was
    /// not seen.
    pub fn render_value(&self, seen: &Detection) -> Value {
        match self.parts.as_slice() {
            [part @ (Part::Field(_) | Part::Header(_))] => part.value(seen).unwrap_or(Value::Null),
            _ => self.render(seen).into(),
        }
    }
}

impl Part {
    fn named(name: &str) -> Result<Self, TemplateError> {
        if let Some(header) = name.strip_prefix(field::HEADER)
            && is_field_name(header)
        {
            return Ok(Self::Header(header.to_owned()));
        }
        let unknown = || TemplateError::UnknownField { name: name.to_owned() };
        Field::by_name(name).map(Self::Field).ok_or_else(unknown)
    }

    fn value(&self, seen: &Detection) -> Option<Value> {
        match self {
            Self::Literal(text) => Some(text.as_str().into()),
            Self::Field(field) => field.value(seen),
            Self::Header(name) => field::header(seen, name),
        }
    }
}

/// A list within text is its items, with commas between them.
fn in_text(value: Value) -> String {
    match value {
        Value::String(text) => text,
        Value::Array(items) => items.into_iter().map(in_text).collect::<Vec<_>>().join(","),
        other => other.to_string(),
    }
}

/// The template as it is written.
impl fmt::Display for Template {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.parts.iter().try_for_each(|part| match part {
            Part::Literal(text) => f.write_str(&text.replace('{', "{{").replace('}', "}}")),
            Part::Field(field) => write!(f, "{{{}}}", field.name()),
            Part::Header(name) => write!(f, "{{{}{name}}}", field::HEADER),
        })
    }
}

scalar!(Template);

impl Scalar for Template {
    const EXPECTED: &'static str = "text, with fields such as {ue.ip} if wanted";

    fn parse(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|e| e.to_string())
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "Text with fields such as {ue.ip}; {{ and }} are braces.",
        })
    }
}

/// The data of an event: JSON whose strings are templates.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum DataTemplate {
    /// An object of everything that was seen: `{"ue": {"ip": ...}, "http": {...}, ...}`.
    #[default]
    Everything,
    /// What the rule says.
    Tree(DataTree),
}

/// JSON whose strings are templates.
#[derive(Clone, Debug, PartialEq)]
pub enum DataTree {
    /// Null, a boolean or a number.
    Literal(Value),
    /// A string.
    Text(Template),
    /// An array.
    List(Vec<DataTree>),
    /// An object.
    Map(Vec<(String, DataTree)>),
}

impl DataTemplate {
    /// The data for what was seen.
    pub fn render(&self, seen: &Detection) -> Value {
        match self {
            Self::Everything => everything(seen),
            Self::Tree(tree) => tree.render(seen),
        }
    }
}

impl DataTree {
    fn render(&self, seen: &Detection) -> Value {
        match self {
            Self::Literal(value) => value.clone(),
            Self::Text(template) => template.render_value(seen),
            Self::List(list) => list.iter().map(|item| item.render(seen)).collect(),
            Self::Map(map) => map.iter().map(|(k, v)| (k.clone(), v.render(seen))).collect(),
        }
    }
}

fn everything(seen: &Detection) -> Value {
    let mut data = Map::new();
    for field in Field::all() {
        let Some(value) = field.value(seen) else { continue };
        match field.name().split_once('.') {
            None => data.insert(field.name().to_owned(), value),
            Some((group, member)) => {
                let group = data.entry(group).or_insert_with(|| Map::new().into());
                group.as_object_mut().and_then(|group| group.insert(member.to_owned(), value))
            }
        };
    }
    data.into()
}

#[cfg(test)]
#[path = "template_tests.rs"]
mod tests;
