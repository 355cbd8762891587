//! A detection: a rule that fired, with everything that was seen when it did. What templates
//! and CloudEvents are made from.

use std::{
    net::IpAddr,
    sync::Arc,
    time::{Duration, SystemTime},
};

use detector_common::packet::{Direction, Protocol};

use crate::{
    l7::fact::{Fact, HttpRequest},
    rules::model::Rule,
};

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
    /// What was seen.
    pub evidence: Evidence,
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

/// What was seen at the moment a rule was judged: what its terms are compared with, and what its
/// templates show.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Evidence {
    /// What happened.
    pub moment: Moment,
    /// The request that a response answers, if it was seen.
    pub request: Option<Arc<HttpRequest>>,
    /// The ClientHello that the flow began with, if it was seen and the flow is over now.
    pub hello: Option<Arc<Fact>>,
    /// The packet's payload as far as it was captured.
    pub payload: Arc<[u8]>,
    /// The packet's TCP flags, if it is TCP.
    pub tcp_flags: Option<u8>,
    /// What was counted, for rules with a `rate`.
    pub rate: Option<u64>,
    /// How long a flow has been silent, of the times that rules ask for.
    pub silent_for: Option<Duration>,
}

/// What happened.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum Moment {
    /// A packet passed.
    #[default]
    Packet,
    /// Its payload completed a message.
    Message(Arc<Fact>),
    /// It is the first SYN of a TCP connection.
    Opened,
    /// It is the first packet of a UDP flow.
    UdpFirst,
    /// The TCP connection was closed or reset.
    Closed(FlowTotals),
    /// The flow fell silent.
    Idle(FlowTotals),
    /// The session began or ended, or what had passed in it was counted.
    Session,
}

/// What a flow amounted to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FlowTotals {
    /// From first to last packet.
    pub duration: Duration,
    /// Packets, both directions.
    pub packets: u64,
    /// Bytes on the wire at the hook, both directions.
    pub bytes: u64,
}

impl Evidence {
    /// What happened, and nothing beside it.
    pub fn of(moment: Moment) -> Self {
        Self { moment, ..Self::default() }
    }

    /// The message, if that is what happened; for a flow that is over, its ClientHello.
    pub fn message(&self) -> Option<&Fact> {
        match &self.moment {
            Moment::Message(fact) => Some(fact),
            Moment::Closed(_) | Moment::Idle(_) => self.hello.as_deref(),
            Moment::Packet | Moment::Opened | Moment::UdpFirst | Moment::Session => None,
        }
    }

    /// The HTTP request that was seen, or that was answered.
    pub fn http_request(&self) -> Option<&HttpRequest> {
        match self.message() {
            Some(Fact::HttpRequest(request)) => Some(request),
            Some(
                Fact::HttpResponse(_)
                | Fact::Dns(_)
                | Fact::Tls(_)
                | Fact::Quic(_)
                | Fact::Mqtt(_)
                | Fact::Coap(_),
            )
            | None => self.request.as_deref(),
        }
    }

    /// The totals of a flow that is over.
    pub fn totals(&self) -> Option<FlowTotals> {
        match self.moment {
            Moment::Closed(totals) | Moment::Idle(totals) => Some(totals),
            Moment::Packet
            | Moment::Message(_)
            | Moment::Opened
            | Moment::UdpFirst
            | Moment::Session => None,
        }
    }
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
