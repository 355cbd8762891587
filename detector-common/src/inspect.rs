//! Which packets user space must read itself, because rules ask for more than the packet path can
//! compare: names in a ClientHello, topics, a request over several segments.
//!
//! Of a TCP flow that is the first [`BUDGET`] bytes of each direction. After that only a segment
//! whose start looks like the message that a rule asks for is shown, and [`REOPENED`] bytes from
//! there on: an elephant flow costs one look-up a packet. Of UDP it is every datagram that looks
//! like the protocol.

use crate::{
    dns_name,
    event::MAX_SEGMENT,
    http,
    packet::{Direction, PacketBytes, Protocol},
    parse::{Facts, USER_PACKET},
    rule::{ApplicationEntry, MAX_PATTERNS, Pattern, Tables},
    state::{SessionState, State},
    wire::tcp_flag::{ACK, FIN, RST, SYN},
};

/// Payload bytes that are shown of a TCP flow, in each direction.
pub const BUDGET: u64 = 16 << 10;
/// Payload bytes that are shown from a message on that begins after those.
pub const REOPENED: u64 = 4 << 10;
/// How long the rest of a request line that was cut is waited for, ns.
pub const CUT_REQUEST_NS: u64 = 10_000_000_000;

/// What the rules of an application need, as bits of [`ApplicationEntry::inspect`].
pub mod want {
    /// What users send.
    pub const UPLINK: u32 = 1;
    /// What the application sends.
    pub const DOWNLINK: u32 = 1 << 1;
    /// The first bytes of TCP flows.
    pub const STREAMS: u32 = 1 << 2;
    /// How flows begin and end, in both directions (SYN, FIN, RST, a flow's first packet), and what
    /// they amount to.
    pub const FLOW_ENDS: u32 = 1 << 3;
    /// TCP packets without payload too, for their flags.
    pub const TCP_FLAGS: u32 = 1 << 4;
    /// HTTP messages.
    pub const HTTP: u32 = 1 << 5;
    /// TLS ClientHellos.
    pub const TLS: u32 = 1 << 6;
    /// MQTT packets.
    pub const MQTT: u32 = 1 << 7;
    /// DNS messages.
    pub const DNS: u32 = 1 << 8;
    /// QUIC packets with a long header.
    pub const QUIC: u32 = 1 << 9;
    /// CoAP messages.
    pub const COAP: u32 = 1 << 10;
    /// Payloads that one of the application's patterns fits; all of them if it has none.
    pub const PAYLOAD: u32 = 1 << 11;
    /// The rest of a request line that does not end in the segment in which it began.
    pub const CUT_REQUESTS: u32 = 1 << 12;

    /// The first packet of UDP flows.
    pub const UDP_FIRST: u32 = 1 << 13;
    /// GTP-U messages that carry no user's packet.
    pub const GTPU_CONTROL: u32 = 1 << 14;
    /// With [`DNS`]: only those whose question is for one of the application's names, over UDP.
    pub const DNS_NAMES: u32 = 1 << 16;
    /// With any other: a rule that user space decides is important, see [`FLAG_IMPORTANT`].
    ///
    /// [`FLAG_IMPORTANT`]: crate::event::FLAG_IMPORTANT
    pub const IMPORTANT: u32 = 1 << 15;

    /// All that need to see TCP.
    pub(super) const OF_TCP: u32 = STREAMS | FLOW_ENDS | TCP_FLAGS | PAYLOAD;
    /// All that need the payloads of UDP.
    pub(super) const OF_UDP: u32 = DNS | QUIC | COAP | PAYLOAD;
}

/// Whether user space is to read this packet.
#[inline(always)]
pub(crate) fn wanted<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    facts: &Facts,
    (direction, application): (Direction, &ApplicationEntry),
    now: u64,
    tables: &T,
    state: &mut S,
) -> bool {
    let inspect = application.inspect;
    let begins = inspect & want::FLOW_ENDS != 0
        && count_flow(packet, facts, direction, now, state).unwrap_or(false);
    match facts.protocol {
        Protocol::Udp => {
            begins
                || (inspect & want::GTPU_CONTROL != 0 && is_gtpu_control(facts))
                || (inspect & want::OF_UDP != 0
                    && inspect & way(direction) != 0
                    && facts.payload_length != 0
                    && datagram(packet, facts, application, tables, state))
        }
        Protocol::Tcp => {
            begins
                || (inspect & want::OF_TCP != 0
                    && segment(packet, facts, direction, application, state))
        }
    }
}

