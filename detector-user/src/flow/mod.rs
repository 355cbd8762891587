//! Flows: from packets of any source (a capture, or the kernel's records) to what they say.
//!
//! `order` puts the segments of one direction in order, `half` reads one direction through the
//! `reader` of what it speaks, `connection` and `datagrams` know both, `table` bounds how many there
//! are. Time is what the packets say.

mod choice;
mod connection;
mod datagrams;
mod half;
mod order;
mod reader;
mod table;
#[cfg(test)]
mod tests;

use std::fmt;

use detector_common::packet::Address;

use self::{
    connection::Connection,
    datagrams::Datagrams,
    table::{Key, Remembered as _, Table},
};
use crate::{
    capture::layers::ip_address,
    l7::{Fact, quic},
};

/// One end of a flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Endpoint {
    /// IP address.
    pub address: Address,
    /// TCP or UDP port.
    pub port: u16,
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        std::net::SocketAddr::new(ip_address(self.address), self.port).fmt(f)
    }
}

/// When a packet passed, and which one it was.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Stamp {
    /// Time, in ns since any moment that stays the same.
    pub time_ns: u64,
    /// The packet's number: of the frame in a capture, or of the record.
    pub frame: u64,
}

/// The transport header of a packet, as far as flows need it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Transport {
    /// TCP.
    Tcp {
        /// Sequence number.
        sequence: u32,
        /// Acknowledgement number; counts if the flags say so.
        acknowledgement: u32,
        /// Flags, see [`detector_common::wire::tcp_flag`].
        flags: u8,
    },
    /// UDP.
    Udp,
}

/// One TCP segment or UDP datagram.
#[derive(Clone, Copy, Debug)]
pub struct Segment<'a> {
    /// Where it comes from.
    pub source: Endpoint,
    /// Where it goes to.
    pub destination: Endpoint,
    /// Its header.
    pub transport: Transport,
    /// Its payload, as much as was captured.
    pub payload: &'a [u8],
    /// Payload bytes on the wire.
    pub length: u32,
    /// It did not pass: an ICMP error quotes its beginning.
    pub quoted: bool,
    /// When it passed.
    pub stamp: Stamp,
    /// What somebody looks for in it.
    pub wanted: Wanted,
}

/// Protocols that are looked for on ports that are not theirs.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Wanted {
    /// DNS, also on ports that other protocols have, whose messages may look like it.
    pub dns: bool,
    /// CoAP: nobody takes a datagram for it by its bytes alone, of which two bits say what it is, nor a
    /// stream, of which none do.
    pub coap: bool,
}

/// A fact, and the packet that completed it.
#[derive(Clone, Debug, PartialEq)]
pub struct Found {
    /// What was said.
    pub fact: Fact,
    /// By whom.
    pub source: Endpoint,
    /// To whom.
    pub destination: Endpoint,
    /// The packet that completed it.
    pub stamp: Stamp,
    /// Its protocol is spoken from the first byte that was seen of its direction, and not only behind
    /// another's (STARTTLS, CONNECT).
    pub opening: bool,
}

impl Found {
    /// Whether one of the ports is this one.
    pub fn is_on(&self, port: u16) -> bool {
        self.source.port == port || self.destination.port == port
    }
}

/// How much is remembered.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Flows at once; one that was long unused gives way.
    pub flows: usize,
    /// Bytes that flows keep besides themselves (what waits for more, and what later messages refer
    /// to), of all TCP flows together, and of all UDP flows.
    pub kept: usize,
    /// Bytes of each direction that are read before its flow is left alone; none is no limit.
    pub stream: Option<u64>,
    /// A flow that was silent for longer is a new one.
    pub idle_ns: u64,
    /// A message counts once all of it is there, a body of known length too, as dissectors have it.
    pub whole_messages: bool,
}

impl Limits {
    /// For a rule's first look at live flows.
    pub const LIVE: Self = Self {
        flows: 65_536,
        kept: 64 << 20,
        stream: Some(16 << 10),
        idle_ns: 60_000_000_000,
        whole_messages: false,
    };
    /// For every fact of a capture.
    pub const CAPTURE: Self = Self {
        flows: 262_144,
        kept: 256 << 20,
        stream: None,
        idle_ns: u64::MAX,
        whole_messages: true,
    };
}

/// What was not read, and why.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct FlowCounts {
    /// Flows forgotten because there were too many, or too many bytes were kept.
    pub evicted: u64,
    /// Bytes missing in the middle of streams that were read on behind them.
    pub gaps: u64,
    /// Directions left alone because [`Limits::stream`] was reached.
    pub left_alone: u64,
    /// Messages left out because [`Limits::whole_messages`] asks for the rest of them.
    pub unfinished: u64,
    /// QUIC packets with a long header.
    pub quic: quic::Unread,
}

/// Every flow that is followed.
pub struct Flows {
    limits: Limits,
    connections: Table<Connection>,
    datagrams: Table<Datagrams>,
    counts: FlowCounts,
}

