//! What an agent that was killed leaves to the next one.

use super::{leaving::late_session, *};
use crate::source::session_notes::{NoteKey, SessionNote};

fn note_key(session: SessionKey) -> NoteKey {
    NoteKey { session, start_ns: START }
}

/// The ring was read up to there, now.
fn all_up_to(position: u64) -> ReadUpTo {
    ReadUpTo { position, time_ns: u64::MAX }
}

/// The note of the one session that changed and whose end is not told.
fn going(table: &mut SessionTable, read_to: u64) -> (NoteKey, SessionNote) {
    let SessionChanges { going, told } = table.take_changed(read_to);
    assert_eq!((going.len(), told), (1, Vec::new()));
    going[0]
}

/// The note of the one session whose end was told.
fn told(table: &mut SessionTable, read_to: u64) -> (NoteKey, SessionNote) {
    let SessionChanges { going, told } = table.take_changed(read_to);
    assert_eq!((going, told.len()), (Vec::new(), 1));
    told[0]
}

/// As after a SIGKILL: what the next agent has is the notes and the kernel's table.
#[test]
fn the_next_agent_takes_over_a_session_as_it_was_and_ends_it_in_time() {
    let (mut table, mut kernel, key) = one_session();
    assert_eq!(table.take_changed(9), SessionChanges::default(), "nobody asked");
    table.track_changes();
    table.detected(&key, START);
    table.quiet(&key, START, START + SECOND);
    let (noted, note) = going(&mut table, 9);
    assert_eq!((noted, note.detections, note.quiet), (note_key(key), 1, 1));
    let id = table.get_mut(&key, START).expect("open").id.clone();

    let mut next = SessionTable::new(Uuid::from_u128(1));
    next.track_changes();
    next.adopt(&note_key(key), &note, application("shop"));
    let adopted = next.get_mut(&key, START).expect("open").clone();
    assert_eq!((&adopted.id, adopted.flow), (&id, record(2, START).flow));
    kernel.packet(key, START, 10, 0);
    assert_eq!(ended_at(&mut next, &mut kernel, 14), []);
    let ended = ended_at(&mut next, &mut kernel, 15);
    assert_eq!((ended[0].reason, ended[0].detections), (SessionEndReason::Closed, 1));
    let (noted, note) = told(&mut next, 10);
    assert_eq!((noted, note.ended()), (note_key(key), Some(SessionEndReason::Closed)));
    // Its end may not have been told to the end: the next agent after that tells it again.
    let mut after = SessionTable::new(Uuid::from_u128(1));
    after.adopt(&noted, &note, application("shop"));
    after.taken_out(0);
    assert!(after.left(all_up_to(9)).is_empty(), "not before all of it is read again");
    let [again] = &after.left(all_up_to(10))[..] else { panic!("its end") };
    assert_eq!((again.end, &again.session.id), (ended[0], &id));
    assert!(after.is_empty() && after.left(all_up_to(11)).is_empty());
}

/// As after a SIGKILL: records that were read and not finished are read again.
#[test]
fn a_session_s_begin_is_told_again_and_its_detections_are_not_counted_again() {
    let (mut table, mut kernel) = (SessionTable::new(Uuid::from_u128(1)), Kernel::default());
    table.track_changes();
    let record = record(2, START);
    kernel.packet(record.session, START, 0, 1);
    table.reading(100);
    table.open(&record, START, application("shop"));
    for position in [200, 300] {
        table.reading(position);
        table.detected(&record.session, START);
    }
    let (noted, note) = going(&mut table, 400);

    let mut next = SessionTable::new(Uuid::from_u128(1));
    next.track_changes();
    next.adopt(&noted, &note, application("shop"));
    assert_eq!(begins_again(&mut next, &record), [100]);
    let (noted, note) = going(&mut next, 500);
    assert_eq!((note.detections, note.as_of), (3, 500));

    // The agent that finds its end is killed too, before it has told even the begin.
    let ended = ended_at(&mut next, &mut kernel, 100);
    let (_, note) = told(&mut next, 500);
    let mut after = SessionTable::new(Uuid::from_u128(1));
    after.track_changes();
    after.adopt(&noted, &note, application("shop"));
    assert_eq!(begins_again(&mut after, &record), [100]);
    assert!(after.open(&record, START, application("shop")).is_empty() && after.is_empty());
    after.taken_out(0);
    let again: Vec<_> = after.left(all_up_to(500)).into_iter().map(|ended| ended.end).collect();
    assert_eq!((again, ended[0].detections), (ended, 3));
    let (_, note) = told(&mut after, 500);
    assert_eq!(note.detections, 3);
    assert!(after.open(&record, START, application("shop")).is_empty() && after.is_empty());
}

/// The positions at which the session's begin is told again; at each there is a detection.
fn begins_again(table: &mut SessionTable, record: &Record<'_>) -> Vec<u64> {
    let mut again = Vec::new();
    for position in [100, 200, 300, 400] {
        table.reading(position);
        if table.begins_again(&record.session, START).is_some() {
            again.push(position);
        }
        table.detected(&record.session, START);
    }
    again
}

#[test]
fn a_session_that_the_kernel_dropped_while_no_agent_lived_has_ended() {
    let (mut table, mut kernel, key) = one_session();
    table.track_changes();
    table.detected(&key, START);
    let (_, note) = going(&mut table, 9);
    kernel.remove(&key);
    let mut next = SessionTable::new(Uuid::from_u128(1));
    next.adopt(&note_key(key), &note, application("shop"));
    let ended = ended_at(&mut next, &mut kernel, 1);
    assert_eq!(ended.iter().map(|end| end.reason).collect::<Vec<_>>(), [SessionEndReason::Evicted]);
    // It is not taken over again.
    next.adopt(&note_key(key), &note, application("shop"));
    assert!(next.is_empty());
}

/// Killed between the note of a session's end and its event: what was recorded of it meanwhile counts.
#[test]
fn what_is_recorded_of_a_session_after_its_end_was_noted_is_counted_by_the_next_agent() {
    let (mut table, mut kernel, key) = late_session();
    table.track_changes();
    table.reading(200);
    table.detected(&key, START);
    assert_eq!(ended_at(&mut table, &mut kernel, 30), []);
    let (noted, note) = going(&mut table, 300);
    assert_eq!((note.ended(), note.detections), (Some(SessionEndReason::Idle), 1));

    let mut next = SessionTable::new(Uuid::from_u128(1));
    next.adopt(&noted, &note, application("shop"));
    for position in [200, 300] {
        next.reading(position);
        next.detected(&key, START);
    }
    next.taken_out(0);
    let [ended] = &next.left(all_up_to(400))[..] else { panic!("its end") };
    assert_eq!(ended.end.detections, 2);
}
