//! Which rules can have a field at all: known when rules are checked.

use crate::rules::term::{MessageKind, RateOf, SessionEvent, Terms};

/// Which rules can have a field at all.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Available {
    /// Every rule.
    Always,
    /// Rules on a packet; not the begin or end of a session, nor a rate of all that passes.
    Packet,
    /// Rules that match such messages.
    Message(MessageKind),
    /// Rules that match HTTP responses.
    HttpStatus,
    /// Rules on what a flow does.
    Flow,
    /// Rules on flows that are over.
    FlowOver,
    /// Rules on TCP flags.
    TcpFlags,
    /// Rules that match `payload`.
    Payload,
    /// Rules with a rate of this.
    Rate(RateOf),
    /// Rules that match `session: ended`.
    SessionEnded,
}

impl Available {
    /// Whether a rule with these terms can have it.
    pub fn with(self, terms: &Terms) -> bool {
        match self {
            Self::Always => true,
            Self::Packet => terms.session.is_none() && terms.sum().is_none(),
            Self::Message(kind) => terms.message.as_ref().is_some_and(|m| m.kind() == kind),
            Self::HttpStatus => terms.http().is_some_and(|http| http.is_response()),
            Self::Flow => terms.flow.as_ref().is_some_and(|flow| !flow.events.is_empty()),
            Self::FlowOver => terms.flow_is_over(),
            Self::TcpFlags => terms.flow.as_ref().is_some_and(|flow| !flow.tcp_flags.is_empty()),
            Self::Payload => terms.payload.is_some(),
            Self::Rate(of) => terms.rate.is_some_and(|rate| rate.of == of),
            Self::SessionEnded => terms.session == Some(SessionEvent::Ended),
        }
    }

    /// The condition in words, as in `docs/rules.md`.
    pub fn words(self) -> &'static str {
        match self {
            Self::Always => "every rule",
            Self::Packet => "rules on a packet",
            Self::Message(MessageKind::Dns) => "`dns` rules",
            Self::Message(MessageKind::Http) => "`http` rules",
            Self::Message(MessageKind::Tls) => "`tls` rules",
            Self::Message(MessageKind::Quic) => "`quic` rules",
            Self::Message(MessageKind::Mqtt) => "`mqtt` rules",
            Self::Message(MessageKind::Coap) => "`coap` rules",
            Self::HttpStatus => "`http` rules with `status`",
            Self::Flow => "`flow` rules with an event",
            Self::FlowOver => "`flow: closed` and `flow: idle` rules",
            Self::TcpFlags => "`flow` rules with `tcpFlags`",
            Self::Payload => "`payload` rules",
            Self::Rate(RateOf::Packets) => "rules with a rate of packets",
            Self::Rate(RateOf::Bytes) => "rules with a rate of bytes",
            Self::Rate(RateOf::Flows) => "rules with a rate of flows",
            Self::SessionEnded => "`session: ended` rules",
        }
    }
}