/// A message between the tunnel's ends (TS 29.281 table 6.1-1): echo, error indication, end marker.
#[inline(always)]
fn is_gtpu_control(facts: &Facts) -> bool {
    facts.tunnel.is_some() && facts.tunnel.message_type() != USER_PACKET
}

/// Adds the packet to its flow's sums. Whether it begins or ends the flow; `None` without room.
#[inline(always)]
fn count_flow<P: PacketBytes + ?Sized, S: State>(
    packet: &P,
    facts: &Facts,
    direction: Direction,
    now: u64,
    state: &mut S,
) -> Option<bool> {
    let known = state.flow_state();
    let is_new = known.is_none();
    let flow = known.or_else(|| state.create_flow(0))?;
    if facts.tcp_flags & (SYN | ACK) == SYN {
        for cell in [&flow.packets, &flow.bytes] {
            cell[0].set(0);
            cell[1].set(0);
        }
        flow.start_ns.set(now);
    }
    let at = direction as usize;
    state.add(&flow.packets[at], 1);
    state.add(&flow.bytes[at], packet.size() as u64);
    flow.last_ns.set(now);
    Some(is_new || facts.tcp_flags & (SYN | FIN | RST) != 0)
}

#[inline(always)]
const fn way(direction: Direction) -> u32 {
    match direction {
        Direction::Uplink => want::UPLINK,
        Direction::Downlink => want::DOWNLINK,
    }
}

/// The payload's first eight bytes; `None` when it is shorter.
#[inline(always)]
fn start<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> Option<[u8; 8]> {
    if facts.payload_length < 8 {
        return None;
    }
    packet.load(facts.payload_offset as usize)
}

#[inline(always)]
fn datagram<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    facts: &Facts,
    application: &ApplicationEntry,
    tables: &T,
    state: &mut S,
) -> bool {
    let inspect = application.inspect;
    // CoAP's shortest messages have four bytes; user space reads what is too short to tell.
    let Some(start) = start(packet, facts) else { return inspect & want::COAP != 0 };
    (inspect & want::DNS != 0
        && facts.payload_length >= 12
        && is_dns(start)
        && (inspect & want::DNS_NAMES == 0
            || dns_name::may_match(
                packet,
                (facts.payload_offset as usize, facts.payload_length),
                start[5],
                application.id,
                tables,
                state,
            )))
        || (inspect & want::QUIC != 0 && start[0] & 0xc0 == 0xc0)
        || (inspect & want::COAP != 0 && is_coap(start))
        || (inspect & want::PAYLOAD != 0 && fits_pattern(packet, facts, application))
}

/// A standard query, an update or a notification with few questions (RFC 1035 section 4.1.1).
#[inline(always)]
const fn is_dns(start: [u8; 8]) -> bool {
    let opcode = (start[2] >> 3) & 0x0f;
    matches!(opcode, 0 | 4 | 5) && start[4] == 0 && start[5] <= 16
}

/// Version 1, a token that is possible, a class of codes that exists (RFC 7252 section 3).
#[inline(always)]
const fn is_coap(start: [u8; 8]) -> bool {
    start[0] >> 6 == 1 && start[0] & 0x0f <= 8 && matches!(start[1] >> 5, 0 | 2 | 4 | 5)
}

#[inline(always)]
fn segment<P: PacketBytes + ?Sized, S: State>(
    packet: &P,
    facts: &Facts,
    direction: Direction,
    application: &ApplicationEntry,
    state: &mut S,
) -> bool {
    let inspect = application.inspect;
    let known = state.flow_state();
    let Some(flow) = known.or_else(|| state.create_flow(0)) else { return false };
    let at = direction as usize;
    if facts.tcp_flags & (SYN | ACK) == SYN {
        flow.shown[0].set(0);
        flow.shown[1].set(0);
    }
    if inspect & way(direction) == 0 {
        return false;
    }
    if facts.payload_length == 0 {
        return facts.tcp_flags & (SYN | FIN | RST) != 0 || inspect & want::TCP_FLAGS != 0;
    }
    if inspect & want::PAYLOAD != 0 && fits_pattern(packet, facts, application) {
        return true;
    }
    if inspect & want::STREAMS == 0 {
        return inspect & want::TCP_FLAGS != 0;
    }
    let shown = flow.shown[at].get();
    let length = u64::from(facts.payload_length);
    if shown < BUDGET {
        flow.shown[at].set(shown + length);
        return true;
    }
    if !begins_message(packet, facts, inspect) {
        return false;
    }
    flow.shown[at].set(BUDGET - REOPENED + length);
    true
}

