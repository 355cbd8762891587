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
    recognise::{begins_request, gate_row, recognise},
    record::begin_record,
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
    /// What became of its session: flags of the record.
    session: u8,
    /// Whether user space is to read the packet itself.
    inspect: Look,
}

impl Notices {
    const NONE: Self = Self { session: 0, inspect: Look::NO };

    #[inline(always)]
    fn any(self) -> bool {
        self.session != 0 || self.shown()
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
    let Some((application, direction)) = find_application(tables, head, facts) else {
        return state.count(Counter::Unwatched, 1);
    };
    let watched = Watched { facts, packet_length: packet.size() as u32, direction, application };
    state.watch(flow_key(facts, direction), application.id);
    let request = begins_request(packet, facts, state);
    let mut seen = None;
    if has_bursts(facts, application)
        && let Some(burst) = state.burst(head.generation)
    {
        if is_plain(facts, request) {
            burst.count(direction, watched.packet_length);
            return state.count(Counter::Watched, 1);
        }
        if is_whole_request(packet, facts, application, request) {
            burst.count(direction, watched.packet_length);
            seen = Some(Seen {
                kind: PayloadKind::HttpRequest,
                start: burst.start_ns,
                ue_row: burst.ue_row(),
                notices: Notices::NONE,
            });
            state.count(Counter::Watched, 1);
        }
    }
    if seen.is_none() {
        seen = look_closely(packet, &watched, request, head, tables, state);
    }
    if let Some(seen) = seen {
        tell(packet, &watched, &seen, (head, ifindex), tables, state);
    }
}

/// What a packet is, and of which session, as far as there is anything to tell of it.
struct Seen {
    kind: PayloadKind,
    /// When the session began; 0 without one.
    start: u64,
    ue_row: u32,
    notices: Notices,
}

/// Counts a packet in its session, and finds out what it is; `None` if it says nothing.
#[inline(always)]
fn look_closely<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    watched: &Watched<'_>,
    request: bool,
    head: &Generation,
    tables: &T,
    state: &mut S,
) -> Option<Seen> {
    let Watched { facts, direction, application, .. } = *watched;
    let mut notices = Notices::NONE;
    let session = match find_session(tables, head, state) {
        Ok(session) => session,
        Err(reason) => {
            state.count(reason, 1);
            return None;
        }
    };
    let now = count_packet(watched, &session, state);
    let start = start_of(watched, &session, state, &mut notices);
    if application.inspect != 0 {
        let look = inspect::wanted(packet, facts, (direction, application), now, tables, state);
        let draft = state.draft()?;
        notices.inspect = look.forget(&mut draft.opaque);
    }
    let kind = recognise(watched, &session, request, state, &mut notices);
    if application.inspect & want::UDP_FIRST != 0 && matches!(kind, PayloadKind::UdpFirst) {
        notices.inspect = Look::PACKET;
    }
    if application.inspect & want::CUT_REQUESTS != 0
        && !notices.shown()
        && facts.payload_length != 0
        && matches!(facts.protocol, Protocol::Tcp)
    {
        let begins = matches!(kind, PayloadKind::HttpRequest);
        notices.inspect = inspect::cut_request(
            packet,
            facts,
            (direction, application),
            &session,
            begins,
            now,
            state,
        );
    }
    if !notices.any()
        && has_bursts(facts, application)
        && start != 0
        && session.cut_until.get() <= now
    {
        state.begin_burst(start, session.ue.get());
    }
    // Nearly all packets of a watched application say nothing.
    (notices.any() || !matches!(kind, PayloadKind::Other)).then(|| Seen {
        kind,
        start,
        ue_row: session.ue.get() as u32,
        notices,
    })
}

/// Puts the record together, and sends it if a rule matches or the agent waits for what it says.
#[inline(always)]
fn tell<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    watched: &Watched<'_>,
    seen: &Seen,
    (head, ifindex): (&Generation, u32),
    tables: &T,
    state: &mut S,
) {
    let Watched { facts, application, .. } = *watched;
    let Some(draft) = state.draft() else { return };
    begin_record(&mut draft.record, watched, seen);
    if seen.notices.shown() && application.inspect & want::IMPORTANT != 0 {
        draft.record.flags |= FLAG_IMPORTANT;
    }
    draft.rows = rows(watched, seen, draft.request_kind);
    let gated = application.inspect & want::HTTP_GATED != 0 && seen.notices.inspect.is_of_stream();
    draft.gate_row = if gated { gate_row(seen.kind, draft.request_kind) } else { row::ALL };
    draft.first_word = application.first_word;
    draft.last_word = application.last_word;
    report(packet, facts, (head, ifindex), tables, state);
}

/// Whether packets of the application, as far as they go in bursts, need no more than to be counted.
#[inline(always)]
fn has_bursts(facts: &Facts, application: &ApplicationEntry) -> bool {
    application.inspect & !want::CUT_REQUESTS == 0
        && (matches!(facts.protocol, Protocol::Tcp) || application.tracks_udp == 0)
}

/// Whether a packet that goes in a burst says nothing.
#[inline(always)]
fn is_plain(facts: &Facts, request: bool) -> bool {
    match facts.protocol {
        Protocol::Udp => true,
        Protocol::Tcp => {
            facts.tcp_flags & (SYN | FIN | RST) == 0
                && (facts.payload_length == 0
                    || facts.payload_length >= http::METHOD_AND_SPACE && !request)
        }
    }
}

/// Whether a packet that goes in a burst is a request of which the burst knows enough: one that changes
/// nothing of its session, and of whose line nothing is missing that rules look at.
#[inline(always)]
fn is_whole_request<P: PacketBytes + ?Sized>(
    packet: &P,
    facts: &Facts,
    application: &ApplicationEntry,
    request: bool,
) -> bool {
    request
        && facts.tcp_flags & (SYN | FIN | RST) == 0
        && (application.inspect & want::CUT_REQUESTS == 0
            || !inspect::begins_cut_request(packet, facts, application, true))
}

/// Which application a packet belongs to: by its destination (uplink), else its source.
#[inline(always)]
fn find_application<'t, T: Tables>(
    tables: &'t T,
    head: &Generation,
    facts: &Facts,
) -> Option<(&'t ApplicationEntry, Direction)> {
    let at = |address, port| lookup::application(tables, head, address, facts.protocol, port);
    if let Some(application) = at(facts.destination, facts.destination_port) {
        return Some((application, Direction::Uplink));
    }
    Some((at(facts.source, facts.source_port)?, Direction::Downlink))
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
