//! The classifier: packet facts x rule tables x memory -> records. One function for the kernel's
//! hooks, for replay and for the tests that compare the two.

use core::{hint::black_box, mem::MaybeUninit};

use crate::{
    counter::{Counter, RuleCounter},
    event::{
        FLAG_INSPECT, FLAG_QFI, FLAG_SESSION_QUIET, FLAG_SESSION_STARTED, FLAG_TUNNEL, MAX_MATCHES,
        MAX_SEGMENT, MAX_VLANS, PayloadKind, RECORD_VERSION, RecordHeader,
    },
    http,
    inspect::{self, want},
    lookup,
    packet::{Direction, Layer, PacketBytes, Protocol},
    parse::{Facts, parse},
    rule::{ApplicationEntry, Generation, IN_UE_POOL, ROW_WORDS, Row, Tables, row},
    state::{Draft, FlowKey, SessionState, State, UDP_FLOW_IDLE_NS},
    verifier::{forget, forget_all},
    wire::VLAN_ID,
    wire::tcp_flag::{ACK, FIN, RST, SYN},
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
    inspect: bool,
}

impl Notices {
    const NONE: Self = Self { started: false, quiet: false, inspect: false };

    #[inline(always)]
    fn any(self) -> bool {
        self.started || self.quiet || self.inspect
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
    let mut notices = Notices::NONE;
    let session = match find_session(tables, head, state) {
        Ok(session) => session,
        Err(reason) => return state.count(reason, 1),
    };
    let seen = count_packet(&watched, &session, state);
    let start = start_of(&watched, &session, state, &mut notices);
    if application.inspect != 0 {
        notices.inspect = inspect::wanted(packet, facts, direction, application, seen, state);
    }
    let found = recognise(packet, &watched, &session, tables, head, state, &mut notices);
    if application.inspect & want::UDP_FIRST != 0 && matches!(found.kind, PayloadKind::UdpFirst) {
        notices.inspect = true;
    }
    if application.inspect & want::CUT_REQUESTS != 0
        && !notices.inspect
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
        return; // nearly all packets of a watched application
    }
    let now = if notices.started { start } else { state.now() };
    let Some(draft) = state.draft() else { return };
    fill_record(&mut draft.record, &watched, &found, notices, start, now);
    draft.record.vlan = vlans(packet, facts);
    draft.record.ifindex = ifindex;
    draft.record.generation = head.generation;
    draft.rows = rows(&watched, &found, &session, start);
    draft.first_word = application.first_word;
    draft.last_word = application.last_word;
    report(facts, &session, tables, state);
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

/// When the session began: now, if this is the UE's first packet; 0 while the UE has not spoken.
#[inline(always)]
fn start_of<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    state: &S,
    notices: &mut Notices,
) -> u64 {
    let start = session.start_ns.get();
    if start != 0 || matches!(watched.direction, Direction::Downlink) {
        return start;
    }
    let now = state.now();
    session.start_ns.set(now);
    state.count(Counter::SessionsStarted, 1);
    notices.started = true;
    now
}

#[inline(always)]
fn count_packet<S: State>(watched: &Watched<'_>, session: &SessionState, state: &S) -> u64 {
    state.count(Counter::Watched, 1);
    let at = watched.direction as usize;
    state.add(&session.packets[at], 1);
    state.add(&session.bytes[at], u64::from(watched.packet_length));
    let now = state.now_coarse();
    session.last_ns.set(now);
    now
}

/// The session, made if need be. The UE is looked up once per session and generation of rules.
#[inline(always)]
fn find_session<T: Tables, S: State>(
    tables: &T,
    head: &Generation,
    state: &mut S,
) -> Result<S::Session, Counter> {
    let known = state.session();
    if let Some(session) = known.as_ref()
        && session.judged_under(head.generation).is_some()
    {
        return known.ok_or(Counter::SessionTableFull);
    }
    let ue = lookup::ue(tables, head, state.flow().ue);
    if head.has_ue_pools != 0 && ue & IN_UE_POOL == 0 {
        return Err(Counter::NotUe);
    }
    let word = SessionState::ue_word(head.generation, ue & !IN_UE_POOL);
    match known {
        Some(session) => {
            session.ue.set(word);
            Ok(session)
        }
        None => state.create_session(word).ok_or(Counter::SessionTableFull),
    }
}

