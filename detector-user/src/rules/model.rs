//! Checked rules: every value here is known to be usable. Made by `rules::file` from YAML,
//! read by `rules::compile` (kernel tables), by `confirm` and by `cloudevent`.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use detector_common::{
    http::HttpMethod,
    packet::{Direction, Protocol},
};
use ipnet::IpNet;

use super::template::{DataTemplate, Template};

/// All rules of one generation. Swapped as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct RuleSet {
    /// The watched applications; names are unique.
    pub applications: Vec<Arc<Application>>,
    /// The rules; names are unique.
    pub rules: Vec<Arc<Rule>>,
}

/// An application that users reach through N6.
#[derive(Clone, Debug, PartialEq)]
pub struct Application {
    /// DNS-label name, unique among applications.
    pub name: String,
    /// Where it is served; never empty.
    pub endpoints: Vec<Endpoint>,
    /// When a user's session with it ends.
    pub session: SessionPolicy,
}

/// One place where an application is served.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// Addresses, host bits zero.
    pub prefix: IpNet,
    /// Ports, both ends included.
    pub ports: RangeInclusive<u16>,
    /// Transport.
    pub protocol: Protocol,
}

/// When a session (one UE and one application) ends.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SessionPolicy {
    /// No packet for this long ends the session. At least 1 s.
    pub idle: Duration,
    /// All of the session's TCP connections closed and no packet for this long ends it too.
    pub linger: Duration,
}

/// What to detect and which event to make of it.
#[derive(Clone, Debug, PartialEq)]
pub struct Rule {
    /// DNS-label name, unique among rules.
    pub name: String,
    /// The application it watches.
    pub application: Arc<Application>,
    /// Only these UEs; empty means all.
    pub ue: Vec<IpNet>,
    /// Only packets of this direction; `None` means both.
    pub direction: Option<Direction>,
    /// What must be seen.
    pub signature: Signature,
    /// Fire only inside a session that the UE itself began (a packet of the UE was seen).
    pub needs_session: bool,
    /// At most one event per UE in this window; `None` means every match.
    pub every: Option<Duration>,
    /// Payload bytes copied to user space, 0 to 1,024.
    pub capture: u16,
    /// The event.
    pub emit: Emit,
}

/// What must be seen for a rule to fire.
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

/// The event a rule emits.
#[derive(Clone, Debug, PartialEq)]
pub struct Emit {
    /// CloudEvents `type`, e.g. `com.example.arshop.buy.clicked`.
    pub event_type: String,
    /// CloudEvents `subject`; by default the UE's address.
    pub subject: Template,
    /// CloudEvents `dataschema`, an absolute URI.
    pub dataschema: Option<url::Url>,
    /// JSON data with templates in its strings.
    pub data: DataTemplate,
}
