//! The invariants of the module's documentation, by number.

use std::{
    collections::BTreeSet,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use proptest::prelude::*;

use super::{
    simulated::{Simulated, Survives},
    *,
};

fn noon() -> SystemTime {
    UNIX_EPOCH + Duration::from_secs(1_750_000_000)
}

fn small() -> Limits {
    Limits { max_bytes: 64 << 10, ..Limits::default() }
}

fn open(disk: Simulated, limits: Limits) -> (Spool<Simulated>, Recovered) {
    Spool::open(disk, limits).unwrap()
}

fn text(number: usize) -> Vec<u8> {
    format!("event {number} {}", "x".repeat(number % 90)).into_bytes()
}

fn record<'a>(rule: &'a str, event: &'a [u8]) -> NewRecord<'a> {
    NewRecord { rule, class: Class::Normal, at: noon(), event }
}

/// Appends one event.
fn put(spool: &mut Spool<Simulated>, number: usize) -> Appended {
    spool.append(&[record("press", &text(number))], false, noon())
}

fn put_all(spool: &mut Spool<Simulated>, numbers: impl IntoIterator<Item = usize>) {
    for number in numbers {
        assert!(matches!(put(spool, number).placed[..], [Placed::Stored(_)]), "{number}");
    }
}

/// Everything that waits, as the numbers in the texts.
fn take_all(spool: &mut Spool<Simulated>) -> Vec<usize> {
    let mut taken = vec![];
    for given in spool.give(usize::MAX, noon()) {
        if let Given::Event { event, .. } = given {
            let number = number_in(&event);
            assert_eq!(event, text(number), "a ghost");
            taken.push(number);
        }
    }
    taken
}

fn number_in(event: &[u8]) -> usize {
    let event = std::str::from_utf8(event).unwrap();
    event.split(' ').nth(1).unwrap().parse().unwrap()
}

impl Spool<Simulated> {
    fn disk(&self) -> &Simulated {
        self.disk_for_tests()
    }
}

/// Puts events, takes some, marks some: what was acknowledged, and what was marked before the
/// disk failed. Stops at the first error, as a process that lost power does.
fn work(disk: Simulated) -> (Simulated, Vec<usize>, BTreeSet<usize>) {
    let (mut acknowledged, mut marked) = (vec![], BTreeSet::new());
    let Ok((mut spool, _)) = Spool::open(disk.clone(), small()) else {
        return (disk, acknowledged, marked);
    };
    let mut number = 0;
    for round in 0..12 {
        let texts: Vec<_> = (0..20).map(|i| text(number + i)).collect();
        let batch: Vec<_> = texts.iter().map(|text| record("press", text)).collect();
        let appended = spool.append(&batch, false, noon());
        for (i, placed) in appended.placed.iter().enumerate() {
            if matches!(placed, Placed::Stored(_)) {
                acknowledged.push(number + i);
            }
        }
        if appended.error.is_some() {
            break;
        }
        number += 20;
        if round % 3 == 2 {
            let mut done = vec![];
            for given in spool.give(30, noon()) {
                let Given::Event { number, event, .. } = given else { panic!("damaged") };
                done.push(number);
                marked.insert(number_in(&event));
            }
            if spool.done(&done).is_err() {
                break;
            }
        }
    }
    (spool.disk().clone(), acknowledged, marked)
}

#[test]
fn invariants_1_to_4_hold_after_a_power_loss_at_every_call() {
    let calls = work(Simulated::default()).0.calls;
    assert!(calls > 40, "{calls}");
    for at in 1..=calls {
        let mut disk = Simulated::default();
        disk.power_lost_at = Some(at);
        let (disk, acknowledged, marked) = work(disk);
        for survives in Survives::ALL {
            let (mut spool, recovered) = open(disk.after_power_loss(survives), small());
            let taken = take_all(&mut spool);
            let place = format!("call {at} of {calls}, {survives:?}: {recovered:?}");
            assert!(taken.is_sorted_by(|a, b| a < b), "order, and nothing twice: {place}");
            let there: BTreeSet<_> = taken.iter().copied().collect();
            for number in &acknowledged {
                assert!(
                    there.contains(number) || marked.contains(number),
                    "{number} lost: {place}"
                );
            }
            // What was being written may be there or not; beyond it nothing can be.
            assert!(taken.last().is_none_or(|last| *last < acknowledged.len() + 20), "{place}");
            assert_eq!(recovered.missing, 0, "{place}");
            // And it goes on.
            put_all(&mut spool, [1_000]);
            assert_eq!(take_all(&mut spool), [1_000]);
        }
    }
}

#[test]
fn invariant_1_without_fsync_holds_after_a_kill() {
    let limits = Limits { fsync: Fsync::Never, ..small() };
    let (mut spool, _) = open(Simulated::default(), limits);
    put_all(&mut spool, 0..100);
    let (mut again, recovered) = open(spool.disk().after_kill(), limits);
    assert_eq!(recovered.waiting, 100);
    assert_eq!(take_all(&mut again), Vec::from_iter(0..100));
    let (_, recovered) = open(spool.disk().after_power_loss(Survives::Nothing), limits);
    assert_eq!(recovered.waiting, 0, "this is what the policy says");
}

#[test]
fn a_period_syncs_as_often_as_it_says_and_when_the_clock_was_set_back() {
    let limits = Limits { fsync: Fsync::Every(Duration::from_secs(1)), ..small() };
    let (mut spool, _) = open(Simulated::default(), limits);
    let put = |spool: &mut Spool<Simulated>, number, after_ms| {
        let now = noon() + Duration::from_millis(after_ms) - Duration::from_millis(500);
        spool.append(&[record("press", &text(number))], false, now);
        open(spool.disk().after_power_loss(Survives::Nothing), limits).1.waiting
    };
    assert_eq!(put(&mut spool, 0, 500), 1);
    assert_eq!(put(&mut spool, 1, 1_400), 1);
    assert_eq!(put(&mut spool, 2, 1_500), 3);
    assert_eq!(put(&mut spool, 3, 0), 4);
}

#[test]
fn invariant_2_order_holds_over_many_segments_and_restarts() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..150);
    let (mut spool, recovered) = open(spool.disk().after_kill(), small());
    assert_eq!(recovered, Recovered { waiting: 150, ..Recovered::default() });
    put_all(&mut spool, 150..300);
    assert!(spool.disk().names().len() > 3);
    let (mut spool, _) = open(spool.disk().after_kill(), small());
    assert_eq!(take_all(&mut spool), Vec::from_iter(0..300));
}

