//! The words that only rules use: ports, methods, paths, event types, URIs.

use std::ops::RangeInclusive;

use detector_common::http::HttpMethod;
use schemars::Schema;

use crate::yaml::{Scalar, did_you_mean, one_of, scalar};

/// One port or a range of ports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PortRange(pub RangeInclusive<u16>);
scalar!(PortRange);

impl Scalar for PortRange {
    const EXPECTED: &'static str = "a port 1 to 65535 or a range such as \"8080-8090\"";

    fn parse(text: &str) -> Result<Self, String> {
        let (from, to) = text.split_once('-').unwrap_or((text, text));
        let port = |text: &str| text.trim().parse::<u16>().ok().filter(|&port| port > 0);
        match (port(from), port(to)) {
            (Some(from), Some(to)) if from <= to => Ok(Self(from..=to)),
            (Some(from), Some(to)) => Err(format!(
                "the port range \"{text}\" is reversed; expected {}; did you mean \"{to}-{from}\"?",
                Self::EXPECTED
            )),
            _ => Err(format!("\"{text}\" is no port; expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "description": "A port, or a range of ports, both ends included.",
            "anyOf": [
                {"type": "integer", "minimum": 1, "maximum": 65535},
                {"type": "string", "pattern": "^[0-9]+(-[0-9]+)?$"},
            ],
        })
    }
}

/// An HTTP method as it stands in a request line.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Method(pub HttpMethod);
scalar!(Method);

fn tokens() -> [&'static str; HttpMethod::ALL.len()] {
    HttpMethod::ALL.map(HttpMethod::token)
}

impl Scalar for Method {
    const EXPECTED: &'static str = "an HTTP method such as POST, or a list of them";

    fn parse(text: &str) -> Result<Self, String> {
        let known = HttpMethod::ALL.into_iter().find(|method| method.token() == text);
        known.map(Self).ok_or_else(|| {
            let nearest = did_you_mean(text, tokens());
            format!("unknown method \"{text}\"; expected {}{nearest}", one_of(&tokens()))
        })
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "enum": tokens()})
    }
}

/// A request path as it stands in a request line (RFC 9112 section 3.2.1), without the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UrlPath(pub String);
scalar!(UrlPath);

impl Scalar for UrlPath {
    const EXPECTED: &'static str = "a path that begins with \"/\", e.g. /api/buttons/buy";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |what: &str, instead: String| {
            Err(format!(
                "\"{text}\" {what}; expected {}; did you mean \"{instead}\"?",
                Self::EXPECTED
            ))
        };
        if let Some((path, _)) = text.split_once(['?', '#']) {
            let what = "has a query or fragment, which is cut off before paths are compared";
            return refuse(what, if path.is_empty() { "/".to_owned() } else { path.to_owned() });
        }
        if !text.starts_with('/') {
            return refuse("must begin with \"/\"", format!("/{}", encoded(text)));
        }
        if text.bytes().any(must_be_encoded) {
            return refuse("has characters that a client sends percent-encoded", encoded(text));
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A request path as sent: percent-encoded, without the query.",
            "pattern": "^/[^? #]*$",
        })
    }
}

fn must_be_encoded(byte: u8) -> bool {
    !byte.is_ascii_graphic()
}

fn encoded(text: &str) -> String {
    let encode = |byte: u8| match must_be_encoded(byte) {
        true => format!("%{byte:02X}"),
        false => char::from(byte).to_string(),
    };
    text.bytes().map(encode).collect()
}

/// An ALPN protocol name (RFC 7301 section 3.1).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AlpnName(pub String);
scalar!(AlpnName);

impl Scalar for AlpnName {
    const EXPECTED: &'static str = "an ALPN protocol name such as h2, http/1.1 or h3";

    fn parse(text: &str) -> Result<Self, String> {
        match text.len() {
            1..=255 => Ok(Self(text.to_owned())),
            _ => {
                Err(format!("has {} bytes, not 1 to 255; expected {}", text.len(), Self::EXPECTED))
            }
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An ALPN protocol name.",
            "minLength": 1,
            "maxLength": 255,
            "examples": ["h2", "http/1.1", "h3"],
        })
    }
}

/// A CloudEvents `type`: a non-empty word, by convention in reverse DNS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct EventType(pub String);
scalar!(EventType);

impl Scalar for EventType {
    const EXPECTED: &'static str = "a CloudEvents type, e.g. com.example.shop.buy.clicked";

    fn parse(text: &str) -> Result<Self, String> {
        // CloudEvents asks for a non-empty string; it becomes an HTTP header, so no control
        // characters, and Triggers compare it whole, so no spaces that nobody sees.
        match !text.is_empty() && text.len() <= 256 && text.bytes().all(|b| b.is_ascii_graphic()) {
            true => Ok(Self(text.to_owned())),
            false if text.is_empty() => Err(format!("is empty; expected {}", Self::EXPECTED)),
            false => Err(format!(
                "must be at most 256 printable ASCII characters without spaces; expected {}",
                Self::EXPECTED
            )),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A CloudEvents type.",
            "pattern": "^[!-~]{1,256}$",
            "examples": ["com.example.shop.buy.clicked"],
        })
    }
}

/// An absolute URI (CloudEvents `dataschema`).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Uri(pub url::Url);
scalar!(Uri);

impl Scalar for Uri {
    const EXPECTED: &'static str = "an absolute URI, e.g. https://example.com/schemas/buy.json";

    fn parse(text: &str) -> Result<Self, String> {
        let visible = text.bytes().all(|b| b.is_ascii_graphic());
        match url::Url::parse(text) {
            Ok(url) if visible => Ok(Self(url)),
            Ok(_) => Err(format!(
                "\"{text}\" has spaces or letters beyond ASCII; expected {}",
                Self::EXPECTED
            )),
            Err(e) => Err(format!("\"{text}\" is no URI ({e}); expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "format": "uri"})
    }
}
