//! UDP flows: which protocol a datagram speaks, and the flows of those that need a memory.

use super::{
    Segment,
    table::{Key, Remembered},
};
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

/// What a datagram speaks, by its port, its first bytes, or what is looked for.
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
    let may_be_dns = segment.wanted.dns || !ports.iter().any(|port| is_anothers(*port));
    if may_be_dns && dns::looks_like(segment.payload) {
        return Some(Kind::GuessedDns);
    }
    segment.wanted.coap.then_some(Kind::Coap)
}

/// Ports of protocols that a guess for DNS must not take: some look alike (mDNS, LLMNR, NetBIOS), and
/// tshark 4.0.17 leaves none of them to DNS. Measured: a query was sent to each of the 65,535.
const fn is_anothers(port: u16) -> bool {
    matches!(
        port,
        7 | 13 | 19 | 37 | 49 | 67..=69 | 111 | 123 | 137..=138 | 173 | 213 | 269 | 319..=320
            | 389 | 427 | 434 | 464 | 496 | 513..=514 | 520..=521 | 524..=525 | 546..=547 | 664
            | 698 | 701 | 853..=854 | 910 | 921 | 925 | 1001 | 1113 | 1153 | 1194 | 1293
            | 1628..=1629 | 1718..=1719 | 1745 | 1900 | 2055 | 2099 | 2123 | 2152 | 2157
            | 2221..=2222 | 2246 | 2268..=2269 | 2313 | 2345 | 2887 | 2944..=2945 | 2948..=2949
            | 3000 | 3130 | 3250 | 3343 | 3357 | 3386 | 3389 | 3452 | 3455 | 3544 | 3567 | 3671
            | 3784..=3785 | 3804 | 3863 | 4305..=4307 | 4341..=4342 | 4500 | 4551 | 4555 | 4569
            | 4729 | 4739 | 4754 | 4784 | 4789..=4791 | 4991 | 5031 | 5072 | 5246..=5247
            | 5350..=5351 | 5353 | 5355 | 5404..=5405 | 5436 | 5567 | 5678 | 5684 | 5868 | 6073
            | 6081 | 6118 | 6160 | 6635 | 6784 | 6970 | 7074..=7075 | 7255 | 7275 | 7784 | 8200
            | 8600 | 8755 | 8767 | 8805 | 8848 | 9200..=9203 | 9214 | 9875 | 9877 | 9899 | 9901
            | 9955..=9956 | 9996 | 10253 | 11211 | 11273 | 12000..=12004 | 12220 | 12222..=12223
            | 13400 | 17220 | 17500 | 17755..=17756 | 19132 | 19948 | 19999 | 23272
            | 24576..=24577 | 25826 | 26000 | 27500 | 27910 | 27950..=27953 | 27960..=27963
            | 32000 | 32512 | 34962 | 34980 | 37008 | 41170 | 44818 | 47000 | 54328
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

impl Remembered for Datagrams {
    fn begin(_: &Key) -> Self {
        Self::default()
    }

    fn kept(&self) -> usize {
        self.coap.as_ref().map_or(0, |coap| coap.kept())
            + self.quic.as_ref().map_or(0, |quic| quic.kept())
    }

    fn is_unfinished(&self) -> bool {
        self.quic.as_ref().is_some_and(|quic| quic.waiting() > 0)
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
