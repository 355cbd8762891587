//! A serde `Deserializer` over [`Node`] that records problems and goes on.
//!
//! Two differences from an ordinary one: an unknown field of a struct is recorded and skipped, and
//! an error inside a [`Field`](super::Field) is recorded and leaves that field empty.

use std::{cell::RefCell, fmt, sync::Arc};

use serde::{
    Deserialize, Deserializer,
    de::{
        self, DeserializeSeed, Expected, IntoDeserializer, Unexpected, Visitor,
        value::{MapDeserializer, SeqDeserializer},
    },
    forward_to_deserialize_any,
};

use super::{
    field::FIELD,
    node::{Key, Node, Value},
    one_or_many::ONE_OR_MANY,
    problem::{Place, Problem, did_you_mean, one_of},
    word_or_map::WORD_OR_MAP,
};

/// One document as a `T`; `None` when that cannot be, which is then among the problems.
pub fn typed<'de, T: Deserialize<'de>>(
    file: &Arc<str>,
    document: &'de Node,
    problems: &mut Vec<Problem>,
) -> Option<T> {
    let shared = Shared { file: Arc::clone(file), problems: RefCell::new(Vec::new()) };
    let reader = Reader { node: document, path: String::new(), shared: &shared };
    let result = T::deserialize(reader.clone());
    let result = result.map_err(|refused| reader.record(refused));
    problems.append(&mut shared.problems.borrow_mut());
    result.ok()
}

/// Of one document; a hostile one could have a million.
const MAX_RECORDED: usize = 1_000;

struct Shared {
    file: Arc<str>,
    problems: RefCell<Vec<Problem>>,
}

/// A value that was refused, and where, once somebody on the way up knew.
#[derive(Debug)]
pub(super) struct Refused {
    message: String,
    at: Option<(Place, String)>,
}

impl fmt::Display for Refused {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message)
    }
}

impl std::error::Error for Refused {}

impl de::Error for Refused {
    fn custom<T: fmt::Display>(message: T) -> Self {
        Self { message: message.to_string(), at: None }
    }

    fn invalid_type(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (is, expected) = (in_words(unexpected), plain(expected));
        Self::custom(format_args!("is {is}; expected {expected}"))
    }

    fn invalid_value(unexpected: Unexpected<'_>, expected: &dyn Expected) -> Self {
        let (is, expected) = (in_words(unexpected), plain(expected));
        Self::custom(format_args!("cannot be {is}; expected {expected}"))
    }

    fn unknown_variant(variant: &str, expected: &'static [&'static str]) -> Self {
        let nearest = did_you_mean(variant, expected.iter().copied());
        Self::custom(format_args!(
            "cannot be \"{variant}\"; expected {}{nearest}",
            one_of(expected)
        ))
    }

    fn missing_field(field: &'static str) -> Self {
        Self::custom(format_args!("the field \"{field}\" is missing"))
    }
}

/// serde names Rust's types; people who write YAML know numbers.
fn plain(expected: &dyn Expected) -> String {
    match expected.to_string().as_str() {
        "u64" | "u32" | "u16" | "i64" => "a whole number".to_owned(),
        "a boolean" => "true or false".to_owned(),
        other => other.to_owned(),
    }
}

fn in_words(unexpected: Unexpected<'_>) -> String {
    match unexpected {
        Unexpected::Unit | Unexpected::Option => "empty".to_owned(),
        Unexpected::Str(text) => format!("\"{text}\""),
        Unexpected::Seq => "a list".to_owned(),
        Unexpected::Map => "a mapping".to_owned(),
        other => other.to_string().replace('`', ""),
    }
}

#[derive(Clone)]
struct Reader<'de, 's> {
    node: &'de Node,
    path: String,
    shared: &'s Shared,
}

impl<'de, 's> Reader<'de, 's> {
    fn place(&self, line: u32, column: u32) -> Place {
        Place { file: Arc::clone(&self.shared.file), line, column }
    }

    fn child(&self, node: &'de Node, step: &str) -> Self {
        let path = match self.path.as_str() {
            "" => step.to_owned(),
            path if step.starts_with('[') => format!("{path}{step}"),
            path => format!("{path}.{step}"),
        };
        Self { node, path, shared: self.shared }
    }

    /// The innermost reader that sees an error knows best where it stands.
    fn placed<T>(&self, result: Result<T, Refused>) -> Result<T, Refused> {
        result.map_err(|refused| {
            let here = || (self.place(self.node.line, self.node.column), self.path.clone());
            Refused { at: Some(refused.at.unwrap_or_else(here)), ..refused }
        })
    }

    fn record(&self, refused: Refused) {
        let (place, field) = refused
            .at
            .unwrap_or_else(|| (self.place(self.node.line, self.node.column), self.path.clone()));
        let problem = Problem { place, field, message: refused.message };
        let mut problems = self.shared.problems.borrow_mut();
        if problems.len() < MAX_RECORDED {
            problems.push(problem);
        }
    }

    fn refuse<T>(&self, expected: &str) -> Result<T, Refused> {
        let is = match &self.node.value {
            Value::Null => "is empty".to_owned(),
            Value::Bool(value) => format!("is the boolean {value}"),
            Value::Number(number) => format!("is the number {number}"),
            Value::Text(text) => format!("is the text \"{text}\""),
            Value::List(_) => "is a list".to_owned(),
            Value::Map(_) => "is a mapping".to_owned(),
        };
        self.placed(Err(de::Error::custom(format_args!("{is}; expected {expected}"))))
    }

