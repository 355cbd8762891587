//! The fields a template can name: one table, from which the checks, the rendering and
//! `docs/rules.md` (by a test) come.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use detector_common::packet::{Direction, Protocol};
use serde_json::Value;

use crate::detection::{Detection, SessionEndReason};

use super::model::Signature;

/// Something that was seen, by the name templates use.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Field {
    /// `ue.ip`
    UeIp,
    /// `ue.port`
    UePort,
    /// `app.ip`
    AppIp,
    /// `app.port`
    AppPort,
    /// `application`
    Application,
    /// `rule`
    Rule,
    /// `device`
    Device,
    /// `protocol`
    Protocol,
    /// `direction`
    Direction,
    /// `time`
    Time,
    /// `http.method`
    HttpMethod,
    /// `http.path`
    HttpPath,
    /// `http.query`
    HttpQuery,
    /// `http.host`
    HttpHost,
    /// `http.user_agent`
    HttpUserAgent,
    /// `session.id`
    SessionId,
    /// `session.started`
    SessionStarted,
    /// `session.duration_ms`
    SessionDurationMs,
    /// `session.packets`
    SessionPackets,
    /// `session.bytes`
    SessionBytes,
    /// `session.detections`
    SessionDetections,
    /// `session.reason`
    SessionReason,
    /// `gtp.teid`
    GtpTeid,
    /// `gtp.qfi`
    GtpQfi,
    /// `gtp.message_type`
    GtpMessageType,
    /// `vlan`
    Vlan,
}

/// Which rules can have a field at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// Every rule.
    Always,
    /// Rules on a packet; not the begin or end of a session.
    Packet,
    /// Rules that match `http`.
    Http,
    /// Rules that match `session: ended`.
    SessionEnded,
}

impl Available {
    /// Whether a rule with this signature can have it.
    pub fn with(self, signature: &Signature) -> bool {
        match (self, signature) {
            (Self::Always, _) => true,
            (Self::Packet, Signature::SessionStarted | Signature::SessionEnded) => false,
            (
                Self::Packet,
                Signature::TcpOpened | Signature::UdpFirstPacket | Signature::HttpRequest(_),
            ) => true,
            (Self::Http, signature) => matches!(signature, Signature::HttpRequest(_)),
            (Self::SessionEnded, signature) => matches!(signature, Signature::SessionEnded),
        }
    }

    /// The condition in words, as in `docs/rules.md`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Always => "every rule",
            Self::Packet => "rules on a packet",
            Self::Http => "`http` rules",
            Self::SessionEnded => "`session: ended` rules",
        }
    }
}

/// One row of the table: field, name, where it can be, what it is.
pub struct Row(pub Field, pub &'static str, pub Available, pub &'static str);

/// Every field, in the order of the enum.
#[rustfmt::skip]
pub const FIELDS: [Row; 26] = [
    Row(Field::UeIp, "ue.ip", Available::Always, "the user's address"),
    Row(Field::UePort, "ue.port", Available::Packet, "the user's port (number)"),
    Row(Field::AppIp, "app.ip", Available::Always, "the application's address"),
    Row(Field::AppPort, "app.port", Available::Always, "the application's port (number)"),
    Row(Field::Application, "application", Available::Always, "the application's name"),
    Row(Field::Rule, "rule", Available::Always, "the rule's name"),
    Row(Field::Device, "device", Available::Always, "the network device that saw it"),
    Row(Field::Protocol, "protocol", Available::Always, "`tcp` or `udp`"),
    Row(Field::Direction, "direction", Available::Packet, "`uplink` or `downlink`"),
    Row(Field::Time, "time", Available::Always, "when the packet passed (RFC 3339, UTC)"),
    Row(Field::HttpMethod, "http.method", Available::Http, "the request's method"),
    Row(Field::HttpPath, "http.path", Available::Http, "the request's path, without the query"),
    Row(Field::HttpQuery, "http.query", Available::Http, "what stands after `?`; absent without one"),
    Row(Field::HttpHost, "http.host", Available::Http, "the Host header; absent if it lies beyond the capture"),
    Row(Field::HttpUserAgent, "http.user_agent", Available::Http, "the User-Agent header; absent if it lies beyond the capture"),
    Row(Field::SessionId, "session.id", Available::Always, "the session's id; absent outside a session"),
    Row(Field::SessionStarted, "session.started", Available::Always, "when the session began (RFC 3339, UTC); absent outside a session"),
    Row(Field::SessionDurationMs, "session.duration_ms", Available::SessionEnded, "milliseconds from first to last packet (number)"),
    Row(Field::SessionPackets, "session.packets", Available::SessionEnded, "packets, both directions (number)"),
    Row(Field::SessionBytes, "session.bytes", Available::SessionEnded, "bytes at the hook, both directions (number)"),
    Row(Field::SessionDetections, "session.detections", Available::SessionEnded, "detections in the session (number)"),
    Row(Field::SessionReason, "session.reason", Available::SessionEnded, "`idle`, `closed`, `evicted` or `stopped`"),
    Row(Field::GtpTeid, "gtp.teid", Available::Always, "the GTP-U tunnel (number); absent outside N3"),
    Row(Field::GtpQfi, "gtp.qfi", Available::Always, "the QoS flow (number); absent outside N3"),
    Row(Field::GtpMessageType, "gtp.message_type", Available::Always, "the GTP-U message type (number), 255 for a user's packet; absent outside N3"),
    Row(Field::Vlan, "vlan", Available::Always, "the outermost VLAN id (number); absent without a tag"),
];

