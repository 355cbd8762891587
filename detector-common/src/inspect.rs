//! Which packets user space must read itself, because rules ask for more than the packet path can
//! compare: names in a ClientHello, topics, a request over several segments.
//!
//! Of a TCP flow that is the first [`BUDGET`] bytes of each direction. After that only a segment
//! whose start looks like the message that a rule asks for is shown, and [`REOPENED`] bytes from
//! there on: an elephant flow costs one look-up a packet. Of UDP it is every datagram that looks
//! like the protocol.

use crate::{
    dns_name,
    event::{FLAG_BEHIND_GAP, FLAG_INSPECT, MAX_SEGMENT},
    http,
    packet::{Direction, PacketBytes, Protocol},
    parse::{Facts, USER_PACKET},
    rule::{ApplicationEntry, MAX_PATTERNS, Pattern, Tables},
    state::{SessionState, State},
    verifier::forget,
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
    /// With [`HTTP`]: requests that no rule's method and path allow stay out, see
    /// [`crate::request_gate`].
    pub const HTTP_GATED: u32 = 1 << 17;
    /// With any other: a rule that user space decides is important, see [`FLAG_IMPORTANT`].
    ///
    /// [`FLAG_IMPORTANT`]: crate::event::FLAG_IMPORTANT
    pub const IMPORTANT: u32 = 1 << 15;

    /// All that need to see TCP.
    pub(super) const OF_TCP: u32 = STREAMS | FLOW_ENDS | TCP_FLAGS | PAYLOAD;
    /// All that need the payloads of UDP.
    pub(super) const OF_UDP: u32 = DNS | QUIC | COAP | PAYLOAD;
}

/// What was shown of a flow in one direction, in the one word of [`FlowState::shown`]: how many payload
/// bytes in the lower half, and once some were not shown, [`Self::GAP`] and where those end.
///
/// [`FlowState::shown`]: crate::state::FlowState::shown
#[derive(Clone, Copy)]
struct Shown(u64);

impl Shown {
    const GAP: u64 = 1 << 31;

    /// Payload bytes.
    #[inline(always)]
    const fn bytes(self) -> u64 {
        self.0 & (Self::GAP - 1)
    }

    /// So many bytes, the last of them those of this segment, which is shown.
    #[inline(always)]
    const fn show(self, bytes: u64, facts: &Facts) -> (Self, Look) {
        let shown = Self(bytes & (Self::GAP - 1));
        if self.0 & Self::GAP == 0 {
            return (shown, Look::STREAM);
        }
        let late = facts.sequence.wrapping_sub((self.0 >> 32) as u32) as i32;
        if late < 0 {
            // It is late itself, and stands before the gap.
            return (Self(shown.0 | self.0 & !(Self::GAP - 1)), Look::STREAM);
        }
        // More than any reordering holds back.
        let late = if late > u16::MAX as i32 { 0 } else { late as u16 };
        (shown, Look::behind_gap(late))
    }

    /// This segment is not shown.
    #[inline(always)]
    const fn hide(self, bytes: u64, facts: &Facts) -> Self {
        let end = facts.sequence.wrapping_add(facts.payload_length);
        let before = (self.0 >> 32) as u32;
        let is_late = self.0 & Self::GAP != 0 && (end.wrapping_sub(before) as i32) < 0;
        let end = if is_late { before } else { end };
        Self((end as u64) << 32 | Self::GAP | bytes)
    }
}

/// Whether user space is to read a packet: the record's flags that say so, [`Self::OF_STREAM`], and in the
/// upper half [`RecordHeader::late`]. A word, so that the verifier can be made to forget it.
///
/// [`RecordHeader::late`]: crate::event::RecordHeader::late
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Look(u32);

impl Look {
    /// It is not.
    pub(crate) const NO: Self = Self(0);
    /// It is, whatever else its flow says.
    pub(crate) const PACKET: Self = Self(FLAG_INSPECT as u32);
    /// As the next part of its stream.
    const STREAM: Self = Self(Self::PACKET.0 | Self::OF_STREAM);
    const OF_STREAM: u32 = 1 << 8;

    /// As a part of its stream of which something was not shown before; all but these many bytes right
    /// before it, which are only late.
    #[inline(always)]
    const fn behind_gap(late: u16) -> Self {
        Self(Self::STREAM.0 | FLAG_BEHIND_GAP as u32 | (late as u32) << 16)
    }

    #[inline(always)]
    const fn packet(wanted: bool) -> Self {
        if wanted { Self::PACKET } else { Self::NO }
    }

    /// The same, of which the verifier does not know how it came about.
    #[inline(always)]
    pub(crate) fn forget(self, opaque: &mut u32) -> Self {
        Self(forget(self.0, opaque))
    }

