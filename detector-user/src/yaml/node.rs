//! YAML text as a tree of values that know where they stand.

use std::sync::Arc;

use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};
use serde_json::Number;
use serde_saphyr::Spanned;

use super::problem::{Place, Problem};

/// A larger file is refused unread. 1,024 rules take well under 1 MiB.
pub const MAX_FILE_BYTES: u64 = 8 * 1024 * 1024;

/// Nesting of an honest file ends far before this.
const MAX_DEPTH: usize = 32;
/// Values that aliases (`*name`) may stand for in all; a bomb multiplies tenfold per line.
const MAX_ALIASED: usize = 100_000;

/// Values of a file, all documents together: 5,000 rules (which are told their own limit) have
/// less.
const MAX_VALUES: usize = 300_000;

/// A value and where it stands.
#[derive(Clone, Debug, PartialEq)]
pub struct Node {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// The value.
    pub value: Value,
}

/// What YAML 1.2's core schema knows.
#[derive(Clone, Debug, PartialEq)]
pub enum Value {
    /// `null`, `~` or nothing.
    Null,
    /// `true` or `false`.
    Bool(bool),
    /// An integer or a finite float.
    Number(Number),
    /// Any other scalar.
    Text(String),
    /// A sequence.
    List(Vec<Node>),
    /// A mapping, in the order it was written; keys are unique.
    Map(Vec<(Key, Node)>),
}

/// A key of a mapping.
#[derive(Clone, Debug, PartialEq)]
pub struct Key {
    /// Line, from 1.
    pub line: u32,
    /// Column, from 1, in characters.
    pub column: u32,
    /// The key.
    pub name: String,
}

impl Node {
    /// The value of a key, if this is a mapping that has it.
    pub fn get(&self, key: &str) -> Option<&Node> {
        match &self.value {
            Value::Map(entries) => {
                entries.iter().find(|(k, _)| k.name == key).map(|(_, node)| node)
            }
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) => {
                None
            }
        }
    }

    /// This value and all inside it.
    fn count(&self) -> usize {
        let inside: usize = match &self.value {
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) => 0,
            Value::List(list) => list.iter().map(Self::count).sum(),
            Value::Map(map) => map.iter().map(|(_, node)| 1 + node.count()).sum(),
        };
        1 + inside
    }

    /// The text, if this is text.
    pub fn text(&self) -> Option<&str> {
        match &self.value {
            Value::Text(text) => Some(text),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
                None
            }
        }
    }
}

pub(super) fn too_large() -> String {
    format!("is too large; expected at most {} MiB", MAX_FILE_BYTES / 1024 / 1024)
}

/// The documents of one file. A document that is no YAML is a problem; those after it are still
/// read when the parser can find where they begin.
pub fn parse(file: &Arc<str>, bytes: &[u8], problems: &mut Vec<Problem>) -> Vec<Node> {
    let at = |line, column| Place { file: Arc::clone(file), line, column };
    let mut refuse = |place, message| {
        problems.push(Problem { place, field: String::new(), message });
    };
    if bytes.len() as u64 > MAX_FILE_BYTES {
        refuse(Place::whole(Arc::clone(file)), too_large());
        return Vec::new();
    }
    if let Err(e) = std::str::from_utf8(bytes) {
        let (line, column) = position(&bytes[..e.valid_up_to()]);
        refuse(at(line, column), "is not text; expected YAML in UTF-8".to_owned());
        return Vec::new();
    }
    let mut reader = bytes;
    let mut documents = Vec::new();
    // The parser's own budget begins anew with each document.
    let mut values = 0;
    for document in serde_saphyr::read_with_options::<_, Node>(&mut reader, options()) {
        match document {
            Ok(node) => {
                values += node.count();
                if values > MAX_VALUES {
                    refuse(at(node.line, node.column), too_many_values());
                    break;
                }
                documents.push(node);
            }
            Err(e) => {
                let place = e.location().map_or_else(
                    || Place::whole(Arc::clone(file)),
                    |l| at(narrow(l.line()), narrow(l.column())),
                );
                refuse(place, reason(&e));
            }
        }
    }
    documents
}

