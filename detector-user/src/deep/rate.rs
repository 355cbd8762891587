//! Counting over a sliding window, for each rule and user.

use std::{
    collections::{HashMap, HashSet},
    num::NonZeroUsize,
};

use lru::LruCache;

use super::lately::Lately;
use crate::{
    rules::term::{RateOf, RateTerm},
    source::deep_notes::{self, DeepChanges, RateNote, RuleAndUser},
};

/// The window slides in this many steps.
const SLOTS: u64 = deep_notes::SLOTS as u64;
const _: () = assert!(SLOTS == RateTerm::STEPS);
/// Flows remembered in all, over all rules and users.
const MAX_MARKS: usize = deep_notes::MARKS;

/// Something to be counted.
#[derive(Clone, Copy, Debug)]
pub(super) struct Amount {
    /// How much; for flows, which one.
    pub(super) amount: u64,
    /// When it passed.
    pub(super) time_ns: u64,
    /// Where in the ring the record stands that shows it.
    pub(super) position: u64,
}

/// Counts of the last window, the longest unused of which gives way.
#[derive(Debug)]
pub(super) struct Rates {
    counts: LruCache<RuleAndUser, Counted>,
    marks: usize,
    forgotten: u64,
    /// Since it was asked for; only if somebody asks.
    changed: Option<Changed>,
}

#[derive(Debug, Default)]
struct Changed {
    counts: HashSet<RuleAndUser>,
    marks: HashSet<(RuleAndUser, u64)>,
}

/// Of one rule and user.
#[derive(Debug)]
struct Counted {
    slot_ns: u64,
    count: Count,
    lately: Lately,
    /// An agent before has counted what records before this position show.
    adopted_at: u64,
}

#[derive(Debug)]
enum Count {
    Sum(Slots),
    /// Each flow and the slot in which it was last seen.
    Flows(HashMap<u64, u64>),
}

impl Counted {
    fn new(rate: RateTerm) -> Self {
        let count = match rate.of {
            RateOf::Packets | RateOf::Bytes => Count::Sum(Slots::default()),
            RateOf::Flows => Count::Flows(HashMap::new()),
        };
        Self { slot_ns: rate.step_ns(), count, lately: Lately::default(), adopted_at: 0 }
    }

    /// Whether the rule still counts this, and not something else since a reload.
    fn is_of(&self, rate: RateTerm) -> bool {
        let flows = matches!(self.count, Count::Flows(_));
        flows == (rate.of == RateOf::Flows) && self.slot_ns == rate.step_ns()
    }

    fn marks(&self) -> impl Iterator<Item = u64> {
        let flows = match &self.count {
            Count::Flows(flows) => Some(flows),
            Count::Sum(_) => None,
        };
        flows.into_iter().flat_map(HashMap::keys).copied()
    }
}

impl Rates {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { counts: LruCache::new(most), marks: 0, forgotten: 0, changed: None }
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Counts. The count in the window if it is reached by this, and was not before.
    pub(super) fn count(&mut self, key: RuleAndUser, rate: RateTerm, what: Amount) -> Option<u64> {
        if self.counts.peek(&key).is_some_and(|counted| !counted.is_of(rate)) {
            self.remove(key);
        }
        if !self.counts.contains(&key) && self.counts.len() == self.counts.cap().get() {
            self.forget();
        }
        let counted = self.counts.get_or_insert_mut(key, || Counted::new(rate));
        if what.position < counted.adopted_at {
            return counted.lately.again(what.time_ns);
        }
        let slot = what.time_ns / counted.slot_ns;
        let mut touched = Vec::new();
        let (before, after) = match &mut counted.count {
            Count::Sum(slots) => slots.add(slot, what.amount),
            Count::Flows(flows) => {
                let had = flows.len();
                let counts = mark(flows, slot, what.amount, rate.at_least, &mut touched);
                self.marks = (self.marks + flows.len()).saturating_sub(had);
                counts
            }
        };
        let reached = before < rate.at_least && after >= rate.at_least;
        if reached {
            counted.lately.fire(what.time_ns, after);
        }
        if let Some(changed) = self.changed.as_mut() {
            changed.counts.insert(key);
            changed.marks.extend(touched.into_iter().map(|mark| (key, mark)));
        }
        while self.marks > MAX_MARKS {
            self.forget();
        }
        reached.then_some(after)
    }

