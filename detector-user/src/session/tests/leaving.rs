//! Records that come while their session leaves the packet path's table.

use super::*;

const MILLISECOND: u64 = 1_000_000;
/// When [`late_session`] has been idle for long enough.
const IDLE: u64 = START + 30 * SECOND;

/// One session, in a packet path whose records come after the packets.
pub(super) fn late_session() -> (SessionTable, Kernel, SessionKey) {
    let (table, mut kernel, key) = one_session();
    kernel.has_late_records = true;
    (table, kernel, key)
}

/// All that was recorded before was read.
fn read_until(time_ns: u64) -> ReadUpTo {
    ReadUpTo { position: 0, time_ns }
}

#[test]
fn a_press_in_the_moment_in_which_its_session_ends_is_in_its_count() {
    let (mut table, mut kernel, key) = late_session();
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    assert!(table.is_empty() && kernel.get(&key).is_none());
    table.detected(&key, START);
    table.taken_out(IDLE);
    assert!(table.left(read_until(IDLE + 9 * MILLISECOND)).is_empty());
    table.detected(&key, START);
    let [ended] = &table.left(read_until(IDLE + 10 * MILLISECOND))[..] else { panic!("its end") };
    assert_eq!((ended.end.detections, ended.end.reason), (2, SessionEndReason::Idle));
    assert!(table.left(read_until(u64::MAX)).is_empty(), "it is told once");
}

#[test]
fn a_session_is_not_over_before_the_packet_path_has_forgotten_it() {
    let (mut table, mut kernel, _) = late_session();
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    assert!(table.left(read_until(u64::MAX)).is_empty());
    table.taken_out(IDLE);
    table.taken_out(IDLE + SECOND);
    assert_eq!(table.left(read_until(IDLE + 10 * MILLISECOND)).len(), 1);
}

#[test]
fn the_end_of_a_session_is_told_before_the_begin_of_its_users_next() {
    let (mut table, mut kernel, key) = late_session();
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    table.taken_out(IDLE);
    kernel.packet(key, IDLE + 1, 0, 1);
    let before = table.open(&record(2, IDLE + 1), IDLE + 1, application("shop"));
    assert_eq!(before.len(), 1);
    assert_eq!(before[0].session.start_ns, START);
    assert!(table.left(read_until(u64::MAX)).is_empty());
    assert_eq!(table.len(), 1);
}

#[test]
fn sessions_that_leave_together_are_told_in_the_order_in_which_they_left() {
    let (mut table, mut kernel, _) = late_session();
    for ue in [9, 5, 7] {
        let record = record(ue, START + u64::from(ue));
        table.open(&record, START + u64::from(ue), application("shop"));
        kernel.packet(record.session, START + u64::from(ue), 0, 1);
    }
    assert_eq!(ended_at(&mut table, &mut kernel, 31), []);
    let ues: Vec<_> = table.all_left().iter().map(|it| it.session.flow.ue_ip.to_string()).collect();
    assert_eq!(ues, ["10.45.0.2", "10.45.0.5", "10.45.0.7", "10.45.0.9"]);
}
