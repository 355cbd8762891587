//! The `flow`, `udp`, `gtpu` and `rate` terms: what packets and flows do, not what they say.

use std::time::Duration;

use schemars::{JsonSchema, Schema};
use serde::Deserialize;

use super::words::Words;
use crate::{
    detection::Tunnel,
    yaml::{Scalar, did_you_mean, one_of, scalar},
};

/// What a flow does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct FlowTerm {
    /// One of these; empty is any packet (then there are `tcp_flags`).
    pub events: Vec<FlowEventKind>,
    /// Silence that counts as idle.
    pub idle: Option<Duration>,
    /// One of these combinations, on the packet; empty is any.
    pub tcp_flags: Vec<TcpFlags>,
}

/// Something a flow does.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum FlowEventKind {
    /// The first SYN of a TCP connection.
    Opened,
    /// A TCP connection was closed by both sides, or reset.
    Closed,
    /// No packet for a while.
    Idle,
}

impl FlowEventKind {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Opened => "opened",
            Self::Closed => "closed",
            Self::Idle => "idle",
        }
    }
}

/// TCP flags of which some must be set and some clear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TcpFlags {
    /// These must be set.
    pub set: u8,
    /// These must be clear.
    pub clear: u8,
}
scalar!(TcpFlags);

/// RFC 9293 section 3.1, from the lowest bit.
const FLAGS: [&str; 8] = ["FIN", "SYN", "RST", "PSH", "ACK", "URG", "ECE", "CWR"];

impl TcpFlags {
    /// Whether the flags are such.
    pub fn matches(self, flags: u8) -> bool {
        flags & self.set == self.set && flags & self.clear == 0
    }

    /// As it is written.
    pub fn text(self) -> String {
        let named = |bits: u8, sign: &'static str| {
            let of = move |(bit, name): (usize, &&'static str)| {
                (bits >> bit & 1 == 1).then(|| format!("{sign}{name}"))
            };
            FLAGS.iter().enumerate().filter_map(of)
        };
        named(self.set, "").chain(named(self.clear, "!")).collect::<Vec<_>>().join(",")
    }
}

/// The names of the flags that are set.
pub fn flag_names(flags: u8) -> String {
    TcpFlags { set: flags, clear: 0 }.text()
}

impl Scalar for TcpFlags {
    const EXPECTED: &'static str =
        "TCP flags such as RST or \"SYN,!ACK\" (all of them; ! is a flag that is clear)";

    fn parse(text: &str) -> Result<Self, String> {
        let mut flags = Self { set: 0, clear: 0 };
        for word in text.split(',').map(str::trim) {
            let (bits, name) = match word.strip_prefix('!') {
                Some(name) => (&mut flags.clear, name),
                None => (&mut flags.set, word),
            };
            let bit = FLAGS.iter().position(|flag| *flag == name).ok_or_else(|| {
                format!(
                    "unknown TCP flag \"{name}\"; expected {}{}",
                    one_of(&FLAGS),
                    did_you_mean(name, FLAGS)
                )
            })?;
            *bits |= 1 << bit;
        }
        match flags.set & flags.clear {
            0 => Ok(flags),
            both => Err(format!(
                "can never match: {} would be both set and clear; expected {}",
                flag_names(both),
                Self::EXPECTED
            )),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "TCP flags that are all set, or clear with ! before them.",
            "pattern": "^ *!?(FIN|SYN|RST|PSH|ACK|URG|ECE|CWR)( *, *!?(FIN|SYN|RST|PSH|ACK|URG|ECE|CWR))* *$",
            "examples": ["RST", "SYN,!ACK"],
        })
    }
}

/// Which GTP-U tunnels (N3).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GtpuTerm {
    /// Tunnel endpoint identifiers; empty is any.
    pub teids: Vec<Teid>,
    /// QoS flows; empty is any, also none.
    pub qfis: Vec<Qfi>,
    /// Message types; empty is any.
    pub message_types: Vec<GtpuMessageType>,
}

impl GtpuTerm {
    /// Whether only messages are meant that carry no user's packet.
    pub fn is_control(&self) -> bool {
        !self.message_types.is_empty() && !self.message_types.contains(&GtpuMessageType::G_PDU)
    }

