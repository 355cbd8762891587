//! Words with a meaning: address prefixes, durations, names, sizes.

use std::{net::IpAddr, time::Duration};

use ipnet::IpNet;
use schemars::Schema;

/// A value written as one word. `scalar!` gives it `Deserialize` and `JsonSchema`.
pub trait Scalar: Sized {
    /// What was expected, in words.
    const EXPECTED: &'static str;

    /// The value, or what is wrong with it and what was expected instead.
    fn parse(text: &str) -> Result<Self, String>;

    /// Its JSON Schema.
    fn schema() -> Schema;
}

/// Implements serde's and schemars' traits for a [`Scalar`].
macro_rules! scalar {
    ($type:ty) => {
        impl<'de> serde::Deserialize<'de> for $type {
            fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
                struct Word;
                impl serde::de::Visitor<'_> for Word {
                    type Value = $type;

                    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
                        f.write_str(<$type as $crate::yaml::Scalar>::EXPECTED)
                    }

                    fn visit_str<E: serde::de::Error>(self, text: &str) -> Result<$type, E> {
                        <$type as $crate::yaml::Scalar>::parse(text).map_err(E::custom)
                    }

                    fn visit_u64<E: serde::de::Error>(self, number: u64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_f64<E: serde::de::Error>(self, number: f64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }

                    fn visit_i64<E: serde::de::Error>(self, number: i64) -> Result<$type, E> {
                        self.visit_str(&number.to_string())
                    }
                }
                deserializer.deserialize_any(Word)
            }
        }

        impl schemars::JsonSchema for $type {
            fn inline_schema() -> bool {
                true
            }

            fn schema_name() -> std::borrow::Cow<'static, str> {
                stringify!($type).into()
            }

            fn json_schema(_: &mut schemars::SchemaGenerator) -> schemars::Schema {
                <$type as $crate::yaml::Scalar>::schema()
            }
        }
    };
}
pub(crate) use scalar;

/// An address prefix, host bits zero.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Cidr(pub IpNet);
scalar!(Cidr);

impl Scalar for Cidr {
    const EXPECTED: &'static str = "an address or prefix, e.g. 10.60.0.0/16 or fd00:60::/48";

    fn parse(text: &str) -> Result<Self, String> {
        let net = match text.parse::<IpAddr>() {
            Ok(address) => IpNet::from(address),
            Err(_) => text.parse::<IpNet>().map_err(|_| not_a_prefix(text))?,
        };
        if let IpNet::V6(v6) = net
            && let Some(v4) = v6.addr().to_ipv4_mapped()
        {
            return Err(format!(
                "\"{text}\" is an IPv4-mapped address, which no packet carries; expected plain \
                 IPv4; did you mean \"{v4}\"?"
            ));
        }
        match net.trunc() {
            whole if whole == net => Ok(Self(net)),
            whole => Err(format!(
                "\"{text}\" has bits set beyond the prefix length; expected {}; did you mean \
                 \"{whole}\"?",
                Self::EXPECTED
            )),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An address, or a prefix whose host bits are zero.",
            "examples": ["10.60.0.0/16", "fd00:60::/48", "10.45.0.10"],
        })
    }
}

fn not_a_prefix(text: &str) -> String {
    let why = match text.split_once('/').map(|(a, len)| (a.parse::<IpAddr>(), len)) {
        Some((Ok(address), length)) => {
            let longest = if address.is_ipv4() { 32 } else { 128 };
            format!("has the prefix length \"{length}\", which must be 0 to {longest}")
        }
        Some((Err(_), _)) | None => "is no address prefix".to_owned(),
    };
    format!("\"{text}\" {why}; expected {}", Cidr::EXPECTED)
}

/// A duration with its unit.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Period(pub Duration);
scalar!(Period);

impl Scalar for Period {
    const EXPECTED: &'static str = "a duration with its unit, e.g. 500ms, 30s or 5m";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = humantime::parse_duration(text);
        parsed
            .map(Self)
            .map_err(|_| format!("\"{text}\" is no duration; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A duration with its unit.",
            "examples": ["500ms", "30s", "5m"],
        })
    }
}

