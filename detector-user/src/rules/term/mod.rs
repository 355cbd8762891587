//! What a rule asks for, term by term: one file a term, with the words of its standard and how it
//! is compared with what was seen.
//!
//! The terms of a rule are ANDed, the values of a list ORed, what stands in `not` is negated.

mod coap;
mod dns;
mod flow;
mod http;
mod mqtt;
mod name;
mod path;
mod payload;
mod tls;
mod topic;
mod wildcard;
mod words;

use std::time::Duration;

use detector_common::{http::HttpMethod, packet::Protocol};

pub use coap::{CoapCode, CoapObserve, CoapTerm, CoapType, coap_path};
pub use dns::{DnsDirection, DnsRcode, DnsTerm, DnsType};
pub use flow::{
    FlowEventKind, FlowTerm, GtpuMessageType, GtpuTerm, Qfi, RateOf, RateTerm, TcpFlags, Teid,
    flag_names,
};
pub use http::{HttpStatus, HttpTerm, is_field_name};
pub use mqtt::{MqttQos, MqttTerm, MqttType};
pub use name::NamePattern;
pub use path::{PathGlob, PathPattern, PathRegex};
pub use payload::{HexBytes, MAX_PIECES, PayloadPattern, PayloadPiece, PayloadTerm, PiecePlace};
pub use tls::{HelloTerm, QuicTerm, QuicVersion, TlsTerm, TlsVersion};
pub use topic::TopicFilter;
pub use wildcard::Wildcard;

/// What must be seen for a rule to fire: all of it.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Terms {
    /// The begin or end of a session; then nothing else is asked for.
    pub session: Option<SessionEvent>,
    /// The first packet of a UDP flow.
    pub udp_first: bool,
    /// What a flow does, or TCP flags.
    pub flow: Option<FlowTerm>,
    /// What a message says. With a flow that closes or falls idle: what its ClientHello said.
    pub message: Option<MessageTerm>,
    /// The start of the packet's payload.
    pub payload: Option<PayloadTerm>,
    /// The GTP-U tunnel the packet came in.
    pub gtpu: Option<GtpuTerm>,
    /// None of these may hold.
    pub not: Vec<Excluded>,
    /// How many matches make the event.
    pub rate: Option<RateTerm>,
}

/// Something that must not be so: all of it together.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Excluded {
    /// What the message says.
    pub message: Option<MessageTerm>,
    /// The start of the packet's payload.
    pub payload: Option<PayloadTerm>,
    /// The GTP-U tunnel the packet came in.
    pub gtpu: Option<GtpuTerm>,
    /// TCP flags of the packet, one of these; empty is any.
    pub tcp_flags: Vec<TcpFlags>,
}

/// The begin or end of a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum SessionEvent {
    /// A UE's first packet to the application.
    Started,
    /// It ended, by idle time or close.
    Ended,
}

/// What a message of a protocol says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageTerm {
    /// DNS.
    Dns(DnsTerm),
    /// HTTP/1 and HTTP/2 in clear.
    Http(HttpTerm),
    /// A TLS ClientHello.
    Tls(TlsTerm),
    /// A ClientHello in QUIC.
    Quic(QuicTerm),
    /// MQTT.
    Mqtt(MqttTerm),
    /// CoAP.
    Coap(CoapTerm),
}

/// The protocol of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum MessageKind {
    /// DNS.
    Dns,
    /// HTTP/1 and HTTP/2 in clear.
    Http,
    /// TLS.
    Tls,
    /// QUIC.
    Quic,
    /// MQTT.
    Mqtt,
    /// CoAP.
    Coap,
}

impl MessageKind {
    /// The term's name.
    pub fn word(self) -> &'static str {
        match self {
            Self::Dns => "dns",
            Self::Http => "http",
            Self::Tls => "tls",
            Self::Quic => "quic",
            Self::Mqtt => "mqtt",
            Self::Coap => "coap",
        }
    }

    /// Whether such messages go over this transport.
    pub fn over(self, protocol: Protocol) -> bool {
        match (self, protocol) {
            (Self::Dns | Self::Coap, Protocol::Tcp | Protocol::Udp)
            | (Self::Http | Self::Tls | Self::Mqtt, Protocol::Tcp)
            | (Self::Quic, Protocol::Udp) => true,
            (Self::Http | Self::Tls | Self::Mqtt, Protocol::Udp) | (Self::Quic, Protocol::Tcp) => {
                false
            }
        }
    }
}

