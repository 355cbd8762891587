//! The classifier: packet facts x rule tables x memory -> records. One function for the kernel's
//! hooks, for replay and for the tests that compare the two.

mod matching;
mod recognise;
mod record;
mod report;
mod session;

use core::mem::MaybeUninit;

pub use self::record::capture_length;
use self::{
    matching::rows,
    recognise::recognise,
    record::{fill_record, vlans},
    report::report,
    session::{count_packet, find_session, start_of},
};
use crate::{
    counter::Counter,
    event::{FLAG_IMPORTANT, PayloadKind},
    http,
    inspect::{self, Look, want},
    lookup,
    packet::{Direction, Layer, PacketBytes, Protocol},
    parse::{Facts, parse},
    rule::{ApplicationEntry, Generation, Tables, row},
    state::{FlowKey, State},
    verifier::forget_all,
    wire::tcp_flag::{FIN, RST, SYN},
};

/// Parses and judges one packet, and counts it. `ifindex` is the device it was seen on; `place` is
/// memory for what the packet says, see [`forget_all`].
#[inline(always)]
pub fn inspect<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    layer: Layer,
    ifindex: u32,
    tables: &T,
    state: &mut S,
    place: &mut MaybeUninit<Facts>,
) {
    state.count(Counter::Packets, 1);
    state.count(Counter::Bytes, packet.size() as u64);
    match parse(packet, layer) {
        Ok(facts) => judge(packet, forget_all(facts, place), ifindex, tables, state),
        Err(fault) => state.count(fault.counter(), 1),
    }
}

/// A packet of a watched application, seen from the application.
struct Watched<'a> {
    facts: &'a Facts,
    packet_length: u32,
    direction: Direction,
    application: &'a ApplicationEntry,
}

/// What the agent is told beside the rules that matched.
#[derive(Clone, Copy)]
struct Notices {
    started: bool,
    quiet: bool,
    /// User space is to read the packet itself.
    inspect: Look,
}

impl Notices {
    const NONE: Self = Self { started: false, quiet: false, inspect: Look::NO };

    #[inline(always)]
    fn any(self) -> bool {
        self.started || self.quiet || self.shown()
    }

    #[inline(always)]
    fn shown(self) -> bool {
        self.inspect.is_wanted()
    }
}

#[inline(always)]
fn judge<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    facts: &Facts,
    ifindex: u32,
    tables: &T,
    state: &mut S,
) {
    let Some(head) = tables.generation() else { return };
    if head.generation == 0 {
        return state.count(Counter::NoRules, 1);
    }
    let Some((index, direction)) = find_application(tables, head, facts) else {
        return state.count(Counter::Unwatched, 1);
    };
    let Some(application) = tables.application(index) else { return };
    let watched = Watched { facts, packet_length: packet.size() as u32, direction, application };
    state.watch(flow_key(facts, direction), application.id);
    if has_bursts(facts, application)
        && let Some(burst) = state.burst(head.generation)
        && is_plain(packet, facts)
    {
        burst.count(direction, watched.packet_length);
        return state.count(Counter::Watched, 1);
    }
    let mut notices = Notices::NONE;
    let session = match find_session(tables, head, state) {
        Ok(session) => session,
        Err(reason) => return state.count(reason, 1),
    };
    let seen = count_packet(&watched, &session, state);
    let start = start_of(&watched, &session, state, &mut notices);
    if application.inspect != 0 {
        let look = inspect::wanted(packet, facts, (direction, application), seen, tables, state);
        let Some(draft) = state.draft() else { return };
        notices.inspect = look.forget(&mut draft.opaque);
    }
    let found = recognise(packet, &watched, &session, tables, head, state, &mut notices);
    if application.inspect & want::UDP_FIRST != 0 && matches!(found.kind, PayloadKind::UdpFirst) {
        notices.inspect = Look::PACKET;
    }
    if application.inspect & want::CUT_REQUESTS != 0
        && !notices.shown()
        && facts.payload_length != 0
        && matches!(facts.protocol, Protocol::Tcp)
    {
        let begins = matches!(found.kind, PayloadKind::HttpRequest);
        notices.inspect = inspect::cut_request(
            packet,
            facts,
            (direction, application),
            &session,
            begins,
            seen,
            state,
        );
    }
    if !notices.any() && matches!(found.kind, PayloadKind::Other) {
        // Nearly all packets of a watched application.
        if has_bursts(facts, application) && start != 0 && session.cut_until.get() <= seen {
            state.begin_burst(start, head.generation);
        }
        return;
    }
    let now = if notices.started { start } else { state.now() };
    let Some(draft) = state.draft() else { return };
    fill_record(&mut draft.record, &watched, &found, notices, start, now);
    if notices.shown() && application.inspect & want::IMPORTANT != 0 {
        draft.record.flags |= FLAG_IMPORTANT;
    }
    draft.record.vlan = vlans(packet, facts);
    draft.record.ifindex = ifindex;
    draft.record.generation = head.generation;
    draft.rows = rows(&watched, &found, &session, start);
    let gated = application.inspect & want::HTTP_GATED != 0 && notices.inspect.is_of_stream();
    draft.gate_row = if gated { found.gate_row() } else { row::ALL };
    draft.first_word = application.first_word;
    draft.last_word = application.last_word;
    report(packet, facts, &session, tables, state);
}

/// Whether packets of the application, as far as they go in bursts, need no more than to be counted.
#[inline(always)]
fn has_bursts(facts: &Facts, application: &ApplicationEntry) -> bool {
    application.inspect & !want::CUT_REQUESTS == 0
        && (matches!(facts.protocol, Protocol::Tcp) || application.tracks_udp == 0)
}

/// Whether a packet that goes in a burst says nothing.
#[inline(always)]
fn is_plain<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> bool {
    match facts.protocol {
        Protocol::Udp => true,
        Protocol::Tcp => {
            facts.tcp_flags & (SYN | FIN | RST) == 0
                && (facts.payload_length == 0
                    || facts.payload_length >= http::METHOD_AND_SPACE
                        && http::request_line(packet, facts.payload_offset as usize).is_none())
        }
    }
}

/// Which application a packet belongs to: by its destination (uplink), else its source.
#[inline(always)]
fn find_application<T: Tables>(
    tables: &T,
    head: &Generation,
    facts: &Facts,
) -> Option<(u32, Direction)> {
    let Facts { source, destination, source_port, destination_port, protocol, .. } = *facts;
    if let Some(index) = lookup::application(tables, head, destination, protocol, destination_port)
    {
        return Some((index, Direction::Uplink));
    }
    let index = lookup::application(tables, head, source, protocol, source_port)?;
    Some((index, Direction::Downlink))
}

#[inline(always)]
fn flow_key(facts: &Facts, direction: Direction) -> FlowKey {
    let protocol = facts.protocol as u32;
    match direction {
        Direction::Uplink => FlowKey {
            ue: facts.source,
            application_address: facts.destination,
            ue_port: facts.source_port,
            application_port: facts.destination_port,
            protocol,
        },
        Direction::Downlink => FlowKey {
            ue: facts.destination,
            application_address: facts.source,
            ue_port: facts.destination_port,
            application_port: facts.source_port,
            protocol,
        },
    }
}
