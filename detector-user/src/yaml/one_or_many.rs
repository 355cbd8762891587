//! A value that may be written alone or as a list of alternatives.

use std::{borrow::Cow, fmt, marker::PhantomData};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{SeqAccess, Visitor},
};

use super::field::Field;

/// The name by which the deserializer of `typed.rs` knows that a [`OneOrMany`] is asked for.
pub(super) const ONE_OR_MANY: &str = "$detector::yaml::OneOrMany";

/// One value or a list of them, each with its place.
#[derive(Clone, Debug)]
pub enum OneOrMany<T> {
    /// Written alone; its place is that of the field around it.
    One(T),
    /// A list.
    Many(Vec<Field<T>>),
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for OneOrMany<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(ONE_OR_MANY, OneOrManyVisitor(PhantomData))
    }
}

/// `typed.rs` shows it a list as a sequence, and anything else as a newtype.
struct OneOrManyVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for OneOrManyVisitor<T> {
    type Value = OneOrMany<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value or a list of values")
    }

    fn visit_newtype_struct<D: Deserializer<'de>>(self, one: D) -> Result<OneOrMany<T>, D::Error> {
        T::deserialize(one).map(OneOrMany::One)
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut list: A) -> Result<OneOrMany<T>, A::Error> {
        let mut many = Vec::new();
        while let Some(item) = list.next_element()? {
            many.push(item);
        }
        Ok(OneOrMany::Many(many))
    }
}

impl<T: JsonSchema> JsonSchema for OneOrMany<T> {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        format!("OneOrMany_{}", T::schema_name()).into()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        let one = generator.subschema_for::<T>();
        schemars::json_schema!({
            "anyOf": [one, {"type": "array", "items": one, "minItems": 1}],
        })
    }
}
