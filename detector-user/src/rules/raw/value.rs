//! Event data: any tree.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, MapAccess, SeqAccess, Visitor},
};

use crate::{rules::template::Template, yaml::Field};

/// Any tree; its strings are templates, and keep their places.
#[derive(Debug)]
pub enum Data {
    /// Null, a boolean or a number.
    Literal(serde_json::Value),
    /// A string.
    Text(Template),
    /// A list.
    List(Vec<Field<Data>>),
    /// A mapping.
    Map(Vec<(String, Field<Data>)>),
}

impl<'de> Deserialize<'de> for Data {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Tree;
        impl<'de> Visitor<'de> for Tree {
            type Value = Data;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("any value")
            }

            fn visit_unit<E>(self) -> Result<Data, E> {
                Ok(Data::Literal(serde_json::Value::Null))
            }

            fn visit_bool<E>(self, value: bool) -> Result<Data, E> {
                Ok(Data::Literal(value.into()))
            }

            fn visit_u64<E>(self, value: u64) -> Result<Data, E> {
                Ok(Data::Literal(value.into()))
            }

            fn visit_i64<E>(self, value: i64) -> Result<Data, E> {
                Ok(Data::Literal(value.into()))
            }

            fn visit_f64<E>(self, value: f64) -> Result<Data, E> {
                Ok(Data::Literal(value.into()))
            }

            fn visit_str<E: de::Error>(self, text: &str) -> Result<Data, E> {
                Template::parse(text).map(Data::Text).map_err(E::custom)
            }

            fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Data, A::Error> {
                let mut list = Vec::new();
                while let Some(item) = seq.next_element()? {
                    list.push(item);
                }
                Ok(Data::List(list))
            }

            fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Data, A::Error> {
                let mut entries = Vec::new();
                while let Some(entry) = map.next_entry()? {
                    entries.push(entry);
                }
                Ok(Data::Map(entries))
            }
        }
        deserializer.deserialize_any(Tree)
    }
}

impl JsonSchema for Data {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "Data".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({"description": "Any tree; its strings are templates."})
    }
}
