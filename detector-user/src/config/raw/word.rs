//! Words of the config with a meaning of their own.

use schemars::Schema;
use url::Url;

use crate::{
    config::StreamAddress,
    spool::Fsync,
    yaml::{Scalar, scalar},
};

/// A machine's name: what Kubernetes takes as one (a DNS subdomain), upper case allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(pub String);
scalar!(NodeName);

impl Scalar for NodeName {
    const EXPECTED: &'static str = "a host name of letters, digits, dots, dashes and underscores";

    fn parse(text: &str) -> Result<Self, String> {
        // It becomes one segment of the event's source, a URI reference.
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let dots = text.bytes().all(|b| b == b'.');
        match !dots && text.len() <= 253 && text.bytes().all(letter) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("\"{text}\" is no usable node name; expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}$"})
    }
}

/// An address that events can be POSTed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkUrl(pub Url);
scalar!(SinkUrl);

impl Scalar for SinkUrl {
    const EXPECTED: &'static str = "an http or https URL, e.g. http://127.0.0.1:8081/edge/default";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("\"{text}\" {why}; expected {}", Self::EXPECTED));
        match Url::parse(text) {
            Err(e) => refuse(&format!("is no URL ({e})")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                refuse(&format!("has the scheme {}", url.scheme()))
            }
            Ok(url) if url.fragment().is_some() => refuse("has a fragment, which is never sent"),
            Ok(url) => Ok(Self(url)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "format": "uri", "pattern": "^https?://"})
    }
}

/// A place for events on the network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SinkAddress {
    /// POSTed to.
    Http(Url),
    /// A stream.
    Stream(StreamAddress),
}
scalar!(SinkAddress);

impl Scalar for SinkAddress {
    const EXPECTED: &'static str = "an http or https URL, e.g. http://127.0.0.1:8081/edge/default, \
                                    nats://HOST:4222/SUBJECT or kafka://HOST:9092/TOPIC";

    fn parse(text: &str) -> Result<Self, String> {
        if ["nats://", "kafka://"].iter().any(|scheme| text.starts_with(scheme)) {
            let refuse = |why| format!("\"{text}\" {why}; expected {}", Self::EXPECTED);
            return text.parse().map(Self::Stream).map_err(refuse);
        }
        SinkUrl::parse(text).map(|url| Self::Http(url.0))
    }

    fn schema() -> Schema {
        let pattern = "^(https?|nats|kafka)://";
        schemars::json_schema!({"type": "string", "format": "uri", "pattern": pattern})
    }
}

/// A rule's name, or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePattern(pub glob::Pattern);
scalar!(RulePattern);

impl Scalar for RulePattern {
    const EXPECTED: &'static str = "a rule's name such as buy-click, or a pattern such as buy-*";

    fn parse(text: &str) -> Result<Self, String> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*".contains(c);
        let refuse = || format!("\"{text}\" is no rule's name; expected {}", Self::EXPECTED);
        if text.is_empty() || !text.chars().all(letter) {
            return Err(refuse());
        }
        glob::Pattern::new(text).map(Self).map_err(|_| refuse())
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[a-z0-9*-]+$"})
    }
}

/// When an append to the spool waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsyncSpec(pub Fsync);
scalar!(FsyncSpec);

impl Scalar for FsyncSpec {
    const EXPECTED: &'static str = "always, never, or a duration such as 1s";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self(Fsync::Always)),
            "never" => Ok(Self(Fsync::Never)),
            _ => match humantime::parse_duration(text) {
                Ok(period) => Ok(Self(Fsync::Every(period))),
                Err(_) => Err(format!("cannot be \"{text}\"; expected {}", Self::EXPECTED)),
            },
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "examples": ["always", "1s", "never"]})
    }
}

/// An address and a port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub std::net::SocketAddr);
scalar!(Listen);

impl Scalar for Listen {
    const EXPECTED: &'static str = "an address and a port, e.g. 127.0.0.1:9901 or \"[::1]:9901\"";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| format!("\"{text}\" is no listen address; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "examples": ["127.0.0.1:9901"]})
    }
}

/// Processor time, as Kubernetes writes it: in cores, or thousandths of one.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Cores(pub f64);
scalar!(Cores);

impl Scalar for Cores {
    const EXPECTED: &'static str = "cores from 0.05 to 1024, e.g. 0.5 or 500m";

    fn parse(text: &str) -> Result<Self, String> {
        let number: Option<f64> = match text.strip_suffix('m') {
            Some(thousandths) => thousandths.parse().ok().map(|number: f64| number / 1_000.0),
            None => text.parse().ok(),
        };
        match number {
            Some(cores) if (0.05..=1_024.0).contains(&cores) => Ok(Self(cores)),
            Some(_) | None => Err(format!("cannot be \"{text}\"; expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": ["number", "string"], "examples": [0.5, "500m"]})
    }
}

/// A part of all.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Ratio(pub f64);
scalar!(Ratio);

impl Scalar for Ratio {
    const EXPECTED: &'static str = "a number from 0 (none) to 1 (all), e.g. 0.01";

    fn parse(text: &str) -> Result<Self, String> {
        match text.parse() {
            Ok(ratio) if (0.0..=1.0).contains(&ratio) => Ok(Self(ratio)),
            Ok(_) | Err(_) => Err(format!("cannot be \"{text}\"; expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "number", "minimum": 0, "maximum": 1})
    }
}