    fn forget(&mut self) {
        let Some((key, _)) = self.counts.peek_lru() else {
            self.marks = 0;
            return;
        };
        self.forgotten += 1;
        self.remove(*key);
    }

    fn remove(&mut self, key: RuleAndUser) {
        let Some(counted) = self.counts.pop(&key) else { return };
        self.marks = self.marks.saturating_sub(counted.marks().count());
        if let Some(changed) = self.changed.as_mut() {
            changed.counts.insert(key);
            changed.marks.extend(counted.marks().map(|mark| (key, mark)));
        }
    }

    /// From here on, remembers what changes.
    pub(super) fn track_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// Adds what changed since the last time, when the ring had been read up to `read_to`.
    pub(super) fn take_changed(&mut self, read_to: u64, changes: &mut DeepChanges) {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let note = |key| (key, self.counts.peek(&key).map(|counted| counted.note(read_to)));
        changes.rates.extend(changed.counts.into_iter().map(note));
        let slot = |(key, mark)| {
            let flows = match &self.counts.peek(&key)?.count {
                Count::Flows(flows) => flows,
                Count::Sum(_) => return None,
            };
            flows.get(&mark).copied()
        };
        changes.flows.extend(changed.marks.into_iter().map(|mark| (mark, slot(mark))));
    }

    /// Goes on from what an agent before has noted.
    pub(super) fn adopt(&mut self, key: RuleAndUser, note: &RateNote) {
        if note.slot_ns != 0 && self.counts.len() < self.counts.cap().get() {
            self.counts.put(key, Counted::noted(note));
        }
    }

    /// And a flow that was counted.
    pub(super) fn adopt_flow(&mut self, key: RuleAndUser, mark: u64, slot: u64) {
        if let Some(Counted { count: Count::Flows(flows), .. }) = self.counts.get_mut(&key) {
            self.marks += usize::from(flows.insert(mark, slot).is_none());
        }
    }
}

impl Counted {
    fn note(&self, read_to: u64) -> RateNote {
        let (flows, Slots { newest, sums }) = match &self.count {
            Count::Sum(slots) => (0, *slots),
            Count::Flows(_) => (1, Slots::default()),
        };
        let as_of = self.adopted_at.max(read_to);
        RateNote { as_of, slot_ns: self.slot_ns, flows, newest, sums, fired: self.lately.note() }
    }

    fn noted(note: &RateNote) -> Self {
        let count = match note.flows {
            1 => Count::Flows(HashMap::new()),
            _ => Count::Sum(Slots { newest: note.newest, sums: note.sums }),
        };
        let lately = Lately::adopt(note.fired);
        Self { slot_ns: note.slot_ns, count, lately, adopted_at: note.as_of }
    }
}

/// Notes a flow; how many there were in the window before, and are now. The latest so many as are
/// asked for are remembered: if all of them are within the window the number is reached.
/// `touched` gets those that changed.
fn mark(
    flows: &mut HashMap<u64, u64>,
    slot: u64,
    flow: u64,
    at_least: u64,
    touched: &mut Vec<u64>,
) -> (u64, u64) {
    flows.retain(|flow, seen| {
        let within = *seen + SLOTS > slot;
        if !within {
            touched.push(*flow);
        }
        within
    });
    let before = flows.len() as u64;
    if before >= at_least && !flows.contains_key(&flow) {
        let oldest = flows.iter().min_by_key(|(_, seen)| **seen).map(|(oldest, _)| *oldest);
        oldest.and_then(|oldest| flows.remove(&oldest));
        touched.extend(oldest);
    }
    touched.push(flow);
    let seen = flows.entry(flow).or_insert(slot);
    *seen = slot.max(*seen);
    (before, flows.len() as u64)
}

/// Sums of the last slots.
#[derive(Clone, Copy, Debug, Default)]
struct Slots {
    newest: u64,
    sums: [u64; deep_notes::SLOTS],
}

impl Slots {
    /// The sum before and after. What is late counts as now, as CPUs report out of order.
    fn add(&mut self, slot: u64, amount: u64) -> (u64, u64) {
        let slot = slot.max(self.newest);
        let passed = (slot - self.newest).min(SLOTS);
        for step in 1..=passed {
            self.sums[((slot - passed + step) % SLOTS) as usize] = 0;
        }
        self.newest = slot;
        let before = self.sums.iter().fold(0u64, |sum, slot| sum.saturating_add(*slot));
        let now = &mut self.sums[(slot % SLOTS) as usize];
        *now = now.saturating_add(amount);
        (before, before.saturating_add(amount))
    }
}

