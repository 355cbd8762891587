//! When sessions end, with a kernel made of a map and a clock that is told.

use std::net::Ipv4Addr;

use detector_common::{
    event::PayloadKind,
    packet::{Address, Direction, Protocol},
    state::{FlowKey, FlowSnapshot},
};

use zerocopy::FromZeros;

use super::*;
use crate::{
    detection::SessionEndReason, rules::model::SessionPolicy, source::session_map::Sessions,
};

mod handover;
mod leaving;

const SECOND: u64 = 1_000_000_000;
const START: u64 = 100 * SECOND;
const ROOM: usize = 3;

/// The kernel's sessions.
#[derive(Default)]
struct Kernel {
    sessions: HashMap<SessionKey, SessionSnapshot>,
    has_late_records: bool,
}

impl Sessions for Kernel {
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.sessions.get(key).copied()
    }
    fn remove(&mut self, key: &SessionKey) {
        self.sessions.remove(key);
    }
    fn has_late_records(&self) -> bool {
        self.has_late_records
    }
    fn keys(&mut self) -> Vec<SessionKey> {
        self.sessions.keys().copied().collect()
    }
    fn room(&self) -> usize {
        ROOM
    }
    fn flow(&self, _key: &FlowKey) -> Option<FlowSnapshot> {
        None
    }
}

impl Kernel {
    /// The session's last packet passed `after` seconds, with so many connections left open.
    fn packet(&mut self, key: SessionKey, start_ns: u64, after: u64, open_connections: u64) {
        let state = self.sessions.entry(key).or_default();
        state.start_ns = start_ns;
        state.last_ns = start_ns + after * SECOND;
        state.packets[0] += 2;
        state.packets[1] += 1;
        state.bytes = [state.packets[0] * 100, state.packets[1] * 1_000];
        state.open_connections = open_connections;
    }
}

fn application(name: &str) -> Arc<Application> {
    Arc::new(Application {
        name: name.to_owned(),
        endpoints: Vec::new(),
        session: SessionPolicy { idle: Duration::from_secs(30), linger: Duration::from_secs(5) },
    })
}

fn record(ue: u8, start_ns: u64) -> Record<'static> {
    let ue_ip = Ipv4Addr::new(10, 45, 0, ue);
    Record {
        ifindex: 3,
        time_ns: start_ns,
        session_start_ns: Some(start_ns),
        session: SessionKey { ue: Address::v4(ue_ip.octets()), application: 1, reserved: 0 },
        session_started: true,
        session_quiet: false,
        inspect: false,
        behind_gap: None,
        tcp_flags: 0,
        flow_key: FlowKey::new_zeroed(),
        flow: Flow {
            ue_ip: ue_ip.into(),
            ue_port: 40_000,
            app_ip: Ipv4Addr::new(10, 46, 0, 1).into(),
            app_port: 80,
            protocol: Protocol::Tcp,
            direction: Direction::Uplink,
        },
        tunnel: None,
        vlan: None,
        payload_kind: PayloadKind::TcpOpened,
        generation: 1,
        rules: Vec::new(),
        sequence: 0,
        packet_length: 60,
        payload_length: 0,
        payload: &[],
    }
}

/// A table with one session of UE 2, begun at [`START`], and the kernel that counts it.
fn one_session() -> (SessionTable, Kernel, SessionKey) {
    let mut table = SessionTable::new(Uuid::from_u128(1));
    let record = record(2, START);
    assert!(table.open(&record, START, application("shop")).is_empty());
    let mut kernel = Kernel::default();
    kernel.packet(record.session, START, 0, 1);
    (table, kernel, record.session)
}

/// What ended `after` seconds.
fn ended_at(table: &mut SessionTable, kernel: &mut Kernel, after: u64) -> Vec<SessionEnd> {
    let ended = table.expire(START + after * SECOND, kernel);
    ended.into_iter().map(|ended| ended.end).collect()
}

/// However many users come: what is remembered of them ends somewhere.
#[test]
fn of_too_many_sessions_those_end_whose_deadline_comes_next() {
    let (mut table, mut kernel, _) = one_session();
    for ue in 3..=10 {
        let start = START + u64::from(ue);
        assert!(table.open(&record(ue, start), start, application("shop")).is_empty());
    }
    let ended = table.expire(START + SECOND, &mut kernel);
    let ues: Vec<_> = ended.iter().map(|it| it.session.flow.ue_ip.to_string()).collect();
    assert_eq!(ues, ["10.45.0.2", "10.45.0.3", "10.45.0.4"]);
    assert!(ended.iter().all(|it| it.end.reason == SessionEndReason::Evicted));
    assert_eq!(table.len(), 2 * ROOM);
    assert_eq!(ended[0].end.packets, 3, "what the kernel had counted");
    assert!(kernel.sessions.is_empty());
}

#[test]
fn deadlines_that_no_longer_count_do_not_pile_up() {
    let mut table = SessionTable::new(Uuid::from_u128(1));
    for again in 0..10_000 {
        // The kernel forgot the session, and its user goes on.
        let start = START + again;
        table.open(&record(2, start), start, application("shop"));
    }
    assert_eq!(table.len(), 1);
    assert!(table.deadlines.len() <= STALE_DEADLINES + 2, "{}", table.deadlines.len());
    let ended = table.expire(START + 31 * SECOND, &mut Kernel::default());
    assert_eq!(ended.len(), 1, "the one that counts is still there");
}