/// What a payload was recognised as, and the rows of the rules that ask for it.
struct Found {
    kind: PayloadKind,
    /// The kind as [`row::seen`] counts them.
    row_kind: u32,
    path_row: u32,
}

impl Found {
    const NOTHING: Self = Self { kind: PayloadKind::Other, row_kind: 0, path_row: row::ALL };
    const TCP_OPENED: Self =
        Self { kind: PayloadKind::TcpOpened, row_kind: row::TCP_OPENED, path_row: row::ALL };
    const UDP_FIRST: Self =
        Self { kind: PayloadKind::UdpFirst, row_kind: row::UDP_FIRST, path_row: row::ALL };
}

/// Looks at the payload's start for what rules can ask for.
#[inline(always)]
fn recognise<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    watched: &Watched<'_>,
    session: &SessionState,
    tables: &T,
    head: &Generation,
    state: &mut S,
    notices: &mut Notices,
) -> Found {
    let facts = watched.facts;
    match facts.protocol {
        Protocol::Udp => recognise_udp(watched, state),
        Protocol::Tcp => {
            if facts.tcp_flags & (SYN | FIN | RST) != 0
                && let Some(opened) = follow_connection(watched, session, state, notices)
            {
                return opened;
            }
            if facts.payload_length == 0 {
                return Found::NOTHING;
            }
            let Some(mut line) = http::request_line(packet, facts.payload_offset as usize) else {
                return Found::NOTHING;
            };
            let Some(draft) = state.draft() else { return Found::NOTHING };
            line.target_offset = forget(line.target_offset, &mut draft.opaque);
            Found {
                kind: PayloadKind::HttpRequest,
                row_kind: row::http(line.method),
                path_row: lookup::path(tables, head, packet, line.target_offset as usize),
            }
        }
    }
}

#[inline(always)]
fn recognise_udp<S: State>(watched: &Watched<'_>, state: &mut S) -> Found {
    if watched.application.tracks_udp == 0 {
        return Found::NOTHING;
    }
    let now = state.now_coarse();
    match state.mark_flow(now) {
        Some(last) if now.wrapping_sub(last) < UDP_FLOW_IDLE_NS => Found::NOTHING,
        Some(_) | None => Found::UDP_FIRST,
    }
}

/// Keeps count of a session's TCP connections. For a SYN, what it is: one that is sent again is
/// known by its sequence number.
#[inline(always)]
fn follow_connection<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    state: &mut S,
    notices: &mut Notices,
) -> Option<Found> {
    let facts = watched.facts;
    if facts.tcp_flags & SYN != 0 {
        if facts.tcp_flags & ACK != 0 {
            return Some(Found::NOTHING);
        }
        let before = state.mark_flow(u64::from(facts.sequence));
        if before == Some(u64::from(facts.sequence)) {
            state.count(Counter::Retransmissions, 1);
            return Some(Found::NOTHING);
        }
        if before.is_none() {
            state.add(&session.open_connections, 1);
        }
        return Some(Found::TCP_OPENED);
    }
    if state.unmark_flow() {
        state.add(&session.open_connections, u64::MAX); // minus one
        notices.quiet = session.open_connections.get() == 0 && session.start_ns.get() != 0;
    }
    None
}