impl MessageTerm {
    /// The protocol.
    pub fn kind(&self) -> MessageKind {
        match self {
            Self::Dns(_) => MessageKind::Dns,
            Self::Http(_) => MessageKind::Http,
            Self::Tls(_) => MessageKind::Tls,
            Self::Quic(_) => MessageKind::Quic,
            Self::Mqtt(_) => MessageKind::Mqtt,
            Self::Coap(_) => MessageKind::Coap,
        }
    }
}

/// What the kernel can find alone. A rule whose terms say more is decided in user space.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Signature {
    /// The first SYN of a TCP connection.
    TcpOpened,
    /// The first packet of a UDP flow.
    UdpFirstPacket,
    /// The start of an HTTP/1 request at the start of a segment.
    HttpRequest(HttpRequestMatch),
    /// A UE's first packet to the application.
    SessionStarted,
    /// The session ended, by idle time or close.
    SessionEnded,
}

/// Which HTTP requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequestMatch {
    /// Any of these; empty means every method.
    pub methods: Vec<HttpMethod>,
    /// The path, without the query.
    pub path: PathMatch,
}

/// Which request paths. Compared byte by byte, case-sensitively, after the query is cut off.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathMatch {
    /// Every path.
    Any,
    /// Exactly this path.
    Exact(String),
    /// Paths that begin with this.
    Prefix(String),
}

/// What user space must be shown for a rule that it decides. The kernel may show more.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Needs {
    /// The first SYN of each TCP connection.
    pub opened: bool,
    /// The first packet of each UDP flow.
    pub udp_first: bool,
    /// The end of each TCP connection, with what the flow amounted to.
    pub closed: bool,
    /// That a flow fell silent for this long, with what it amounted to.
    pub idle: Option<Duration>,
    /// TCP packets with certain flags, also those without payload.
    pub tcp_flags: bool,
    /// The start of each payload that may match the rule's `payload` term.
    pub payload_start: bool,
    /// GTP-U messages that carry no user's packet.
    pub gtpu_control: bool,
    /// The first bytes of TCP flows, both directions, to be put together.
    pub streams: bool,
    /// UDP payloads that look like the rule's protocol.
    pub datagrams: bool,
    /// What sessions amount to, as the kernel counts it: nothing is shown for that.
    pub sums: bool,
}

impl Needs {
    /// What this or the other needs; the shorter silence.
    #[must_use]
    pub fn and(self, other: Self) -> Self {
        Self {
            opened: self.opened || other.opened,
            udp_first: self.udp_first || other.udp_first,
            closed: self.closed || other.closed,
            idle: match (self.idle, other.idle) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            },
            tcp_flags: self.tcp_flags || other.tcp_flags,
            payload_start: self.payload_start || other.payload_start,
            gtpu_control: self.gtpu_control || other.gtpu_control,
            streams: self.streams || other.streams,
            datagrams: self.datagrams || other.datagrams,
            sums: self.sums || other.sums,
        }
    }
}

impl Terms {
    /// The terms as a signature of the kernel's, if they say no more than one.
    pub fn signature(&self) -> Option<Signature> {
        if let Some(session) = self.session {
            return Some(match session {
                SessionEvent::Started => Signature::SessionStarted,
                SessionEvent::Ended => Signature::SessionEnded,
            });
        }
        if self.payload.is_some()
            || self.gtpu.is_some()
            || self.rate.is_some()
            || !self.not.is_empty()
        {
            return None;
        }
        match (self.udp_first, &self.flow, &self.message) {
            (true, None, None) => Some(Signature::UdpFirstPacket),
            (false, Some(flow), None) => {
                let opened = flow.events == [FlowEventKind::Opened] && flow.tcp_flags.is_empty();
                opened.then_some(Signature::TcpOpened)
            }
            (false, None, Some(MessageTerm::Http(http))) => kernel_http(http),
            (_, _, _) => None,
        }
    }

