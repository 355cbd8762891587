//! Checked rules: every value here is known to be usable. Made by `rules::file` from YAML,
//! read by `rules::compile` (kernel tables), by `confirm` and by `cloudevent`.

use std::{ops::RangeInclusive, sync::Arc, time::Duration};

use detector_common::packet::{Direction, Protocol};
use ipnet::IpNet;

pub use super::term::{HttpRequestMatch, PathMatch, SessionEvent, Signature, Terms};
use super::{
    template::{DataTemplate, Template},
    term::Needs,
};

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
    pub terms: Terms,
    /// Of the rules that match, the highest goes first.
    pub priority: i32,
    /// When it matches, rules of lower priority of its application do not.
    pub is_final: bool,
    /// To be decided in user space although the kernel could, because rules of its application are
    /// weighed against each other.
    pub by_user_space: bool,
    /// Fire only inside a session that the UE itself began (a packet of the UE was seen).
    pub needs_session: bool,
    /// At most one event per UE in this window; `None` means every match.
    pub every: Option<Duration>,
    /// Payload bytes copied to user space, 0 to 1,024.
    pub capture: u16,
    /// The event.
    pub emit: Emit,
}

impl Rule {
    /// What the kernel decides alone; `None` for a rule that is decided in user space.
    pub fn signature(&self) -> Option<Signature> {
        match self.by_user_space {
            true => None,
            false => self.terms.signature(),
        }
    }

    /// What user space must be shown; nothing for a rule that the kernel decides.
    pub fn needs(&self) -> Needs {
        match self.signature() {
            Some(_) => Needs::default(),
            None => self.terms.needs(),
        }
    }

    /// Whether it asks for the first packet of UDP flows, in the kernel or in user space.
    pub fn sees_udp_first(&self) -> bool {
        self.signature() == Some(Signature::UdpFirstPacket) || self.needs().udp_first
    }

    /// Whether it is about the begin or end of sessions like this.
    pub fn is_session(&self, event: SessionEvent) -> bool {
        self.terms.session == Some(event)
    }
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
