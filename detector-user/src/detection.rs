//! A detection: a rule that fired, with everything that was seen when it did. What templates
//! and CloudEvents are made from.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use detector_common::packet::{Direction, Protocol};

use crate::rules::model::Rule;

/// One rule fired on one packet, or on the begin or end of one session.
#[derive(Clone, Debug)]
pub struct Detection {
    /// The rule that fired.
    pub rule: Arc<Rule>,
    /// When the packet passed the hook (session ends: when the last packet did).
    pub time: SystemTime,
    /// The device whose hook saw it, e.g. `n6`.
    pub device: Arc<str>,
    /// Who talked to whom.
    pub flow: Flow,
    /// The session it belongs to, if one is open.
    pub session: Option<Session>,
    /// The HTTP request, for rules that match one.
    pub http: Option<HttpRequest>,
    /// The GTP-U tunnel it came in, on N3.
    pub tunnel: Option<Tunnel>,
    /// The outermost VLAN, if the frame had a tag.
    pub vlan: Option<u16>,
    /// What tells this detection from every other of the same rule, device and flow; the same
    /// packet gives the same number (TCP sequence number, IP identification, ...).
    pub discriminator: u64,
    /// When the agent read the record, on the monotonic clock; for latency metrics only.
    pub read_at: std::time::Instant,
}

/// The two ends, from the application's point of view.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Flow {
    /// The user's address; IPv4 is never written as IPv4-mapped IPv6.
    pub ue_ip: IpAddr,
    /// The user's port; 0 for session events.
    pub ue_port: u16,
    /// The application's address.
    pub app_ip: IpAddr,
    /// The application's port.
    pub app_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// Which way the packet went.
    pub direction: Direction,
}

/// One user of one application, from the first packet to idle or close.
#[derive(Clone, Debug, PartialEq)]
pub struct Session {
    /// Stable for the session's life and unique among sessions, also over restarts.
    pub id: String,
    /// The UE's first packet.
    pub started: SystemTime,
    /// The totals, once it has ended.
    pub ended: Option<SessionEnd>,
}

/// What a session amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionEnd {
    /// From first to last packet.
    pub duration: Duration,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes on the wire at the hook, both directions.
    pub bytes: u64,
    /// Detections of rules that matched packets of this session.
    pub detections: u64,
    /// Why it ended.
    pub reason: SessionEndReason,
}

/// Why a session ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEndReason {
    /// No packet for the application's idle time.
    Idle,
    /// Its TCP connections were closed and nothing followed.
    Closed,
    /// The kernel's table was full and dropped the longest unused.
    Evicted,
    /// The agent stopped, or a new rule set no longer has the application.
    Stopped,
}

/// The head of an HTTP/1 request as far as it was captured.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Method token as sent.
    pub method: String,
    /// Path without the query, as sent (percent-encoding kept).
    pub path: String,
    /// What stands after `?`, if anything.
    pub query: Option<String>,
    /// The Host header, or the authority of an absolute URI, if it was within the capture.
    pub host: Option<String>,
    /// The User-Agent header, if it was within the capture.
    pub user_agent: Option<String>,
}

/// The GTP-U message on N3 (TS 29.281) that a packet came in, or that it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// Message type; 255 for a user's packet.
    pub message_type: u8,
    /// QoS flow identifier, from the PDU Session Container (TS 38.415).
    pub qfi: Option<u8>,
}