    /// Whether the packet came in such a tunnel.
    pub fn matches(&self, tunnel: Option<Tunnel>) -> bool {
        tunnel.is_some_and(|tunnel| {
            (self.teids.is_empty() || self.teids.contains(&Teid(tunnel.teid)))
                && (self.qfis.is_empty()
                    || tunnel.qfi.is_some_and(|qfi| self.qfis.contains(&Qfi(qfi))))
                && (self.message_types.is_empty()
                    || self.message_types.contains(&GtpuMessageType(tunnel.message_type)))
        })
    }
}

/// A tunnel endpoint identifier.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Teid(pub u32);
scalar!(Teid);

impl Scalar for Teid {
    const EXPECTED: &'static str = "a TEID, e.g. 4711 or \"0x00001267\"";

    fn parse(text: &str) -> Result<Self, String> {
        let number = match text.strip_prefix("0x") {
            Some(hex) => u32::from_str_radix(hex, 16).ok(),
            None => text.parse().ok(),
        };
        number
            .map(Self)
            .ok_or_else(|| format!("\"{text}\" is no TEID; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "description": "A GTP-U tunnel endpoint identifier.",
            "anyOf": [
                {"type": "integer", "minimum": 0, "maximum": 4_294_967_295_u32},
                {"type": "string", "pattern": "^(0x[0-9a-fA-F]{1,8}|[0-9]+)$"},
            ],
        })
    }
}

/// A QoS flow identifier (TS 38.415).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Qfi(pub u8);
scalar!(Qfi);

impl Scalar for Qfi {
    const EXPECTED: &'static str = "a QFI, 0 to 63";

    fn parse(text: &str) -> Result<Self, String> {
        let qfi = text.parse().ok().filter(|qfi| *qfi < 64);
        qfi.map(Self).ok_or_else(|| format!("\"{text}\" is no QFI; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "integer", "minimum": 0, "maximum": 63})
    }
}

/// A message type (TS 29.281 section 6.1, table 6.1-1).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct GtpuMessageType(pub u8);
scalar!(GtpuMessageType);

const MESSAGE_TYPES: Words<u8> = Words {
    what: "GTP-U message type",
    table: &[
        ("Echo Request", 1),
        ("Echo Response", 2),
        ("Error Indication", 26),
        ("Supported Extension Headers Notification", 31),
        ("Tunnel Status", 253),
        ("End Marker", 254),
        ("G-PDU", 255),
    ],
};

impl GtpuMessageType {
    /// A user's packet.
    pub const G_PDU: Self = Self(255);

    /// Whether it is about the path between two nodes, not about a tunnel (TS 29.281 section 7.2.1).
    pub fn is_of_path(self) -> bool {
        matches!(self.0, 1 | 2 | 31)
    }

    /// The name, or the number.
    pub fn text(self) -> String {
        MESSAGE_TYPES.name(self.0).map_or_else(|| self.0.to_string(), str::to_owned)
    }
}

impl Scalar for GtpuMessageType {
    const EXPECTED: &'static str = "a GTP-U message type such as End Marker, or its number";

    fn parse(text: &str) -> Result<Self, String> {
        text.parse().map_or_else(|_| MESSAGE_TYPES.find(text, Self::EXPECTED), Ok).map(Self)
    }

    fn schema() -> Schema {
        MESSAGE_TYPES.schema()
    }
}

/// How much of what the other terms match, in which time, makes the event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateTerm {
    /// What is counted.
    pub of: RateOf,
    /// From how many on.
    pub at_least: u64,
    /// In which time.
    pub window: Duration,
}

impl RateTerm {
    /// The window slides in so many steps.
    pub const STEPS: u64 = 16;

    /// How long a step is, ns.
    pub fn step_ns(self) -> u64 {
        let window = u64::try_from(self.window.as_nanos()).unwrap_or(u64::MAX);
        (window / Self::STEPS).max(1)
    }
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateOf {
    /// Matches.
    Packets,
    /// Bytes of the packets that matched, or of the flows that ended.
    Bytes,
    /// Different flows with a match.
    Flows,
}

impl RateOf {
    /// As it is written.
    pub fn word(self) -> &'static str {
        match self {
            Self::Packets => "packets",
            Self::Bytes => "bytes",
            Self::Flows => "flows",
        }
    }
}