impl Period {
    /// What is wrong if this is outside `least..=most`.
    pub fn outside(self, least: Duration, most: Duration) -> Option<String> {
        (self.0 < least || self.0 > most).then(|| {
            let show = humantime::format_duration;
            format!("{} is out of range; expected {} to {}", show(self.0), show(least), show(most))
        })
    }
}

/// A DNS label (RFC 1123): what Kubernetes takes as a name, and a CloudEvents attribute can hold.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Name(pub String);
scalar!(Name);

impl Scalar for Name {
    const EXPECTED: &'static str =
        "a name of at most 63 lower-case letters, digits and inner dashes, e.g. ar-shop";

    fn parse(text: &str) -> Result<Self, String> {
        let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
        let inner = |b: u8| plain(b) || b == b'-';
        let ends = [text.as_bytes().first(), text.as_bytes().last()];
        let good = text.len() <= 63
            && text.bytes().all(inner)
            && ends.into_iter().all(|end| end.is_some_and(|&b| plain(b)));
        match good {
            true => Ok(Self(text.to_owned())),
            false => {
                let shown: String = text.chars().take(80).collect();
                Err(format!("\"{shown}\" is no usable name; expected {}", Self::EXPECTED))
            }
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A DNS label (RFC 1123).",
            "pattern": "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$",
        })
    }
}

/// A number of bytes: `4096`, `64Ki`, `4Mi`, `1Gi`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ByteSize(pub u64);
scalar!(ByteSize);

impl Scalar for ByteSize {
    const EXPECTED: &'static str = "a number of bytes, e.g. 65536, 64Ki or 4Mi";

    fn parse(text: &str) -> Result<Self, String> {
        let digits = text.trim_end_matches(|c: char| !c.is_ascii_digit());
        let factor = match &text[digits.len()..] {
            "" => Some(1),
            "Ki" => Some(1 << 10),
            "Mi" => Some(1 << 20),
            "Gi" => Some(1 << 30),
            _ => None,
        };
        let number = digits.parse::<u64>().ok();
        let bytes = number.zip(factor).and_then(|(n, factor)| n.checked_mul(factor));
        bytes.map(Self).ok_or_else(|| format!("\"{text}\" is no size; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "description": "A number of bytes, with Ki, Mi or Gi if wanted.",
            "anyOf": [
                {"type": "integer", "minimum": 0},
                {"type": "string", "pattern": "^[0-9]+(Ki|Mi|Gi)?$"},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prefixes_are_corrected_not_only_refused() {
        assert_eq!(Cidr::parse("10.45.0.10").unwrap().0.to_string(), "10.45.0.10/32");
        assert_eq!(Cidr::parse("fd00::/48").unwrap().0.to_string(), "fd00::/48");
        assert!(Cidr::parse("10.45.0.10/16").unwrap_err().ends_with("mean \"10.45.0.0/16\"?"));
        assert!(Cidr::parse("10.0.0.0/33").unwrap_err().contains("must be 0 to 32"));
        assert!(Cidr::parse("::ffff:10.0.0.1").unwrap_err().ends_with("mean \"10.0.0.1\"?"));
        assert!(Cidr::parse("shop.example").is_err());
    }

    #[test]
    fn sizes_know_binary_units_and_do_not_overflow() {
        assert_eq!(ByteSize::parse("4Mi").unwrap().0, 4 << 20);
        assert_eq!(ByteSize::parse("4096").unwrap().0, 4096);
        for bad in ["", "4M", "-1", "99999999999Gi", "Mi", "4é"] {
            assert!(ByteSize::parse(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_dns_labels() {
        assert!(Name::parse("ar-shop").is_ok());
        for bad in ["", "-a", "a-", "Ar", "a_b", "a.b", &"a".repeat(64), "ü"] {
            assert!(Name::parse(bad).is_err(), "{bad}");
        }
    }
}