#[test]
fn invariant_4_done_is_done_over_restarts_and_finished_segments_go() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..200);
    let numbers: Vec<u64> = spool
        .give(usize::MAX, noon())
        .iter()
        .map(|given| match given {
            Given::Event { number, .. } => *number,
            Given::Lost(lost) => panic!("{lost:?}"),
        })
        .collect();
    // Every other one, out of order.
    let (even, odd): (Vec<u64>, Vec<u64>) = numbers.iter().rev().partition(|n| *n % 2 == 0);
    spool.done(&even).unwrap();
    assert_eq!(spool.give(usize::MAX, noon()), [], "not twice by the same process");
    let (mut again, _) = open(spool.disk().after_kill(), small());
    let left = take_all(&mut again);
    assert_eq!(left.len(), 100);
    spool.done(&odd).unwrap();
    assert_eq!((spool.disk().names().len(), spool.bytes()), (0, 0));
}

#[test]
fn invariant_5_a_corrupt_place_costs_only_what_it_covers() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..100);
    let clean = spool.disk().after_kill();
    let name = clean.names()[0].clone();
    let whole = open(clean.clone(), small()).0.disk().clone().bytes_mut(&name).len();
    for at in 0..whole {
        let mut disk = clean.clone();
        disk.bytes_mut(&name)[at] ^= 0x55;
        let (mut spool, recovered) = open(disk, small());
        let taken = take_all(&mut spool);
        assert!(taken.len() >= 99 && taken.is_sorted(), "byte {at}: {} left", taken.len());
        assert_eq!(recovered.missing, 100 - taken.len() as u64, "byte {at}");
        assert_eq!(recovered.damage.len(), 1, "byte {at}");
        let damage = &recovered.damage[0];
        let covered = damage.offset..damage.offset + damage.length;
        assert!(damage.file == name && covered.contains(&(at as u64)), "{damage}");
    }
}