    /// Whether it is to be read.
    #[inline(always)]
    pub(crate) const fn is_wanted(self) -> bool {
        self.0 != 0
    }

    /// Whether only as a part of its stream.
    #[inline(always)]
    pub(crate) const fn is_of_stream(self) -> bool {
        self.0 & Self::OF_STREAM != 0
    }

    /// What the record says of it: flags, and [`RecordHeader::late`].
    ///
    /// [`RecordHeader::late`]: crate::event::RecordHeader::late
    #[inline(always)]
    pub(crate) const fn told(self) -> (u8, u16) {
        (self.0 as u8, (self.0 >> 16) as u16)
    }
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
) -> Look {
    let inspect = application.inspect;
    let begins = inspect & want::FLOW_ENDS != 0
        && count_flow(packet, facts, direction, now, state).unwrap_or(false);
    if begins {
        return Look::PACKET;
    }
    match facts.protocol {
        Protocol::Udp => Look::packet(
            (inspect & want::GTPU_CONTROL != 0 && is_gtpu_control(facts))
                || (inspect & want::OF_UDP != 0
                    && inspect & way(direction) != 0
                    && facts.payload_length != 0
                    && datagram(packet, facts, application, tables, state)),
        ),
        Protocol::Tcp if inspect & want::OF_TCP != 0 => {
            segment(packet, facts, direction, application, state)
        }
        Protocol::Tcp => Look::NO,
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
) -> Look {
    let inspect = application.inspect;
    let known = state.flow_state();
    let Some(flow) = known.or_else(|| state.create_flow(0)) else { return Look::NO };
    let at = direction as usize;
    if facts.tcp_flags & (SYN | ACK) == SYN {
        flow.shown[0].set(0);
        flow.shown[1].set(0);
    }
    if inspect & way(direction) == 0 {
        return Look::NO;
    }
    let flags = inspect & want::TCP_FLAGS != 0;
    let cell = &flow.shown[at];
    let shown = Shown(cell.get());
    if facts.payload_length == 0 {
        if facts.tcp_flags & FIN != 0 {
            // What waits behind a gap is read now or never.
            let (shown, look) = shown.show(shown.bytes(), facts);
            cell.set(shown.0);
            return look;
        }
        return Look::packet(flags || facts.tcp_flags & (SYN | RST) != 0);
    }
    if inspect & want::PAYLOAD != 0 && fits_pattern(packet, facts, application) {
        return Look::PACKET;
    }
    if inspect & want::STREAMS == 0 {
        return Look::packet(flags);
    }
    let before = match shown.bytes() {
        bytes if bytes < BUDGET => bytes,
        _ if begins_message(packet, facts, inspect) => BUDGET - REOPENED,
        _ if flags => return Look::PACKET,
        bytes => {
            cell.set(shown.hide(bytes, facts).0);
            return Look::NO;
        }
    };
    let (shown, look) = shown.show(before + u64::from(facts.payload_length), facts);
    cell.set(shown.0);
    look
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
        if index >= usize::from(application.pattern_count) {
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
) -> Look {
    let at = direction as usize;
    let length = u64::from(facts.payload_length);
    if begins_cut_request(packet, facts, application, begins_request) {
        let known = state.flow_state();
        let Some(flow) = known.or_else(|| state.create_flow(BUDGET)) else { return Look::NO };
        flow.shown[at].set(BUDGET - REOPENED + length);
        // None begins meanwhile; half of it, because the clocks of CPUs differ by a tick.
        if session.cut_until.get() < now + CUT_REQUEST_NS / 2 {
            state.end_bursts();
        }
        session.cut_until.set(now + CUT_REQUEST_NS);
        // Whole requests before it were not shown.
        return Look::behind_gap(0);
    }
    // What nearly all packets are asked, and no more.
    if session.cut_until.get() <= now {
        return Look::NO;
    }
    let Some(flow) = state.flow_state() else { return Look::NO };
    let shown = Shown(flow.shown[at].get());
    if shown.bytes() >= BUDGET {
        return Look::NO;
    }
    let (shown, look) = shown.show(shown.bytes() + length, facts);
    flow.shown[at].set(shown.0);
    look
}

/// Takes a segment back that was to be shown as part of its stream.
#[inline(always)]
pub(crate) fn hide<S: State>(facts: &Facts, direction: u8, state: &mut S) {
    let Some(flow) = state.flow_state() else { return };
    let cell = &flow.shown[usize::from(direction & 1)];
    let shown = Shown(cell.get());
    let bytes = shown.bytes().saturating_sub(u64::from(facts.payload_length));
    cell.set(shown.hide(bytes, facts).0);
}

/// A request whose segment does not end as a line does, or less than a method and its space.
#[inline(always)]
pub(crate) fn begins_cut_request<P: PacketBytes + ?Sized>(
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
