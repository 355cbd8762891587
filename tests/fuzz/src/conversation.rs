//! Whole flows: both directions of connections and datagrams, in any order, on any of the ports that
//! mean something.

use detector_common::{packet::Address, wire::tcp_flag};
use detector_user::{
    flow::{Endpoint, Flows, Found, Limits, Segment, Stamp, Transport, Wanted},
    l7::Fact,
};

use super::input;

const PORTS: [u16; 16] =
    [80, 443, 1883, 53, 5683, 8080, 8443, 4_000, 22, 25, 1080, 3128, 5353, 853, 1900, 3389];

/// How a piece of the input passes.
#[derive(Clone, Copy)]
struct How(u8);

impl How {
    fn forth(self) -> bool {
        self.0 & 1 == 0
    }

    fn flags(self) -> u8 {
        match self.0 >> 1 & 7 {
            0 => tcp_flag::SYN,
            1 => tcp_flag::SYN | tcp_flag::ACK,
            2 => tcp_flag::FIN | tcp_flag::ACK,
            3 => tcp_flag::RST,
            _ => tcp_flag::ACK,
        }
    }

    /// Bytes on the wire that were not captured.
    fn cut(self) -> u32 {
        if self.0 & 0x30 == 0x30 { 7 } else { 0 }
    }

    /// How far its sequence number is from where it should be: behind a gap, or sent again.
    fn shift(self) -> u32 {
        if self.0 & 0xc0 == 0xc0 { u32::from(self.0 & 0x3f).wrapping_sub(32) } else { 0 }
    }

    fn quoted(self) -> bool {
        self.0 & 0xf0 == 0x40
    }
}

/// Packets of one pair of ports over TCP, UDP or both: nothing panics, what is found is said by one of
/// the two ends, the same each time; and a connection all of whose segments are sent again says the same.
pub(crate) fn conversation(mut bytes: &[u8]) {
    let port = PORTS[usize::from(input::byte(&mut bytes)) % PORTS.len()];
    let how = input::byte(&mut bytes);
    let wanted = Wanted { dns: how & 1 != 0, coap: how & 2 != 0 };
    let limits = if how & 4 == 0 { Limits::CAPTURE } else { Limits::LIVE };
    let packets: Vec<(How, &[u8])> = input::pieces(bytes)
        .into_iter()
        .filter_map(|piece| piece.split_first().map(|(how, payload)| (How(*how), payload)))
        .collect();
    let datagrams = how & 8 != 0;
    let play = |packets: &[(How, &[u8])]| Play::new(port, wanted, limits, datagrams).all(packets);
    let found = play(&packets);
    for found in &found {
        assert!(found.is_on(port) && found.is_on(CLIENT), "{found:?}");
    }
    assert_eq!(found, play(&packets));
    // A quoted segment is no part of the stream: twice quoted, it is twice said.
    if !datagrams && !packets.iter().any(|(how, _)| how.quoted()) {
        let twice = Play { twice: true, ..Play::new(port, wanted, limits, datagrams) };
        assert_eq!(facts(found), facts(twice.all(&packets)));
    }
}

fn facts(found: Vec<Found>) -> Vec<Fact> {
    found.into_iter().map(|found| found.fact).collect()
}

const CLIENT: u16 = 40_000;

/// Flows, and where the two ends are in what they say.
struct Play {
    flows: Flows,
    port: u16,
    wanted: Wanted,
    datagrams: bool,
    /// Each segment is sent again.
    twice: bool,
    next: [u32; 2],
}

impl Play {
    fn new(port: u16, wanted: Wanted, limits: Limits, datagrams: bool) -> Self {
        let flows = Flows::new(limits);
        // The user's numbers wrap around soon.
        Self { flows, port, wanted, datagrams, twice: false, next: [u32::MAX - 20, 1] }
    }

    fn all(mut self, packets: &[(How, &[u8])]) -> Vec<Found> {
        let mut found = Vec::new();
        for (frame, (how, payload)) in packets.iter().enumerate() {
            self.packet(frame as u64, *how, payload, &mut found);
        }
        self.flows.finish(&mut found);
        found
    }

    fn packet(&mut self, frame: u64, how: How, payload: &[u8], found: &mut Vec<Found>) {
        let client = Endpoint { address: Address::v4([10, 60, 0, 2]), port: CLIENT };
        let server = Endpoint { address: Address::v4([10, 45, 0, 10]), port: self.port };
        let (way, source, destination) =
            if how.forth() { (0, client, server) } else { (1, server, client) };
        let length = payload.len() as u32 + how.cut();
        let transport = if self.datagrams {
            Transport::Udp
        } else {
            let sequence = self.next[way].wrapping_add(how.shift());
            let syn = u32::from(how.flags() & tcp_flag::SYN != 0);
            self.next[way] = self.next[way].wrapping_add(length + syn);
            Transport::Tcp { sequence, acknowledgement: self.next[1 - way], flags: how.flags() }
        };
        let segment = Segment {
            source,
            destination,
            transport,
            payload,
            length,
            quoted: how.quoted(),
            stamp: Stamp { time_ns: frame, frame },
            wanted: self.wanted,
        };
        for _ in 0..=u8::from(self.twice) {
            self.flows.packet(&segment, found);
        }
        let _ = self.flows.is_unfinished(&segment);
    }
}