#[test]
fn invariant_5_an_event_that_went_bad_after_the_start_is_reported_by_rule() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..3);
    let name = spool.disk().names()[0].clone();
    let end = spool.disk_mut_for_tests().bytes_mut(&name).len();
    spool.disk_mut_for_tests().bytes_mut(&name)[end - 1] ^= 1;
    let given = spool.give(usize::MAX, noon());
    assert!(matches!(&given[..], [Given::Event { .. }, Given::Event { .. }, Given::Lost(lost)]
        if &*lost.rule == "press" && lost.fate == Fate::Damaged));
    assert_eq!(spool.waiting(), 0);
}

#[test]
fn invariant_6_and_7_the_oldest_give_way_and_are_counted() {
    let (mut spool, _) = open(Simulated::default(), small());
    let (mut stored, mut lost) = (0, vec![]);
    for number in 0..3_000 {
        let appended = put(&mut spool, number);
        stored += usize::from(matches!(appended.placed[..], [Placed::Stored(_)]));
        lost.extend(appended.lost);
        assert!(spool.bytes() <= small().max_bytes);
        assert_eq!(spool.bytes() as usize, spool.disk().total());
    }
    let left = take_all(&mut spool);
    assert_eq!((stored, lost.len() + left.len()), (3_000, 3_000));
    assert!(lost.iter().all(|lost| lost.fate == Fate::Full && &*lost.rule == "press"));
    assert_eq!(left, Vec::from_iter(lost.len()..3_000));
}

#[test]
fn invariant_6_and_7_the_newest_give_way_when_told_and_marks_still_fit() {
    let limits = Limits { when_full: WhenFull::DropNewest, ..small() };
    let (mut spool, _) = open(Simulated::default(), limits);
    let mut refused = 0;
    for number in 0..3_000 {
        let appended = put(&mut spool, number);
        refused += usize::from(appended.placed == [Placed::Full]);
        assert_eq!(appended.lost, []);
    }
    let given = spool.give(10, noon());
    let numbers: Vec<u64> = given
        .iter()
        .filter_map(|given| match given {
            Given::Event { number, .. } => Some(*number),
            Given::Lost(_) => None,
        })
        .collect();
    spool.done(&numbers).unwrap();
    assert!(spool.bytes() <= limits.max_bytes);
    let (mut again, _) = open(spool.disk().after_kill(), limits);
    assert_eq!(take_all(&mut again), Vec::from_iter(10..3_000 - refused));
}

#[test]
fn invariant_7_by_priority_low_ones_give_way_first() {
    let limits = Limits { when_full: WhenFull::Priority, ..small() };
    let (mut spool, _) = open(Simulated::default(), limits);
    let mut fill = |class| {
        let (mut stored, text) = (0, text(80));
        for _ in 0..2_000 {
            let record = NewRecord { class, ..record("press", &text) };
            let appended = spool.append(&[record], false, noon());
            match appended.placed[..] {
                [Placed::Stored(_)] => stored += 1,
                [Placed::Full] => return (stored, spool.bytes() * 10 / limits.max_bytes),
                _ => panic!("{appended:?}"),
            }
            if !appended.lost.is_empty() {
                return (stored, 10);
            }
        }
        panic!("never full");
    };
    assert_eq!(fill(Class::Low).1, 4);
    assert_eq!(fill(Class::Low).0, 0);
    assert_eq!(fill(Class::Normal).1, 7);
    let (stored, tenths) = fill(Class::High);
    assert!(stored > 0 && tenths == 10, "then the oldest give way");
}