/// Finds the rules that match and sends the record if it says anything. All it knows of the packet
/// it reads from the draft, see [`crate::verifier`].
#[inline(always)]
fn report<T: Tables, S: State>(facts: &Facts, session: &SessionState, tables: &T, state: &mut S) {
    let Some(draft) = state.draft() else { return };
    let draft = black_box(draft);
    let inspect = draft.record.flags & FLAG_INSPECT != 0;
    let notices = draft.record.flags & (FLAG_SESSION_STARTED | FLAG_SESSION_QUIET) != 0;
    let mut capture = 0;
    if draft.record.payload_kind != PayloadKind::Other as u8 {
        let over = collect_rules(draft, tables);
        let any = draft.record.rule_count != 0;
        state.count(Counter::MatchesOverLimit, u64::from(over));
        if any {
            capture = admit(facts, session, tables, state);
        }
    }
    let Some(Draft { record, .. }) = state.draft() else { return };
    if record.rule_count == 0 && !notices && !inspect {
        return;
    }
    if inspect {
        capture = MAX_SEGMENT;
    }
    let sent = state.send(facts, capture);
    if inspect {
        state.count(if sent { Counter::Inspected } else { Counter::InspectRingFull }, 1);
    }
    if !sent {
        count_lost(notices, state);
    }
}

#[inline(always)]
fn fill_record(
    record: &mut RecordHeader,
    watched: &Watched<'_>,
    found: &Found,
    notices: Notices,
    start: u64,
    now: u64,
) {
    let facts = watched.facts;
    record.version = RECORD_VERSION;
    record.payload_kind = found.kind as u8;
    record.flags = 0;
    record.qfi = 0;
    record.teid = 0;
    record.gtpu_message_type = 0;
    if let Some(tunnel) = facts.tunnel {
        record.flags |= FLAG_TUNNEL;
        record.teid = tunnel.teid;
        record.gtpu_message_type = tunnel.message_type;
        if let Some(qfi) = tunnel.qfi {
            record.flags |= FLAG_QFI;
            record.qfi = qfi;
        }
    }
    if notices.started {
        record.flags |= FLAG_SESSION_STARTED;
    }
    if notices.quiet {
        record.flags |= FLAG_SESSION_QUIET;
    }
    if notices.inspect {
        record.flags |= FLAG_INSPECT;
    }
    record.tcp_flags = facts.tcp_flags;
    record.time_ns = now;
    record.session_start_ns = start;
    record.direction = watched.direction as u8;
    record.rule_count = 0;
    record.application = watched.application.id;
    record.sequence = facts.sequence;
    record.packet_length = watched.packet_length;
    record.payload_length = facts.payload_length;
    record.captured = 0;
}

/// The packet's VLANs, outermost first: a tag that was taken off stood before those in the frame.
#[inline(always)]
fn vlans<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> [u16; MAX_VLANS] {
    let [outer, inner] = facts.vlan;
    match packet.vlan_metadata() {
        Some(control) => [control & VLAN_ID, outer, inner],
        None => [outer, inner, 0],
    }
}

/// ANDs the rows and writes the rules that are left into the record; gives how many more there
/// were than it has room for.
#[inline(always)]
fn collect_rules<T: Tables>(draft: &mut Draft, tables: &T) -> u32 {
    let Some([a, b, c, d]) = load_rows(draft, tables) else { return 0 };
    draft.over = 0;
    let (mut word, last) = (draft.first_word as usize, draft.last_word as usize);
    for _ in 0..ROW_WORDS {
        if word > last {
            break;
        }
        let at = word % ROW_WORDS;
        let mut bits = a.0[at] & b.0[at] & c.0[at] & d.0[at];
        for _ in 0..MAX_MATCHES {
            if bits == 0 {
                break;
            }
            push_rule(black_box(&mut *draft), (at as u16) * 64 + bits.trailing_zeros() as u16);
            bits &= bits - 1;
        }
        if bits != 0 {
            black_box(&mut *draft).over += bits.count_ones();
        }
        word += 1;
    }
    draft.over
}

/// Adds a rule to the record. The count stays in memory: the verifier would walk the rest of the
/// words once for each count that it knew.
#[inline(always)]
fn push_rule(draft: &mut Draft, rule: u16) {
    let count = usize::from(draft.record.rule_count);
    match draft.record.rules.get_mut(count) {
        Some(place) => {
            *place = rule;
            draft.record.rule_count += 1;
        }
        None => draft.over += 1,
    }
}

