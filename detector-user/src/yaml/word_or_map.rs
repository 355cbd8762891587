//! A value with a short form (a word or a list of words) and a long one (a mapping).

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{Deserialize, Deserializer, de::Visitor};

/// The name by which the deserializer of `typed.rs` knows that a [`WordOrMap`] is asked for.
pub(super) const WORD_OR_MAP: &str = "$detector::yaml::WordOrMap";

/// The short form or the long one.
#[derive(Clone, Debug)]
pub enum WordOrMap<W, M> {
    /// No mapping.
    Word(W),
    /// A mapping.
    Map(M),
}

impl<'de, W: Deserialize<'de>, M: Deserialize<'de>> Deserialize<'de> for WordOrMap<W, M> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(WORD_OR_MAP, WordOrMapVisitor(PhantomData))
    }
}

/// `typed.rs` shows it a mapping as a newtype, and anything else as an option.
struct WordOrMapVisitor<W, M>(PhantomData<(W, M)>);

impl<'de, W: Deserialize<'de>, M: Deserialize<'de>> Visitor<'de> for WordOrMapVisitor<W, M> {
    type Value = WordOrMap<W, M>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a word or a mapping")
    }

    fn visit_some<D: Deserializer<'de>>(self, word: D) -> Result<Self::Value, D::Error> {
        W::deserialize(word).map(WordOrMap::Word)
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, map: D) -> Result<Self::Value, D::Error> {
        M::deserialize(map).map(WordOrMap::Map)
    }
}

impl<W: JsonSchema, M: JsonSchema> JsonSchema for WordOrMap<W, M> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("{}_or_{}", W::schema_name(), M::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let (word, map) = (generator.subschema_for::<W>(), generator.subschema_for::<M>());
        schemars::json_schema!({"anyOf": [word, map]})
    }
}