#[test]
fn invariant_6_and_7_what_is_too_old_is_dropped_and_a_clock_set_back_makes_nothing_old() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..3);
    let day = Duration::from_secs(86_400);
    assert_eq!(spool.expire(noon() + day), []);
    assert_eq!(spool.expire(noon() - 10 * day), []);
    let lost = spool.expire(noon() + day + Duration::from_millis(1));
    assert_eq!(lost.iter().filter(|lost| lost.fate == Fate::TooOld).count(), 3);
    put_all(&mut spool, 3..4);
    let given = spool.give(1, noon() + 2 * day);
    assert!(matches!(&given[..], [Given::Lost(lost)] if lost.fate == Fate::TooOld));
    assert_eq!(spool.waiting(), 0);
}

#[test]
fn invariant_8_a_full_disk_changes_nothing_and_passes() {
    for capacity in 0..2_000 {
        let (mut spool, _) = open(Simulated::default(), small());
        let disk = spool.disk_mut_for_tests();
        disk.capacity = Some(capacity);
        let mut acknowledged = vec![];
        for number in 0..20 {
            let appended = put(&mut spool, number);
            match appended.placed[..] {
                [Placed::Stored(_)] => acknowledged.push(number),
                [Placed::Failed] => {
                    assert_eq!(appended.error.unwrap().label(), "disk_full");
                    break;
                }
                _ => panic!("{appended:?}"),
            }
        }
        spool.disk_mut_for_tests().capacity = None;
        put_all(&mut spool, 100..103);
        acknowledged.extend(100..103);
        let (mut again, recovered) =
            open(spool.disk().after_power_loss(Survives::Nothing), small());
        assert_eq!((take_all(&mut again), recovered.damage), (acknowledged, vec![]), "{capacity}");
    }
}

#[test]
fn invariant_8_a_read_only_disk_and_a_failed_fsync_change_nothing() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..2);
    spool.disk_mut_for_tests().read_only = true;
    let appended = put(&mut spool, 2);
    assert_eq!(appended.placed, [Placed::Failed]);
    assert_eq!(appended.error.unwrap().label(), "read_only");
    spool.disk_mut_for_tests().read_only = false;
    spool.disk_mut_for_tests().sync_fails = true;
    assert_eq!(put(&mut spool, 3).placed, [Placed::Failed]);
    spool.disk_mut_for_tests().sync_fails = false;
    put_all(&mut spool, 4..6);
    for survives in [Survives::Nothing, Survives::Everything] {
        let (mut again, _) = open(spool.disk().after_power_loss(survives), small());
        assert_eq!(take_all(&mut again), [0, 1, 4, 5], "{survives:?}");
    }
}

#[test]
fn invariant_8_nothing_is_added_to_a_file_whose_fsync_failed() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..2);
    spool.disk_mut_for_tests().sync_fails = true;
    assert_eq!(put(&mut spool, 2).placed, [Placed::Failed]);
    spool.disk_mut_for_tests().sync_fails = false;
    // What is on the disk of it nobody knows.
    assert_eq!(spool.disk().names().len(), 1);
    put_all(&mut spool, 3..5);
    assert_eq!(spool.disk().names().len(), 2);
    assert_eq!(take_all(&mut spool), [0, 1, 3, 4]);
}

#[test]
fn after_a_failure_nothing_of_the_same_batch_gets_in_front() {
    // Of some of these batches the end would still find room where the middle did not.
    for length in 100..200 {
        let (mut spool, _) = open(Simulated::default(), small());
        spool.disk_mut_for_tests().capacity = Some(4_800);
        let texts: Vec<_> = (0..length).map(text).collect();
        let batch: Vec<_> = texts.iter().map(|text| record("press", text)).collect();
        let appended = spool.append(&batch, false, noon());
        let stored = appended.placed.iter().take_while(|p| matches!(p, Placed::Stored(_))).count();
        assert!(stored > 0, "{length}");
        assert!(
            appended.placed[stored..].iter().all(|placed| *placed == Placed::Failed),
            "{length}"
        );
        assert_eq!(take_all(&mut spool), Vec::from_iter(0..stored), "{length}");
    }
}