/// Numbers of the rows whose AND are the rules that match.
#[inline(always)]
fn rows(watched: &Watched<'_>, found: &Found, session: &SessionState, start: u64) -> [u32; 4] {
    let seen = row::seen(found.row_kind, watched.direction, start != 0);
    [watched.application.row, seen, found.path_row, session.ue.get() as u32]
}

#[inline(always)]
fn load_rows<'t, T: Tables>(draft: &Draft, tables: &'t T) -> Option<[&'t Row; 4]> {
    Some([
        tables.row(draft.rows[0])?,
        tables.row(draft.rows[1])?,
        tables.row(draft.rows[2])?,
        tables.row(draft.rows[3])?,
    ])
}

/// Counts the record's rules and leaves those in it that may become events now: none if the
/// segment was sent again, and not those whose window is open. Gives the bytes to capture.
#[inline(always)]
fn admit<T: Tables, S: State>(
    facts: &Facts,
    session: &SessionState,
    tables: &T,
    state: &mut S,
) -> usize {
    let again = is_retransmission(facts, session, state);
    if again {
        state.count(Counter::Retransmissions, 1);
    }
    let mut capture = 0;
    let mut kept = 0;
    for index in 0..MAX_MATCHES {
        let Some(Draft { record, .. }) = state.draft() else { return 0 };
        if again || index >= usize::from(record.rule_count) {
            break;
        }
        let rule = record.rules[index];
        let now = record.time_ns;
        let Some(entry) = tables.rule(u32::from(rule)) else { continue };
        state.count_rule(u32::from(rule), RuleCounter::Matched);
        if entry.window_ns != 0 && state.suppress(entry.id, now, entry.window_ns) {
            state.count_rule(u32::from(rule), RuleCounter::Suppressed);
            continue;
        }
        let Some(Draft { record, .. }) = state.draft() else { return 0 };
        record.rules[kept % MAX_MATCHES] = rule;
        kept += 1;
        capture = capture.max(entry.capture as usize);
    }
    if let Some(Draft { record, .. }) = state.draft() {
        record.rule_count = kept as u8;
    }
    capture
}

/// Whether this segment matched before. UDP has no retransmissions that can be told from new
/// packets, and a SYN sent again was sorted out by its flow.
#[inline(always)]
fn is_retransmission<S: State>(facts: &Facts, session: &SessionState, state: &mut S) -> bool {
    if !matches!(facts.protocol, Protocol::Tcp) || facts.tcp_flags & SYN != 0 {
        return false;
    }
    let Some(Draft { record, .. }) = state.draft() else { return false };
    let direction = u64::from(record.direction);
    let flow = state.flow();
    let ports = (u64::from(flow.ue_port) << 48)
        | (u64::from(flow.application_port) << 32)
        | u64::from(facts.sequence);
    let address = flow.application_address.0[0] ^ flow.application_address.0[1];
    // Never 0, which marks a free place; the direction, because both ends count on their own.
    let mark = (ports ^ address.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ direction) | (1 << 63);
    if session.seen_before(mark) {
        return true;
    }
    state.add(&session.matches, 1);
    false
}

/// Counts what a full ring buffer lost.
#[inline(always)]
fn count_lost<S: State>(notices: bool, state: &mut S) {
    if notices {
        state.count(Counter::NoticeRingFull, 1);
    }
    for index in 0..MAX_MATCHES {
        let Some(Draft { record, .. }) = state.draft() else { return };
        if index >= usize::from(record.rule_count) {
            return;
        }
        let rule = u32::from(record.rules[index]);
        state.count_rule(rule, RuleCounter::RingFull);
    }
}

/// How many payload bytes a record carries: what the rules ask for, as far as it is there.
#[inline(always)]
pub fn capture_length(facts: &Facts, capture: usize) -> usize {
    capture.min(facts.payload_length as usize).min(MAX_SEGMENT)
}