#[cfg(test)]
mod tests {
    use std::{collections::HashSet, time::Duration};

    use proptest::prelude::*;

    use super::*;

    const KEY: RuleAndUser = (1, std::net::IpAddr::V4(std::net::Ipv4Addr::LOCALHOST));

    fn rate(of: RateOf, at_least: u64) -> RateTerm {
        RateTerm { of, at_least, window: Duration::from_nanos(160) }
    }

    fn now(amount: u64) -> Amount {
        at(0, amount)
    }

    fn at(time_ns: u64, amount: u64) -> Amount {
        Amount { amount, time_ns, position: 0 }
    }

    #[test]
    fn the_crossing_is_told_once_and_again_after_it_fell_below() {
        let mut rates = Rates::new(8);
        let mut then = |time| rates.count(KEY, rate(RateOf::Packets, 3), at(time, 1));
        assert_eq!([then(0), then(1), then(2), then(3)], [None, None, Some(3), None]);
        assert_eq!([then(500), then(501), then(502)], [None, None, Some(3)]);
    }

    #[test]
    fn a_rule_whose_window_a_reload_made_longer_begins_anew() {
        let mut rates = Rates::new(8);
        let short = rate(RateOf::Packets, 2);
        let long = RateTerm { window: Duration::from_nanos(1_600), ..short };
        let mut then = |rate, time| rates.count(KEY, rate, at(time, 1));
        assert_eq!([then(short, 10_000), then(short, 10_001)], [None, Some(2)]);
        assert_eq!([then(long, 10_002), then(long, 10_003)], [None, Some(2)]);
        assert_eq!([then(long, 20_000), then(long, 20_001)], [None, Some(2)], "and slides");
    }

    #[test]
    fn what_gives_way_is_counted_and_begins_anew() {
        let mut rates = Rates::new(1);
        let other = (2, KEY.1);
        let of = rate(RateOf::Packets, 2);
        assert_eq!(rates.count(KEY, of, now(1)), None);
        assert_eq!(rates.count(other, of, now(1)), None);
        assert_eq!((rates.count(KEY, of, now(1)), rates.forgotten()), (None, 2));
    }

    #[test]
    fn flows_of_many_users_stay_within_the_budget() {
        let mut rates = Rates::new(100_000);
        let of = rate(RateOf::Flows, 1_024);
        for user in 0..600u32 {
            for flow in 0..500 {
                rates.count((user, KEY.1), of, now(flow));
            }
        }
        assert!(rates.marks <= MAX_MARKS && rates.forgotten() > 0, "{}", rates.marks);
        let held: usize = rates.counts.iter().map(|(_, counted)| counted.marks().count()).sum();
        assert_eq!(held, rates.marks);
    }

    proptest! {
        #[test]
        fn it_counts_as_going_through_all_earlier_matches_does(
            steps in prop::collection::vec((0u64..60, 0u64..6), 1..60), at_least in 2u64..12,
        ) {
            let (mut sums, mut flows) = (Rates::new(8), Rates::new(8));
            let mut time = 1_000;
            let mut earlier: Vec<(u64, u64)> = Vec::new();
            for (pause, amount) in steps {
                time += pause;
                let recent: Vec<(u64, u64)> =
                    earlier.iter().copied().filter(|(slot, _)| slot + SLOTS > time / 10).collect();
                let sum: u64 = recent.iter().map(|(_, amount)| amount).sum();
                let crosses = sum < at_least && sum + amount >= at_least;
                let counted = sums.count(KEY, rate(RateOf::Bytes, at_least), at(time, amount));
                prop_assert_eq!(counted, crosses.then_some(sum + amount));

                earlier.push((time / 10, amount));
                let distinct: HashSet<u64> = recent.iter().map(|(_, flow)| *flow).collect();
                let with: HashSet<u64> = distinct.iter().copied().chain([amount]).collect();
                let (before, after) = (distinct.len() as u64, with.len() as u64);
                let counted = flows.count(KEY, rate(RateOf::Flows, at_least), at(time, amount));
                let crosses = before < at_least && after >= at_least;
                prop_assert_eq!(counted, crosses.then_some(after));
            }
        }
    }
}