/// The parser's words, on one line, without the place (which stands before them already) and
/// without advice to programmers.
fn reason(error: &serde_saphyr::Error) -> String {
    use serde_saphyr::{Error, UserMessageFormatter, budget::BudgetBreach};
    match error.without_snippet() {
        Error::DuplicateMappingKey { key: Some(key), .. } => {
            format!("the key \"{key}\" is written twice; expected it once")
        }
        Error::Budget { breach: BudgetBreach::Depth { .. }, .. } => {
            format!("is nested too deeply; expected at most {MAX_DEPTH} levels")
        }
        Error::Budget { .. } => too_many_values(),
        Error::AliasReplayLimitExceeded { .. } => {
            format!("aliases stand for too much; expected at most {MAX_ALIASED} values")
        }
        Error::AliasError { error, .. } => reason(error),
        other => {
            let mut plain = serde_saphyr::RenderOptions::new(&UserMessageFormatter);
            plain.snippets = serde_saphyr::SnippetMode::Off;
            let text = other.render_with_options(plain);
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            let text = text.rfind(" at line ").map_or(text.as_str(), |i| &text[..i]);
            format!("is no usable YAML: {text}")
        }
    }
}

fn too_many_values() -> String {
    format!("holds too much; expected at most {MAX_VALUES} values in a file")
}

fn position(before: &[u8]) -> (u32, u32) {
    let before = String::from_utf8_lossy(before);
    let line = before.matches('\n').count() as u64 + 1;
    let column = before.rsplit('\n').next().unwrap_or_default().chars().count() as u64 + 1;
    (narrow(line), narrow(column))
}

fn narrow(n: u64) -> u32 {
    u32::try_from(n).unwrap_or(u32::MAX)
}

/// Bounds that no honest file meets: depth, alias bombs, floods of nodes.
fn options() -> serde_saphyr::Options {
    serde_saphyr::options! {
        budget: serde_saphyr::budget! {
            max_reader_input_bytes: Some(MAX_FILE_BYTES as usize),
            max_depth: MAX_DEPTH,
            max_nodes: MAX_VALUES,
            max_events: 4 * MAX_VALUES,
        },
        alias_limits: serde_saphyr::alias_limits! { max_total_replayed_events: MAX_ALIASED },
        // YAML 1.2: `on` and `yes` are words, `007` is an id.
        strict_booleans: true,
        leading_zero_numbers_as_strings: true,
        underscored_numbers_as_strings: true,
        with_snippet: false,
    }
}

impl<'de> Deserialize<'de> for Node {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        let spanned = Spanned::<Value>::deserialize(deserializer)?;
        Ok(Self {
            line: narrow(spanned.referenced.line()),
            column: narrow(spanned.referenced.column()),
            value: spanned.value,
        })
    }
}

impl<'de> Deserialize<'de> for Value {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_any(ValueVisitor)
    }
}

struct ValueVisitor;

impl<'de> Visitor<'de> for ValueVisitor {
    type Value = Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a YAML value")
    }

    fn visit_unit<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_none<E>(self) -> Result<Value, E> {
        Ok(Value::Null)
    }

    fn visit_some<D: Deserializer<'de>>(self, deserializer: D) -> Result<Value, D::Error> {
        deserializer.deserialize_any(self)
    }

    fn visit_bool<E>(self, value: bool) -> Result<Value, E> {
        Ok(Value::Bool(value))
    }

    fn visit_u64<E>(self, value: u64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_i64<E>(self, value: i64) -> Result<Value, E> {
        Ok(Value::Number(value.into()))
    }

    fn visit_f64<E: de::Error>(self, value: f64) -> Result<Value, E> {
        let number = Number::from_f64(value);
        number.map(Value::Number).ok_or_else(|| E::custom("a number that is not finite"))
    }

    fn visit_str<E>(self, value: &str) -> Result<Value, E> {
        Ok(Value::Text(value.to_owned()))
    }

    fn visit_string<E>(self, value: String) -> Result<Value, E> {
        Ok(Value::Text(value))
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Value, A::Error> {
        let mut list = Vec::new();
        while let Some(node) = seq.next_element()? {
            list.push(node);
        }
        Ok(Value::List(list))
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Value, A::Error> {
        let mut entries = Vec::new();
        while let Some(key) = map.next_key::<Spanned<String>>()? {
            let at = key.referenced;
            let name =
                Key { line: narrow(at.line()), column: narrow(at.column()), name: key.value };
            entries.push((name, map.next_value()?));
        }
        Ok(Value::Map(entries))
    }
}