/// A key, and whether the packet goes from its first end to its second.
fn key_of(segment: &Segment<'_>) -> (Key, bool) {
    let (from, to) = (segment.source, segment.destination);
    let rank = |end: Endpoint| (end.address.0, end.port);
    if rank(from) <= rank(to) { (Key([from, to]), true) } else { (Key([to, from]), false) }
}

/// Where facts of one packet go, and how much may be remembered.
struct Output<'a> {
    limits: Limits,
    facts: &'a mut Vec<Found>,
    counts: &'a mut FlowCounts,
}

impl Flows {
    /// Flows that have seen nothing yet.
    pub fn new(limits: Limits) -> Self {
        Self {
            limits,
            connections: Table::new(limits.flows),
            datagrams: Table::new(limits.flows),
            counts: FlowCounts::default(),
        }
    }

    /// What was not read so far.
    pub fn counts(&self) -> FlowCounts {
        let evicted = self.counts.evicted + self.connections.evicted + self.datagrams.evicted;
        FlowCounts { evicted, ..self.counts }
    }

    /// Takes the next packet in, and appends what it completes to `facts`.
    pub fn packet(&mut self, segment: &Segment<'_>, facts: &mut Vec<Found>) {
        match segment.transport {
            Transport::Tcp { .. } if segment.quoted => self.quoted(segment, facts),
            Transport::Tcp { .. } => self.tcp(segment, facts),
            Transport::Udp => self.udp(segment, facts),
        }
    }

    /// Of what came before a sequence number of this segment's direction nothing more will be seen: what
    /// waits for it is read now.
    pub fn give_up_before(&mut self, segment: &Segment<'_>, sequence: u32, facts: &mut Vec<Found>) {
        let (key, forth) = key_of(segment);
        let Limits { idle_ns, .. } = self.limits;
        let mut output = Output { limits: self.limits, facts, counts: &mut self.counts };
        let now = segment.stamp.time_ns;
        self.connections.visit(key, now, idle_ns, false, |connection| {
            connection.give_up_before(&key, sequence, forth, &mut output);
        });
    }

    /// Whether more packets are needed of this one's flow to complete what they say.
    pub fn is_unfinished(&self, segment: &Segment<'_>) -> bool {
        let (key, _) = key_of(segment);
        match segment.transport {
            Transport::Tcp { .. } => self.connections.is_unfinished(&key),
            Transport::Udp => self.datagrams.is_unfinished(&key),
        }
    }

    fn tcp(&mut self, segment: &Segment<'_>, facts: &mut Vec<Found>) {
        let (key, forth) = key_of(segment);
        let Limits { idle_ns, kept, .. } = self.limits;
        let mut output = Output { limits: self.limits, facts, counts: &mut self.counts };
        // A flow that says nothing needs no memory: a scan is mostly packets without payload.
        let may_begin = segment.length > 0 || connection::opens(segment);
        let now = segment.stamp.time_ns;
        self.connections.visit(key, now, idle_ns, may_begin, |connection| {
            connection.segment(&key, segment, forth, &mut output);
        });
        self.connections.shrink(kept);
    }

    /// A quoted segment is read by itself, and is no part of its connection's stream.
    fn quoted(&mut self, segment: &Segment<'_>, facts: &mut Vec<Found>) {
        let (key, forth) = key_of(segment);
        let cut = Segment { length: segment.payload.len() as u32 + 1, ..*segment };
        let mut output = Output { limits: self.limits, facts, counts: &mut self.counts };
        Connection::begin(&key).segment(&key, &cut, forth, &mut output);
    }

    fn udp(&mut self, segment: &Segment<'_>, facts: &mut Vec<Found>) {
        let Some(kind) = datagrams::recognize(segment) else { return };
        let found = match kind.stateless(segment) {
            Some(found) => found,
            None => self.datagram(kind, segment),
        };
        facts.extend(found.into_iter().map(|fact| Found {
            fact,
            source: segment.source,
            destination: segment.destination,
            stamp: segment.stamp,
            opening: true,
        }));
    }

    fn datagram(&mut self, kind: datagrams::Kind, segment: &Segment<'_>) -> Vec<Fact> {
        let (key, _) = key_of(segment);
        let Limits { idle_ns, kept, .. } = self.limits;
        let counts = &mut self.counts;
        let found = self.datagrams.visit(key, segment.stamp.time_ns, idle_ns, true, |flow| {
            let found = flow.datagram(kind, segment);
            counts.quic += flow.take_unread();
            found
        });
        self.datagrams.shrink(kept);
        found.unwrap_or_default()
    }

    /// Keeps no more than so many bytes of TCP flows, and of UDP flows, from here on.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.limits.kept = bytes;
    }

    /// Flows that were unused for long give way, with half of what all keep.
    pub fn give_way(&mut self) {
        self.connections.shrink(self.connections.kept() / 2);
        self.datagrams.shrink(self.datagrams.kept() / 2);
    }

    /// The packets have ended: what waits behind a gap is read.
    pub fn finish(&mut self, facts: &mut Vec<Found>) {
        let mut output = Output { limits: self.limits, facts, counts: &mut self.counts };
        for (key, connection) in self.connections.iter_mut() {
            connection.finish(key, &mut output);
        }
    }
}
