//! The `dns` term.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::{name::NamePattern, words::Words};
use crate::{
    l7::fact::{DnsMessage, DnsQuestion},
    yaml::{Scalar, scalar},
};

/// Which DNS messages.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DnsTerm {
    /// Names asked for; empty is any.
    pub names: Vec<NamePattern>,
    /// Record types asked for; empty is any.
    pub qtypes: Vec<DnsType>,
    /// Queries or responses; `None` is both.
    pub message: Option<DnsDirection>,
    /// Response codes; empty is any.
    pub rcodes: Vec<DnsRcode>,
}

impl DnsTerm {
    /// Whether the message is such. Name and type must be those of the same question.
    pub fn matches(&self, message: &DnsMessage) -> bool {
        let asked = self.names.is_empty() && self.qtypes.is_empty()
            || message.questions.iter().any(|question| self.asks(question));
        asked
            && self
                .message
                .is_none_or(|wanted| message.response == matches!(wanted, DnsDirection::Response))
            && (self.rcodes.is_empty() || self.rcodes.contains(&DnsRcode(message.rcode)))
    }
}

impl DnsTerm {
    /// Whether messages with most names are none of these.
    pub fn names_some(&self) -> bool {
        !self.names.is_empty() && !self.names.contains(&NamePattern::Any)
    }

    /// Whether this is a question asked for.
    pub fn asks(&self, question: &DnsQuestion) -> bool {
        (self.names.is_empty() || self.names.iter().any(|name| name.matches(&question.name)))
            && (self.qtypes.is_empty() || self.qtypes.contains(&DnsType(question.qtype)))
    }
}

/// Query or response.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DnsDirection {
    /// A query.
    Query,
    /// A response.
    Response,
}

/// A record type (IANA "Resource Record (RR) TYPEs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsType(pub u16);
scalar!(DnsType);

const TYPES: Words<u16> = Words {
    what: "record type",
    table: &[
        ("A", 1),
        ("NS", 2),
        ("CNAME", 5),
        ("SOA", 6),
        ("PTR", 12),
        ("HINFO", 13),
        ("MX", 15),
        ("TXT", 16),
        ("AAAA", 28),
        ("LOC", 29),
        ("SRV", 33),
        ("NAPTR", 35),
        ("DS", 43),
        ("SSHFP", 44),
        ("RRSIG", 46),
        ("NSEC", 47),
        ("DNSKEY", 48),
        ("TLSA", 52),
        ("SVCB", 64),
        ("HTTPS", 65),
        ("SPF", 99),
        ("IXFR", 251),
        ("AXFR", 252),
        ("ANY", 255),
        ("CAA", 257),
    ],
};

impl Scalar for DnsType {
    const EXPECTED: &'static str = "a record type such as A, AAAA or HTTPS, or its number";

    fn parse(text: &str) -> Result<Self, String> {
        let number = text.strip_prefix("TYPE").unwrap_or(text).parse().ok();
        number.map_or_else(|| TYPES.find(text, Self::EXPECTED), Ok).map(Self)
    }

    fn schema() -> Schema {
        TYPES.schema()
    }
}

impl DnsType {
    /// `AAAA`, or `TYPE1234` (RFC 3597 section 5).
    pub fn text(self) -> String {
        TYPES.name(self.0).map_or_else(|| format!("TYPE{}", self.0), str::to_owned)
    }
}

/// A response code (IANA "DNS RCODEs").
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DnsRcode(pub u16);
scalar!(DnsRcode);

const RCODES: Words<u16> = Words {
    what: "response code",
    table: &[
        ("NOERROR", 0),
        ("FORMERR", 1),
        ("SERVFAIL", 2),
        ("NXDOMAIN", 3),
        ("NOTIMP", 4),
        ("REFUSED", 5),
        ("YXDOMAIN", 6),
        ("YXRRSET", 7),
        ("NXRRSET", 8),
        ("NOTAUTH", 9),
        ("NOTZONE", 10),
        ("BADVERS", 16),
        ("BADCOOKIE", 23),
    ],
};

impl Scalar for DnsRcode {
    const EXPECTED: &'static str = "a response code such as NOERROR or NXDOMAIN, or its number";

    fn parse(text: &str) -> Result<Self, String> {
        // 12 bits with the EDNS extension (RFC 6891 section 6.1.3).
        let number = text.parse().ok().filter(|number| *number < 1 << 12);
        number.map_or_else(|| RCODES.find(text, Self::EXPECTED), Ok).map(Self)
    }

    fn schema() -> Schema {
        RCODES.schema()
    }
}

impl DnsRcode {
    /// `NXDOMAIN`, or the number.
    pub fn text(self) -> String {
        RCODES.name(self.0).map_or_else(|| self.0.to_string(), str::to_owned)
    }
}