#[test]
fn invariant_9_a_second_owner_is_refused() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("a/b");
    let first = Directory::open(&path).unwrap();
    let refused = Directory::open(&path).err().unwrap().to_string();
    assert!(refused.contains("is used by another process"), "{refused}");
    drop(first);
    assert!(Directory::open(&path).is_ok());
}

#[test]
fn invariant_10_another_version_is_left_alone() {
    let (mut spool, _) = open(Simulated::default(), small());
    put_all(&mut spool, 0..3);
    let mut disk = spool.disk().after_kill();
    let name = disk.names()[0].clone();
    let bytes = disk.bytes_mut(&name);
    bytes[8] = 2;
    let sum = crc32fast::hash(&bytes[..20]);
    bytes[20..24].copy_from_slice(&sum.to_le_bytes());
    let before = disk.bytes_mut(&name).clone();
    let (mut spool, recovered) = open(disk, small());
    assert_eq!((recovered.waiting, recovered.missing), (0, 0));
    assert!(recovered.damage[0].to_string().contains("another version"));
    put_all(&mut spool, 3..5);
    assert_eq!(take_all(&mut spool), [3, 4]);
    assert_eq!(*spool.disk_mut_for_tests().bytes_mut(&name), before);
}

#[test]
fn events_put_as_given_are_not_given_out_but_survive() {
    let (mut spool, _) = open(Simulated::default(), small());
    spool.append(&[record("press", &text(0))], true, noon());
    assert_eq!((spool.waiting(), take_all(&mut spool)), (0, vec![]));
    put_all(&mut spool, 1..2);
    assert_eq!(take_all(&mut spool), [1]);
    let (mut again, _) = open(spool.disk().after_kill(), small());
    assert_eq!(again.waiting_by_rule(), [("press".into(), 2)]);
    assert_eq!(take_all(&mut again), [0, 1]);
}

#[test]
fn the_real_directory_behaves_as_the_simulated_one() {
    let directory = tempfile::tempdir().unwrap();
    let open = || Spool::open(Directory::open(directory.path()).unwrap(), small()).unwrap();
    let (mut spool, _) = open();
    let texts: Vec<_> = (0..300).map(text).collect();
    for text in &texts {
        assert!(spool.append(&[record("press", text)], false, noon()).error.is_none());
    }
    drop(spool);
    let (mut spool, recovered) = open();
    assert_eq!((recovered.waiting, recovered.damage.len()), (300, 0));
    let mut numbers = vec![];
    for (given, text) in spool.give(usize::MAX, noon()).into_iter().zip(&texts) {
        let Given::Event { number, event, .. } = given else { panic!("{given:?}") };
        assert_eq!(event, *text);
        numbers.push(number);
    }
    spool.done(&numbers[..250]).unwrap();
    drop(spool);
    let (mut spool, recovered) = open();
    assert_eq!(recovered.waiting, 50);
    spool.done(&numbers[250..]).unwrap();
    let left: Vec<_> = std::fs::read_dir(directory.path()).unwrap().collect();
    assert_eq!(left.len(), 1, "the lock");
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 64, ..ProptestConfig::default() })]
    #[test]
    fn whatever_a_segment_holds_opening_it_neither_panics_nor_invents(
        junk in prop::collection::vec(any::<u8>(), 0..600),
        at: prop::sample::Index,
        cut: prop::sample::Index,
    ) {
        let (mut spool, _) = open(Simulated::default(), small());
        put_all(&mut spool, 0..20);
        let mut disk = spool.disk().after_kill();
        let name = disk.names()[0].clone();
        let bytes = disk.bytes_mut(&name);
        let begin = at.index(bytes.len());
        for (byte, junk) in bytes[begin..].iter_mut().zip(junk) {
            *byte = junk;
        }
        let length = cut.index(bytes.len()) + 1;
        bytes.truncate(length);
        let (mut spool, _) = open(disk, small());
        let taken = take_all(&mut spool);
        prop_assert!(taken.is_sorted_by(|a, b| a < b));
    }
}
