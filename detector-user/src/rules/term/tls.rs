//! The `tls` and `quic` terms: what a ClientHello asks for.

use schemars::Schema;

use super::{name::NamePattern, wildcard::Wildcard, words::Words};
use crate::{
    l7::fact::{ClientHello, QuicHello},
    yaml::{Scalar, scalar},
};

/// Which ClientHellos.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HelloTerm {
    /// Server names; empty is any, also none.
    pub sni: Vec<NamePattern>,
    /// Application protocols, one of which must be offered; empty is any.
    pub alpn: Vec<String>,
    /// JA4 fingerprints; empty is any.
    pub ja4: Vec<Wildcard>,
    /// Whether the hello carries an encrypted one.
    pub ech: Option<bool>,
}

impl HelloTerm {
    /// Whether the hello is such.
    pub fn matches(&self, hello: &ClientHello) -> bool {
        let (sni, ja4) = (hello.sni.as_deref(), hello.ja4.as_deref());
        (self.sni.is_empty() || sni.is_some_and(|sni| self.sni.iter().any(|p| p.matches(sni))))
            && (self.alpn.is_empty() || self.alpn.iter().any(|wanted| hello.alpn.contains(wanted)))
            && (self.ja4.is_empty()
                || ja4.is_some_and(|ja4| self.ja4.iter().any(|wanted| wanted.matches(ja4))))
            && self.ech.is_none_or(|wanted| hello.ech == wanted)
    }
}

/// Which TLS connections, by the ClientHello that opens them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TlsTerm {
    /// The hello.
    pub hello: HelloTerm,
    /// Highest version offered; empty is any.
    pub versions: Vec<TlsVersion>,
}

impl TlsTerm {
    /// Whether the hello is such.
    pub fn matches(&self, hello: &ClientHello) -> bool {
        self.hello.matches(hello)
            && (self.versions.is_empty() || self.versions.contains(&TlsVersion(hello.version)))
    }
}

/// Which QUIC connections, by the ClientHello in their Initials.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct QuicTerm {
    /// The hello.
    pub hello: HelloTerm,
    /// QUIC versions; empty is any.
    pub versions: Vec<QuicVersion>,
}

impl QuicTerm {
    /// Whether the hello is such.
    pub fn matches(&self, hello: &QuicHello) -> bool {
        self.hello.matches(&hello.hello)
            && (self.versions.is_empty() || self.versions.contains(&QuicVersion(hello.version)))
    }
}

/// A TLS version as it stands in a hello.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TlsVersion(pub u16);
scalar!(TlsVersion);

const TLS: Words<u16> = Words {
    what: "TLS version",
    table: &[("1.3", 0x0304), ("1.2", 0x0303), ("1.1", 0x0302), ("1.0", 0x0301), ("1", 0x0301)],
};

impl Scalar for TlsVersion {
    const EXPECTED: &'static str = "a TLS version: 1.0, 1.1, 1.2 or 1.3";

    fn parse(text: &str) -> Result<Self, String> {
        TLS.find(text, Self::EXPECTED).map(Self)
    }

    fn schema() -> Schema {
        TLS.schema()
    }
}

impl TlsVersion {
    /// `1.3`, or the number in hexadecimal.
    pub fn text(self) -> String {
        TLS.name(self.0).map_or_else(|| format!("{:#06x}", self.0), str::to_owned)
    }
}

/// A QUIC version.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QuicVersion(pub u32);
scalar!(QuicVersion);

/// RFC 9000 section 15, RFC 9369 section 3.1; drafts are 0xff000000 and their number.
const QUIC: Words<u32> = Words { what: "QUIC version", table: &[("1", 1), ("2", 0x6b33_43cf)] };
const DRAFT: u32 = 0xff00_0000;

impl Scalar for QuicVersion {
    const EXPECTED: &'static str = "a QUIC version: 1, 2, draft-29 or 0x and eight digits";

    fn parse(text: &str) -> Result<Self, String> {
        let hex = text.strip_prefix("0x").and_then(|hex| u32::from_str_radix(hex, 16).ok());
        let draft = text.strip_prefix("draft-").and_then(|number| number.parse::<u8>().ok());
        let number = hex.or_else(|| draft.map(|number| DRAFT | u32::from(number)));
        number.map_or_else(|| QUIC.find(text, Self::EXPECTED), Ok).map(Self)
    }

    fn schema() -> Schema {
        QUIC.schema()
    }
}

impl QuicVersion {
    /// `1`, `2`, `draft-29`, or the number in hexadecimal.
    pub fn text(self) -> String {
        match (QUIC.name(self.0), self.0 & !0xff == DRAFT) {
            (Some(name), _) => name.to_owned(),
            (None, true) => format!("draft-{}", self.0 & 0xff),
            (None, false) => format!("{:#010x}", self.0),
        }
    }
}
