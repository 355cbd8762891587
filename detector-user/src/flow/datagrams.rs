//! UDP flows: which protocol a datagram speaks, and the flows of those that need a memory.

use super::Segment;
use crate::l7::{Fact, coap, dns, quic};

/// A protocol over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dns,
    Coap,
    Quic,
}

/// What a flow remembers.
#[derive(Default)]
pub(super) struct Datagrams {
    coap: Option<Box<coap::Exchanges>>,
    quic: Option<Box<quic::Initials>>,
}

/// What a datagram speaks, by its port or its first bytes.
pub(super) fn recognize(segment: &Segment<'_>) -> Option<Kind> {
    let ports = [segment.source.port, segment.destination.port];
    for port in [ports[0].min(ports[1]), ports[0].max(ports[1])] {
        match port {
            53 => return Some(Kind::Dns),
            5683 => return Some(Kind::Coap),
            _ => {}
        }
    }
    quic::looks_like(segment.payload).then_some(Kind::Quic)
}

impl Kind {
    /// What the datagram says, if its protocol needs no memory.
    pub(super) fn stateless(self, segment: &Segment<'_>) -> Option<Vec<Fact>> {
        match self {
            Self::Dns => Some(dns::message(segment.payload).map(Fact::Dns).into_iter().collect()),
            Self::Coap | Self::Quic => None,
        }
    }
}

impl Datagrams {
    /// What the datagram says.
    pub(super) fn datagram(&mut self, kind: Kind, segment: &Segment<'_>) -> Vec<Fact> {
        match kind {
            Kind::Dns => Vec::new(),
            Kind::Coap => {
                let exchanges = self.coap.get_or_insert_default();
                exchanges.datagram(segment.payload).map(Fact::Coap).into_iter().collect()
            }
            Kind::Quic => self.quic.get_or_insert_default().datagram(segment.payload),
        }
    }
}