#[test]
fn a_session_ends_when_it_was_idle_and_not_a_second_before() {
    let (mut table, mut kernel, key) = one_session();
    assert_eq!(ended_at(&mut table, &mut kernel, 29), []);
    let end = SessionEnd {
        duration: Duration::ZERO,
        packets: 3,
        bytes: 1_200,
        detections: 0,
        reason: SessionEndReason::Idle,
    };
    assert_eq!(ended_at(&mut table, &mut kernel, 30), [end]);
    assert!(table.is_empty());
    assert_eq!(kernel.get(&key), None, "the UE's next packet begins a new session");
}

#[test]
fn later_packets_move_the_deadline_and_count() {
    let (mut table, mut kernel, key) = one_session();
    kernel.packet(key, START, 20, 1);
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    kernel.packet(key, START, 45, 1);
    assert_eq!(ended_at(&mut table, &mut kernel, 50), []);
    assert_eq!(ended_at(&mut table, &mut kernel, 74), []);
    if let Some(session) = table.get_mut(&key, START) {
        session.detections = 4;
    }
    let end = SessionEnd {
        duration: Duration::from_secs(45),
        packets: 9,
        bytes: 3_600,
        detections: 4,
        reason: SessionEndReason::Idle,
    };
    assert_eq!(ended_at(&mut table, &mut kernel, 75), [end]);
}

#[test]
fn a_closed_session_ends_after_its_linger_time() {
    let (mut table, mut kernel, key) = one_session();
    kernel.packet(key, START, 10, 0);
    table.quiet(&key, START, START + 10 * SECOND);
    assert_eq!(ended_at(&mut table, &mut kernel, 14), []);
    let ended = ended_at(&mut table, &mut kernel, 15);
    assert_eq!(ended.len(), 1);
    assert_eq!(ended[0].reason, SessionEndReason::Closed);
    assert_eq!(ended[0].duration, Duration::from_secs(10));
}

#[test]
fn a_packet_within_the_linger_time_moves_the_end() {
    let (mut table, mut kernel, key) = one_session();
    table.quiet(&key, START, START + 10 * SECOND);
    kernel.packet(key, START, 13, 0);
    assert_eq!(ended_at(&mut table, &mut kernel, 17), []);
    let ended = ended_at(&mut table, &mut kernel, 18);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Closed]);
}

#[test]
fn a_connection_opened_within_the_linger_time_makes_it_an_idle_end() {
    let (mut table, mut kernel, key) = one_session();
    table.quiet(&key, START, START + 10 * SECOND);
    kernel.packet(key, START, 12, 1);
    assert_eq!(ended_at(&mut table, &mut kernel, 41), []);
    let ended = ended_at(&mut table, &mut kernel, 42);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Idle]);
}

#[test]
fn a_linger_time_beyond_the_idle_time_does_not_prolong_the_session() {
    let mut table = SessionTable::new(Uuid::from_u128(1));
    let mut kernel = Kernel::default();
    let slow = Application {
        session: SessionPolicy { idle: Duration::from_secs(30), linger: Duration::from_secs(90) },
        ..Application::clone(&application("slow"))
    };
    let record = record(2, START);
    table.open(&record, START, Arc::new(slow));
    kernel.packet(record.session, START, 0, 0);
    table.quiet(&record.session, START, START);
    let ended = ended_at(&mut table, &mut kernel, 30);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Idle]);
}

#[test]
fn a_session_that_the_kernel_dropped_ends_with_what_was_last_seen() {
    let (mut table, mut kernel, key) = one_session();
    kernel.packet(key, START, 20, 1);
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    kernel.remove(&key);
    let ended = ended_at(&mut table, &mut kernel, 50);
    let end = SessionEnd {
        duration: Duration::from_secs(20),
        packets: 6,
        bytes: 2_400,
        detections: 0,
        reason: SessionEndReason::Evicted,
    };
    assert_eq!(ended, [end]);
}

#[test]
fn a_session_begun_anew_under_the_same_key_ends_the_one_before_and_lives_on() {
    let (mut table, mut kernel, key) = one_session();
    let again = START + 25 * SECOND;
    kernel.remove(&key);
    kernel.packet(key, again, 0, 1);
    let before = table.open(&record(2, again), again, application("shop"));
    let [before] = &before[..] else { panic!("the old one") };
    assert_eq!(before.end.reason, SessionEndReason::Evicted);
    assert_eq!(before.session.start_ns, START);
    // The old one's deadline passes; it says nothing about the new one.
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    assert!(table.get_mut(&key, START).is_none());
    let id = table.get_mut(&key, again).expect("open").id.clone();
    assert_ne!(id, before.session.id);
    let ended = ended_at(&mut table, &mut kernel, 55);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Idle]);
}

