//! The `coap` term.

use std::{borrow::Cow, fmt};

use schemars::{JsonSchema, Schema, SchemaGenerator};
use serde::{
    Deserialize, Deserializer,
    de::{self, Visitor},
};

use super::{path::PathPattern, wildcard::Wildcard, words::Words};
use crate::{
    l7::fact::CoapMessage,
    yaml::{Scalar, scalar},
};

/// Which CoAP messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CoapTerm {
    /// Codes; empty is any.
    pub codes: Vec<CoapCode>,
    /// The path of the Uri-Path options; empty is any.
    pub paths: Vec<PathPattern>,
    /// Uri-Query options, of which one must be such; empty is any.
    pub queries: Vec<Wildcard>,
    /// Whether there is an Observe option, or its value.
    pub observe: Option<CoapObserve>,
    /// Message types; empty is any.
    pub types: Vec<CoapType>,
}

impl CoapTerm {
    /// Whether the message is such.
    pub fn matches(&self, message: &CoapMessage) -> bool {
        (self.codes.is_empty() || self.codes.iter().any(|code| code.matches(message.code)))
            && (self.paths.is_empty()
                || coap_path(message)
                    .is_some_and(|path| self.paths.iter().any(|p| p.matches(path))))
            && (self.queries.is_empty()
                || message.query.iter().any(|q| self.queries.iter().any(|w| w.matches(q))))
            && self.observe.is_none_or(|wanted| wanted.matches(message.observe))
            && (self.types.is_empty()
                || message.kind.is_some_and(|kind| self.types.contains(&CoapType(kind))))
    }
}

/// The path that the message is about: of its own options, or of the request it answers.
pub fn coap_path(message: &CoapMessage) -> Option<&str> {
    if !message.path.is_empty() {
        return Some(&message.path);
    }
    if message.code >> 5 == 0 {
        // A request without Uri-Path is for `/` (RFC 7252 section 6.5, step 7).
        return Some("/");
    }
    let asked = match message.uri.split_once("://") {
        Some((_scheme, rest)) => rest.find('/').map_or("/", |path| &rest[path..]),
        None => &message.uri,
    };
    (!asked.is_empty()).then_some(asked)
}

/// A code, or a class of response codes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoapCode {
    /// This code, its class in the upper three bits.
    Code(u8),
    /// `4.xx`: all of this class.
    Class(u8),
}
scalar!(CoapCode);

/// RFC 7252 section 12.1.1, RFC 8132 section 6.
const METHODS: Words<u8> = Words {
    what: "code",
    table: &[
        ("GET", 1),
        ("POST", 2),
        ("PUT", 3),
        ("DELETE", 4),
        ("FETCH", 5),
        ("PATCH", 6),
        ("iPATCH", 7),
    ],
};

impl CoapCode {
    fn matches(self, code: u8) -> bool {
        match self {
            Self::Code(wanted) => code == wanted,
            Self::Class(class) => code >> 5 == class,
        }
    }

    /// The number before the dot.
    pub fn class(self) -> u8 {
        match self {
            Self::Code(code) => code >> 5,
            Self::Class(class) => class,
        }
    }

    /// Whether it is a request's.
    pub fn is_request(self) -> bool {
        self.class() == 0
    }

    /// `GET`, `2.05`, `4.xx`.
    pub fn text(self) -> String {
        match self {
            Self::Code(code) => METHODS
                .name(code)
                .map_or_else(|| format!("{}.{:02}", code >> 5, code & 0x1f), str::to_owned),
            Self::Class(class) => format!("{class}.xx"),
        }
    }
}

impl Scalar for CoapCode {
    const EXPECTED: &'static str =
        "a method such as GET, a code such as \"2.05\" (in quotes), or a class such as 4.xx";

    fn parse(text: &str) -> Result<Self, String> {
        let unknown = || METHODS.find(text, Self::EXPECTED).map(Self::Code);
        let Some((class, detail)) = text.split_once('.') else { return unknown() };
        match (class.parse::<u8>(), detail, detail.parse::<u8>()) {
            (Ok(class @ 0..=7), "xx", _) => Ok(Self::Class(class)),
            (Ok(class @ 0..=7), _, Ok(number @ 0..=31)) if detail.len() == 2 => {
                Ok(Self::Code(class << 5 | number))
            }
            // YAML reads 2.10 and 2.1 as the same number.
            (Ok(_), _, Ok(_)) if detail.len() == 1 => Err(format!(
                "\"{text}\" is not clear; expected {}; did you mean \"{class}.0{detail}\"?",
                Self::EXPECTED
            )),
            (Ok(_) | Err(_), _, Ok(_) | Err(_)) => unknown(),
        }
    }

    fn schema() -> Schema {
        METHODS.schema()
    }
}

/// What the Observe option must be (RFC 7641).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CoapObserve {
    /// `true`: there is one; `false`: there is none.
    There(bool),
    /// It has this value: in a request 0 registers, 1 deregisters.
    Value(u32),
}

impl<'de> Deserialize<'de> for CoapObserve {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct BoolOrNumber;
        impl Visitor<'_> for BoolOrNumber {
            type Value = CoapObserve;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("true, false or the option's value (0 registers, 1 deregisters)")
            }

            fn visit_bool<E>(self, there: bool) -> Result<CoapObserve, E> {
                Ok(CoapObserve::There(there))
            }

            fn visit_u64<E: de::Error>(self, value: u64) -> Result<CoapObserve, E> {
                // Three bytes (RFC 7641 section 2).
                match u32::try_from(value) {
                    Ok(value @ 0..=0xff_ffff) => Ok(CoapObserve::Value(value)),
                    Ok(_) | Err(_) => {
                        Err(E::invalid_value(de::Unexpected::Unsigned(value), &"0 to 16777215"))
                    }
                }
            }
        }
        deserializer.deserialize_any(BoolOrNumber)
    }
}

impl JsonSchema for CoapObserve {
    fn inline_schema() -> bool {
        true
    }

    fn schema_name() -> Cow<'static, str> {
        "CoapObserve".into()
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        schemars::json_schema!({
            "anyOf": [{"type": "boolean"}, {"type": "integer", "minimum": 0, "maximum": 16_777_215}],
        })
    }
}

impl CoapObserve {
    fn matches(self, observe: Option<u32>) -> bool {
        match self {
            Self::There(wanted) => observe.is_some() == wanted,
            Self::Value(value) => observe == Some(value),
        }
    }
}

/// A message type (RFC 7252 section 3).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CoapType(pub u8);
scalar!(CoapType);

const TYPES: Words<u8> =
    Words { what: "message type", table: &[("CON", 0), ("NON", 1), ("ACK", 2), ("RST", 3)] };

impl CoapType {
    /// Acknowledgement.
    pub const ACK: Self = Self(2);
    /// Reset.
    pub const RST: Self = Self(3);

    /// `CON`.
    pub fn text(self) -> String {
        TYPES.name(self.0).map_or_else(|| self.0.to_string(), str::to_owned)
    }
}

impl Scalar for CoapType {
    const EXPECTED: &'static str = "a message type: CON, NON, ACK or RST";

    fn parse(text: &str) -> Result<Self, String> {
        TYPES.find(text, &TYPES.all()).map(Self)
    }

    fn schema() -> Schema {
        TYPES.names_only()
    }
}