    /// What user space must be shown to decide these terms.
    pub fn needs(&self) -> Needs {
        let mut needs = Needs { udp_first: self.udp_first, ..Needs::default() };
        if let Some(flow) = &self.flow {
            let does = |kind| flow.events.contains(&kind);
            needs.opened = does(FlowEventKind::Opened);
            needs.closed = does(FlowEventKind::Closed);
            needs.idle = does(FlowEventKind::Idle).then_some(flow.idle).flatten();
            needs.tcp_flags = flow.events.is_empty();
        }
        if let Some(message) = &self.message {
            needs.streams = message.kind().over(Protocol::Tcp);
            needs.datagrams = message.kind().over(Protocol::Udp);
        }
        let alone = self.flow.is_none() && self.message.is_none() && !self.udp_first;
        needs.payload_start = alone && self.payload.is_some();
        needs.opened |= self.counts_flows();
        needs.udp_first |= self.counts_flows();
        needs.sums = self.sum().is_some();
        needs.gtpu_control = self.gtpu.as_ref().is_some_and(GtpuTerm::is_control);
        needs
    }

    /// Whether nothing is asked for but a rate: of all that passes between a user and the application.
    pub fn is_rate_alone(&self) -> bool {
        let Self { session, udp_first, flow, message, payload, gtpu, not, rate } = self;
        let others = session.is_some() || *udp_first || flow.is_some() || message.is_some();
        rate.is_some() && !others && payload.is_none() && gtpu.is_none() && not.is_empty()
    }

    /// The rate, if it is of all packets or bytes that pass.
    pub fn sum(&self) -> Option<RateTerm> {
        self.rate.filter(|rate| rate.of != RateOf::Flows && self.is_rate_alone())
    }

    /// Whether it is a rate of all flows that begin.
    pub fn counts_flows(&self) -> bool {
        self.is_rate_alone() && self.sum().is_none()
    }

    /// Whether flows are judged when they are over, by what their ClientHello said.
    pub fn flow_is_over(&self) -> bool {
        self.flow.as_ref().is_some_and(|flow| {
            flow.events.iter().any(|event| match event {
                FlowEventKind::Closed | FlowEventKind::Idle => true,
                FlowEventKind::Opened => false,
            })
        })
    }

    /// The `http` term, if there is one.
    pub fn http(&self) -> Option<&HttpTerm> {
        match &self.message {
            Some(MessageTerm::Http(http)) => Some(http),
            Some(
                MessageTerm::Dns(_)
                | MessageTerm::Tls(_)
                | MessageTerm::Quic(_)
                | MessageTerm::Mqtt(_)
                | MessageTerm::Coap(_),
            )
            | None => None,
        }
    }
}

/// A request's method, and at most one path that is exact or a prefix.
fn kernel_http(http: &HttpTerm) -> Option<Signature> {
    let HttpTerm { methods, hosts, paths, query, headers, status } = http;
    if !(hosts.is_empty() && query.is_empty() && headers.is_empty() && status.is_empty()) {
        return None;
    }
    let path = match paths.as_slice() {
        [] => PathMatch::Any,
        [PathPattern::Exact(path)] => PathMatch::Exact(path.clone()),
        [PathPattern::Prefix(prefix)] => PathMatch::Prefix(prefix.clone()),
        [PathPattern::Glob(_) | PathPattern::Regex(_)] | [_, _, ..] => return None,
    };
    Some(Signature::HttpRequest(HttpRequestMatch { methods: methods.clone(), path }))
}

/// The terms that say what the signature does.
impl From<Signature> for Terms {
    fn from(signature: Signature) -> Self {
        let session = |event| Self { session: Some(event), ..Self::default() };
        match signature {
            Signature::SessionStarted => session(SessionEvent::Started),
            Signature::SessionEnded => session(SessionEvent::Ended),
            Signature::UdpFirstPacket => Self { udp_first: true, ..Self::default() },
            Signature::TcpOpened => {
                let flow = FlowTerm { events: vec![FlowEventKind::Opened], ..FlowTerm::default() };
                Self { flow: Some(flow), ..Self::default() }
            }
            Signature::HttpRequest(HttpRequestMatch { methods, path }) => {
                let paths = match path {
                    PathMatch::Any => Vec::new(),
                    PathMatch::Exact(path) => vec![PathPattern::Exact(path)],
                    PathMatch::Prefix(prefix) => vec![PathPattern::Prefix(prefix)],
                };
                let http = HttpTerm { methods, paths, ..HttpTerm::default() };
                Self { message: Some(MessageTerm::Http(http)), ..Self::default() }
            }
        }
    }
}