#[test]
fn a_session_begun_anew_before_the_agent_heard_of_it_is_not_mistaken_for_the_old_one() {
    let (mut table, mut kernel, key) = one_session();
    kernel.remove(&key);
    kernel.packet(key, START + 28 * SECOND, 0, 1);
    let ended = ended_at(&mut table, &mut kernel, 30);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Evicted]);
    assert!(kernel.get(&key).is_some(), "the new session stays in the kernel");
}

#[test]
fn a_record_of_an_open_session_opens_nothing() {
    let (mut table, _, key) = one_session();
    let id = table.get_mut(&key, START).expect("open").id.clone();
    assert!(table.open(&record(2, START), START, application("shop")).is_empty());
    assert_eq!(table.len(), 1);
    assert_eq!(table.get_mut(&key, START).expect("open").id, id);
}

#[test]
fn a_late_record_of_a_session_that_has_ended_does_not_open_it_again() {
    let (mut table, mut kernel, key) = one_session();
    assert_eq!(ended_at(&mut table, &mut kernel, 30).len(), 1);
    assert!(table.open(&record(2, START), START, application("shop")).is_empty());
    assert!(table.is_empty());
    // The next one is open: the late record ends nothing either.
    let next = START + 40 * SECOND;
    assert!(table.open(&record(2, next), next, application("shop")).is_empty());
    assert!(table.open(&record(2, START), START, application("shop")).is_empty());
    assert!(table.get_mut(&key, next).is_some());
}

#[test]
fn what_is_remembered_of_ended_sessions_is_bounded() {
    let mut ended = EndedLately::default();
    let key = |n: u64| {
        let ue = Address::v4((n as u32).to_be_bytes());
        SessionKey { ue, application: 1, reserved: 0 }
    };
    for n in 0..5_000 {
        ended.note(key(n), n);
        ended.note(key(0), n); // ends again and again
    }
    assert!(ended.order.len() <= EndedLately::KEPT && ended.starts.len() <= EndedLately::KEPT);
    assert_eq!(ended.since(&key(4_999)), Some(4_999));
    assert_eq!(ended.since(&key(0)), Some(4_999));
    assert_eq!(ended.since(&key(1)), None);
}

#[test]
fn when_memory_is_short_one_session_in_eight_ends_those_first_that_end_next() {
    let (mut table, mut kernel, _) = one_session();
    for ue in 3..=17 {
        let start = START + u64::from(ue);
        table.open(&record(ue, start), start, application("shop"));
    }
    let ended = table.give_way(&mut kernel);
    let ues: Vec<_> = ended.iter().map(|it| it.session.flow.ue_ip.to_string()).collect();
    assert_eq!(ues, ["10.45.0.2", "10.45.0.3"]);
    assert!(ended.iter().all(|it| it.end.reason == SessionEndReason::Evicted));
    assert_eq!(table.len(), 14);
}

#[test]
fn only_sessions_of_applications_that_are_gone_are_stopped() {
    let (mut table, mut kernel, _) = one_session();
    let other = record(3, START);
    table.open(&other, START, application("game"));
    kernel.packet(other.session, START, 7, 1);
    let stopped = table.end_all(|application| application.name == "game", &mut kernel);
    assert_eq!(stopped.len(), 1);
    assert_eq!(stopped[0].session.application.name, "game");
    assert_eq!(stopped[0].end.reason, SessionEndReason::Stopped);
    assert_eq!(stopped[0].end.duration, Duration::from_secs(7));
    assert_eq!(kernel.get(&other.session), None);
    assert_eq!(table.len(), 1);
    let rest = table.end_all(|_| true, &mut kernel);
    assert_eq!(rest.len(), 1);
    assert!(table.is_empty() && kernel.sessions.is_empty());
    assert_eq!(ended_at(&mut table, &mut kernel, 1_000), []);
}

#[test]
fn an_id_is_a_hash_of_the_seed_the_ue_the_application_and_the_start() {
    let id = |seed, ue, start_ns, name| {
        let mut table = SessionTable::new(Uuid::from_u128(seed));
        let record = record(ue, start_ns);
        table.open(&record, start_ns, application(name));
        table.get_mut(&record.session, start_ns).expect("open").id.clone()
    };
    let same = id(1, 2, START, "shop");
    assert_eq!(same, id(1, 2, START, "shop"));
    for other in [
        id(9, 2, START, "shop"),
        id(1, 9, START, "shop"),
        id(1, 2, 9, "shop"),
        id(1, 2, START, "x"),
    ] {
        assert_ne!(same, other);
    }
}

/// A browser that opens a connection for each request makes the session quiet again and again.
#[test]
fn a_session_that_falls_quiet_often_does_not_pile_up_deadlines() {
    let (mut table, mut kernel, key) = one_session();
    for second in 1..=1_000 {
        kernel.packet(key, START, second, 0);
        table.quiet(&key, START, START + second * SECOND);
        assert_eq!(ended_at(&mut table, &mut kernel, second), []);
    }
    assert!(table.deadlines.len() < 10, "{} deadlines", table.deadlines.len());
    assert_eq!(ended_at(&mut table, &mut kernel, 1_004), []);
    assert_eq!(ended_at(&mut table, &mut kernel, 1_005).len(), 1);
}
