//! A value of a raw document that remembers where it stands.

use std::{borrow::Cow, fmt, marker::PhantomData, sync::Arc};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, SeqAccess, Visitor},
};

use super::problem::{Place, Problem};

/// The name by which the deserializer of `typed.rs` knows that a [`Field`] is asked for.
pub(super) const FIELD: &str = "$detector::yaml::Field";

/// A value with its place. One that could not be read is recorded as a problem, and empty here,
/// so that the rest of the document is still looked at.
#[derive(Clone, Debug, PartialEq)]
pub struct Field<T> {
    place: Place,
    path: String,
    value: Option<T>,
}

impl<T> Field<T> {
    /// The value, unless it was refused (which is recorded already).
    pub fn get(&self) -> Option<&T> {
        self.value.as_ref()
    }

    /// Where it stands.
    pub fn place(&self) -> &Place {
        &self.place
    }

    /// Something is wrong with this value.
    pub fn problem(&self, message: impl Into<String>) -> Problem {
        Problem { place: self.place.clone(), field: self.path.clone(), message: message.into() }
    }
}

impl<'de, T: Deserialize<'de>> Deserialize<'de> for Field<T> {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_newtype_struct(FIELD, FieldVisitor(PhantomData))
    }
}

/// Takes what `typed.rs` hands it: file, line, column, path, and the value unless it was refused.
struct FieldVisitor<T>(PhantomData<T>);

impl<'de, T: Deserialize<'de>> Visitor<'de> for FieldVisitor<T> {
    type Value = Field<T>;

    fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("a value with its place (only `yaml::typed` can give that)")
    }

    fn visit_seq<A: SeqAccess<'de>>(self, mut seq: A) -> Result<Field<T>, A::Error> {
        let mut part = 0;
        let mut missing = || {
            part += 1;
            de::Error::invalid_length(part, &"file, line, column, path")
        };
        let file: String = seq.next_element()?.ok_or_else(&mut missing)?;
        let line = seq.next_element()?.ok_or_else(&mut missing)?;
        let column = seq.next_element()?.ok_or_else(&mut missing)?;
        let path = seq.next_element()?.ok_or_else(&mut missing)?;
        let place = Place { file: Arc::from(file), line, column };
        Ok(Field { place, path, value: seq.next_element()? })
    }
}

/// In the schema a field is just its value.
impl<T: JsonSchema> JsonSchema for Field<T> {
    fn inline_schema() -> bool {
        T::inline_schema()
    }

    fn schema_name() -> Cow<'static, str> {
        T::schema_name()
    }

    fn schema_id() -> Cow<'static, str> {
        T::schema_id()
    }

    fn json_schema(generator: &mut SchemaGenerator) -> Schema {
        T::json_schema(generator)
    }
}