    fn entries(&self, entries: &'de [(Key, Node)]) -> Vec<(String, Self)> {
        entries.iter().map(|(k, node)| (k.name.clone(), self.child(node, &k.name))).collect()
    }

    fn items(&self, list: &'de [Node]) -> Vec<Self> {
        list.iter().enumerate().map(|(i, node)| self.child(node, &format!("[{i}]"))).collect()
    }

    fn unknown_field(&self, key: &Key, known: &[&str]) {
        let nearest = did_you_mean(&key.name, known.iter().copied());
        self.record(Refused {
            message: format!("unknown field; expected {}{nearest}", one_of(known)),
            at: Some((self.place(key.line, key.column), self.child(self.node, &key.name).path)),
        });
    }
}

impl<'de> IntoDeserializer<'de, Refused> for Reader<'de, '_> {
    type Deserializer = Self;

    fn into_deserializer(self) -> Self {
        self
    }
}

impl<'de> Deserializer<'de> for Reader<'de, '_> {
    type Error = Refused;

    fn deserialize_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        let result = match &self.node.value {
            Value::Null => visitor.visit_unit(),
            Value::Bool(value) => visitor.visit_bool(*value),
            Value::Number(n) => match (n.as_u64(), n.as_i64(), n.as_f64()) {
                (Some(n), _, _) => visitor.visit_u64(n),
                (None, Some(n), _) => visitor.visit_i64(n),
                (None, None, n) => visitor.visit_f64(n.unwrap_or_default()),
            },
            Value::Text(text) => visitor.visit_borrowed_str(text),
            Value::List(list) => {
                visitor.visit_seq(SeqDeserializer::new(self.items(list).into_iter()))
            }
            Value::Map(map) => {
                visitor.visit_map(MapDeserializer::new(self.entries(map).into_iter()))
            }
        };
        self.placed(result)
    }

    fn deserialize_str<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::Text(text) => self.placed(visitor.visit_borrowed_str(text)),
            Value::Bool(value) => self.refuse(&format!("text (put it in quotes: \"{value}\")")),
            Value::Number(n) => self.refuse(&format!("text (put it in quotes: \"{n}\")")),
            Value::Null | Value::List(_) | Value::Map(_) => self.refuse("text"),
        }
    }

    fn deserialize_string<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        self.deserialize_str(visitor)
    }

    fn deserialize_option<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::Null => visitor.visit_none(),
            Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::List(_) | Value::Map(_) => {
                visitor.visit_some(self)
            }
        }
    }

    fn deserialize_seq<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::List(_) => self.deserialize_any(visitor),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::Text(_) | Value::Map(_) => {
                self.refuse("a list")
            }
        }
    }

    fn deserialize_struct<V: Visitor<'de>>(
        self,
        _name: &'static str,
        fields: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        let Value::Map(map) = &self.node.value else {
            return self.refuse(&format!("a mapping with {}", fields.join(", ")));
        };
        let mut known = Vec::new();
        for (key, node) in map {
            match fields.contains(&key.name.as_str()) {
                true => known.push((key.name.clone(), self.child(node, &key.name))),
                false => self.unknown_field(key, fields),
            }
        }
        self.placed(visitor.visit_map(MapDeserializer::new(known.into_iter())))
    }

    fn deserialize_enum<V: Visitor<'de>>(
        self,
        _name: &'static str,
        variants: &'static [&'static str],
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match &self.node.value {
            Value::Text(text) => self.placed(visitor.visit_enum(text.as_str().into_deserializer())),
            Value::Null | Value::Bool(_) | Value::Number(_) | Value::List(_) | Value::Map(_) => {
                self.refuse(&one_of(variants))
            }
        }
    }

    fn deserialize_newtype_struct<V: Visitor<'de>>(
        self,
        name: &'static str,
        visitor: V,
    ) -> Result<V::Value, Refused> {
        match name {
            FIELD => visitor.visit_seq(FieldParts { reader: self, part: 0 }),
            ONE_OR_MANY if matches!(self.node.value, Value::List(_)) => {
                self.deserialize_any(visitor)
            }
            WORD_OR_MAP if !matches!(self.node.value, Value::Map(_)) => visitor.visit_some(self),
            _ => visitor.visit_newtype_struct(self),
        }
    }

    fn deserialize_ignored_any<V: Visitor<'de>>(self, visitor: V) -> Result<V::Value, Refused> {
        visitor.visit_unit()
    }

    forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char bytes byte_buf unit unit_struct
        tuple tuple_struct map identifier
    }
}

/// A [`Field`](super::Field) as the sequence file, line, column, path, value.
struct FieldParts<'de, 's> {
    reader: Reader<'de, 's>,
    part: u8,
}

impl<'de> de::SeqAccess<'de> for FieldParts<'de, '_> {
    type Error = Refused;

    fn next_element_seed<T: DeserializeSeed<'de>>(
        &mut self,
        seed: T,
    ) -> Result<Option<T::Value>, Refused> {
        let reader = &self.reader;
        self.part += 1;
        match self.part {
            1 => seed.deserialize((*reader.shared.file).into_deserializer()).map(Some),
            2 => seed.deserialize(reader.node.line.into_deserializer()).map(Some),
            3 => seed.deserialize(reader.node.column.into_deserializer()).map(Some),
            4 => seed.deserialize(reader.path.as_str().into_deserializer()).map(Some),
            _ => match seed.deserialize(reader.clone()) {
                Ok(value) => Ok(Some(value)),
                Err(refused) => {
                    reader.record(refused);
                    Ok(None)
                }
            },
        }
    }
}