/// Whether a segment begins with what looks like a message that rules ask for.
#[inline(always)]
fn begins_message<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts, inspect: u32) -> bool {
    let Some(start) = start(packet, facts) else { return false };
    let length = facts.payload_length;
    (inspect & want::HTTP != 0 && (http::begins_request(start) || start[..5] == *b"HTTP/"))
        // A handshake record with a ClientHello (RFC 8446 sections 4 and 5.1).
        || (inspect & want::TLS != 0 && start[0] == 22 && start[1] == 3 && start[5] == 1)
        || (inspect & want::MQTT != 0 && is_whole_mqtt(start, length))
        || (inspect & want::DNS != 0
            && u32::from(u16::from_be_bytes([start[0], start[1]])) + 2 == length)
}

/// A control packet that ends with the segment, or one too long for its length to say so (OASIS
/// MQTT 5.0 section 2.1).
#[inline(always)]
const fn is_whole_mqtt(start: [u8; 8], length: u32) -> bool {
    const MORE: u8 = 0x80;
    let kind = start[0] >> 4;
    if kind == 0 {
        return false;
    }
    if start[1] & MORE == 0 {
        return start[1] as u32 + 2 <= length;
    }
    if start[2] & MORE == 0 {
        return (start[1] & 0x7f) as u32 + ((start[2] as u32) << 7) + 3 <= length + 1460;
    }
    // Longer than any segment: a PUBLISH of a picture.
    kind == 3 && start[3] & MORE == 0
}

/// Whether one of the application's patterns fits; without any, every payload does.
#[inline(always)]
fn fits_pattern<P: PacketBytes + ?Sized>(
    packet: &P,
    facts: &Facts,
    application: &ApplicationEntry,
) -> bool {
    if application.pattern_count == 0 {
        return true;
    }
    for index in 0..MAX_PATTERNS {
        if index as u32 >= application.pattern_count {
            break;
        }
        let Pattern { mask, value, offset, .. } = application.patterns[index];
        // Where less than eight bytes are left, user space compares.
        let at = facts.payload_offset as usize + offset as usize;
        match packet.load_payload::<u64>(at) {
            Some(word) if word & mask != value => {}
            Some(_) => return true,
            None if offset < facts.payload_length => return true,
            None => {}
        }
    }
    false
}

/// Whether this packet is part of a request line that was cut, of an application whose requests are
/// otherwise told by their first segment. `method` has its first bytes if it begins with one.
#[inline(always)]
pub(crate) fn cut_request<P: PacketBytes + ?Sized, S: State>(
    packet: &P,
    facts: &Facts,
    (direction, application): (Direction, &ApplicationEntry),
    session: &SessionState,
    begins_request: bool,
    now: u64,
    state: &mut S,
) -> bool {
    let at = direction as usize;
    let length = u64::from(facts.payload_length);
    if begins_cut_request(packet, facts, application, begins_request) {
        let known = state.flow_state();
        let Some(flow) = known.or_else(|| state.create_flow(BUDGET)) else { return false };
        flow.shown[at].set(BUDGET - REOPENED + length);
        session.cut_until.set(now + CUT_REQUEST_NS);
        state.end_bursts();
        return true;
    }
    // What nearly all packets are asked, and no more.
    if session.cut_until.get() <= now {
        return false;
    }
    let Some(flow) = state.flow_state() else { return false };
    let shown = flow.shown[at].get();
    if shown >= BUDGET {
        return false;
    }
    flow.shown[at].set(shown + length);
    true
}

/// A request whose segment does not end as a line does, or less than a method and its space.
#[inline(always)]
fn begins_cut_request<P: PacketBytes + ?Sized>(
    packet: &P,
    facts: &Facts,
    application: &ApplicationEntry,
    begins_request: bool,
) -> bool {
    let payload = facts.payload_offset as usize;
    if begins_request {
        // Longer than rules look: what comes in later segments changes nothing.
        if facts.payload_length >= application.request_capture {
            return false;
        }
        let last = (payload + facts.payload_length as usize).wrapping_sub(2);
        // A super-packet holds more than a line; the kernel does not look that far.
        if last > MAX_SEGMENT {
            return false;
        }
        let last: Option<[u8; 2]> = packet.load_payload(last);
        return last.is_some_and(|last| last != *b"\r\n");
    }
    if facts.payload_length >= http::METHOD_AND_SPACE {
        return false;
    }
    // The frame is padded to at least 60 bytes or the packet is TC's: one byte is there.
    let first: Option<[u8; 1]> = packet.load_payload(payload);
    first.is_some_and(|[first]| http::begins_method(first))
}