impl Field {
    /// The field of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        FIELDS.iter().find(|row| row.1 == name).map(|row| row.0)
    }

    fn row(self) -> &'static Row {
        // The table stands in the order of the enum; a test says so.
        &FIELDS[self as usize]
    }

    /// Its name in templates.
    pub fn name(self) -> &'static str {
        self.row().1
    }

    /// Which rules can have it.
    pub fn available(self) -> Available {
        self.row().2
    }

    /// What was seen; `None` if it was not.
    pub fn value(self, seen: &Detection) -> Option<Value> {
        if !self.available().with(&seen.rule.signature) {
            return None;
        }
        let text = |text: &str| Some(Value::from(text));
        let (flow, http) = (&seen.flow, seen.http.as_ref());
        let session = seen.session.as_ref();
        let ended = session.and_then(|session| session.ended.as_ref());
        match self {
            Self::UeIp => text(&flow.ue_ip.to_string()),
            Self::UePort => Some(flow.ue_port.into()),
            Self::AppIp => text(&flow.app_ip.to_string()),
            Self::AppPort => Some(flow.app_port.into()),
            Self::Application => text(&seen.rule.application.name),
            Self::Rule => text(&seen.rule.name),
            Self::Device => text(&seen.device),
            Self::Protocol => text(protocol(flow.protocol)),
            Self::Direction => text(direction(flow.direction)),
            Self::Time => text(&timestamp(seen.time)),
            Self::HttpMethod => text(&http?.method),
            Self::HttpPath => text(&http?.path),
            Self::HttpQuery => text(http?.query.as_ref()?),
            Self::HttpHost => text(http?.host.as_ref()?),
            Self::HttpUserAgent => text(http?.user_agent.as_ref()?),
            Self::SessionId => text(&session?.id),
            Self::SessionStarted => text(&timestamp(session?.started)),
            Self::SessionDurationMs => Some(milliseconds(ended?.duration).into()),
            Self::SessionPackets => Some(ended?.packets.into()),
            Self::SessionBytes => Some(ended?.bytes.into()),
            Self::SessionDetections => Some(ended?.detections.into()),
            Self::SessionReason => text(reason(ended?.reason)),
            Self::GtpTeid => Some(seen.tunnel?.teid.into()),
            Self::GtpQfi => Some(seen.tunnel?.qfi?.into()),
            Self::GtpMessageType => Some(seen.tunnel?.message_type.into()),
            Self::Vlan => Some(seen.vlan?.into()),
        }
    }
}

fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

fn timestamp(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Micros, true)
}

/// `tcp`, `udp`: the words of rules files and of events.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `uplink`, `downlink`: the words of rules files and of events.
pub fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Uplink => "uplink",
        Direction::Downlink => "downlink",
    }
}

fn reason(reason: SessionEndReason) -> &'static str {
    match reason {
        SessionEndReason::Idle => "idle",
        SessionEndReason::Closed => "closed",
        SessionEndReason::Evicted => "evicted",
        SessionEndReason::Stopped => "stopped",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn table_stands_in_the_order_of_the_enum() {
        for (i, row) in FIELDS.iter().enumerate() {
            assert_eq!(row.0 as usize, i, "{}", row.1);
            assert_eq!(Field::by_name(row.1), Some(row.0));
        }
    }

    #[test]
    fn table_is_the_one_in_the_docs() {
        let docs = include_str!("../../../docs/rules.md");
        let rows: Vec<&str> = docs.lines().filter(|line| line.starts_with("| `{")).collect();
        let row = |Row(_, name, available, what): &Row| {
            format!("| `{{{name}}}` | {} | {what} |", available.words())
        };
        assert_eq!(rows, FIELDS.iter().map(row).collect::<Vec<_>>());
    }
}
