//! UDP flows: which protocol a datagram speaks, and the flows of those that need a memory.

use super::{Segment, table::Waiting};
use crate::l7::{Fact, coap, dns, quic};

/// A protocol over UDP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Dns,
    /// It looks like DNS, on a port that says nothing.
    GuessedDns,
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
    if quic::looks_like(segment.payload) {
        return Some(Kind::Quic);
    }
    let guess = !ports.iter().any(|port| is_anothers(*port)) && dns::looks_like(segment.payload);
    guess.then_some(Kind::GuessedDns)
}

/// Ports of protocols that a guess for DNS must not take: they look alike (mDNS, LLMNR, NetBIOS), or
/// could by chance.
const fn is_anothers(port: u16) -> bool {
    matches!(
        port,
        67..=69 | 88 | 111 | 123 | 137..=139 | 161 | 162 | 389 | 427 | 500 | 514 | 520 | 546 | 547
            | 1645 | 1646 | 1812 | 1813 | 1900 | 2123 | 2152 | 3478 | 4500 | 5060 | 5353 | 5355
    )
}

impl Kind {
    /// What the datagram says, if its protocol needs no memory.
    pub(super) fn stateless(self, segment: &Segment<'_>) -> Option<Vec<Fact>> {
        match self {
            Self::Dns => Some(dns::message(segment.payload).map(Fact::Dns).into_iter().collect()),
            Self::GuessedDns => {
                let message = dns::message(segment.payload);
                let message = message.filter(|message| !message.questions.is_empty());
                Some(message.map(Fact::Dns).into_iter().collect())
            }
            Self::Coap | Self::Quic => None,
        }
    }
}

impl Waiting for Datagrams {
    fn waiting(&self) -> usize {
        self.quic.as_ref().map_or(0, |quic| quic.waiting())
    }
}

impl Datagrams {
    /// QUIC packets that were not read since the last call.
    pub(super) fn take_unread(&mut self) -> quic::Unread {
        self.quic.as_mut().map_or_else(quic::Unread::default, |quic| quic.take_unread())
    }

    /// What the datagram says.
    pub(super) fn datagram(&mut self, kind: Kind, segment: &Segment<'_>) -> Vec<Fact> {
        match kind {
            Kind::Dns | Kind::GuessedDns => Vec::new(),
            Kind::Coap => {
                let exchanges = self.coap.get_or_insert_default();
                exchanges.datagram(segment.payload).map(Fact::Coap).into_iter().collect()
            }
            Kind::Quic => self.quic.get_or_insert_default().datagram(segment.payload),
        }
    }
}
