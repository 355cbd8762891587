//! Counting over a sliding window, for each rule and user.

use std::{collections::HashMap, num::NonZeroUsize};

use lru::LruCache;

use super::RuleAndUser;
use crate::rules::term::{RateOf, RateTerm};

/// The window slides in this many steps.
const SLOTS: u64 = 16;
/// Flows remembered in all, over all rules and users.
const MAX_MARKS: usize = 262_144;

/// Counts of the last window, the longest unused of which gives way.
#[derive(Debug)]
pub(super) struct Rates {
    counts: LruCache<RuleAndUser, Count>,
    marks: usize,
    forgotten: u64,
}

#[derive(Debug)]
enum Count {
    Sum(Slots),
    /// Each flow and the slot in which it was last seen.
    Flows(HashMap<u64, u64>),
}

impl Rates {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { counts: LruCache::new(most), marks: 0, forgotten: 0 }
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Counts `amount` (for flows: which one). The count in the window if it is reached by this,
    /// and was not before.
    pub(super) fn count(
        &mut self,
        key: RuleAndUser,
        rate: RateTerm,
        time_ns: u64,
        amount: u64,
    ) -> Option<u64> {
        let slot = time_ns / slot_ns(rate);
        if !self.counts.contains(&key) && self.counts.len() == self.counts.cap().get() {
            self.forget();
        }
        let fresh = || match rate.of {
            RateOf::Packets | RateOf::Bytes => Count::Sum(Slots::new(slot)),
            RateOf::Flows => Count::Flows(HashMap::new()),
        };
        let count = self.counts.get_or_insert_mut(key, fresh);
        if matches!(count, Count::Flows(_)) != (rate.of == RateOf::Flows) {
            // The rule counts something else since a reload.
            if let Count::Flows(flows) = count {
                self.marks = self.marks.saturating_sub(flows.len());
            }
            *count = fresh();
        }
        let (before, after) = match count {
            Count::Sum(slots) => slots.add(slot, amount),
            Count::Flows(flows) => {
                let had = flows.len();
                let counts = mark(flows, slot, amount, rate.at_least);
                self.marks = (self.marks + flows.len()).saturating_sub(had);
                counts
            }
        };
        while self.marks > MAX_MARKS {
            self.forget();
        }
        (before < rate.at_least && after >= rate.at_least).then_some(after)
    }

    fn forget(&mut self) {
        let Some((_, count)) = self.counts.pop_lru() else {
            self.marks = 0;
            return;
        };
        self.forgotten += 1;
        if let Count::Flows(flows) = count {
            self.marks = self.marks.saturating_sub(flows.len());
        }
    }
}

fn slot_ns(rate: RateTerm) -> u64 {
    let window = u64::try_from(rate.window.as_nanos()).unwrap_or(u64::MAX);
    (window / SLOTS).max(1)
}

/// Notes a flow; how many there were in the window before, and are now. The latest so many as are
/// asked for are remembered: if all of them are within the window the number is reached.
fn mark(flows: &mut HashMap<u64, u64>, slot: u64, flow: u64, at_least: u64) -> (u64, u64) {
    flows.retain(|_, seen| *seen + SLOTS > slot);
    let before = flows.len() as u64;
    if before >= at_least && !flows.contains_key(&flow) {
        let oldest = flows.iter().min_by_key(|(_, seen)| **seen).map(|(oldest, _)| *oldest);
        oldest.and_then(|oldest| flows.remove(&oldest));
    }
    let seen = flows.entry(flow).or_insert(slot);
    *seen = slot.max(*seen);
    (before, flows.len() as u64)
}

/// Sums of the last slots.
#[derive(Debug)]
struct Slots {
    newest: u64,
    sums: [u64; SLOTS as usize],
}

impl Slots {
    fn new(slot: u64) -> Self {
        Self { newest: slot, sums: [0; SLOTS as usize] }
    }

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

    #[test]
    fn the_crossing_is_told_once_and_again_after_it_fell_below() {
        let mut rates = Rates::new(8);
        let mut at = |time| rates.count(KEY, rate(RateOf::Packets, 3), time, 1);
        assert_eq!([at(0), at(1), at(2), at(3)], [None, None, Some(3), None]);
        assert_eq!([at(500), at(501), at(502)], [None, None, Some(3)]);
    }

    #[test]
    fn what_gives_way_is_counted_and_begins_anew() {
        let mut rates = Rates::new(1);
        let other = (2, KEY.1);
        let of = rate(RateOf::Packets, 2);
        assert_eq!(rates.count(KEY, of, 0, 1), None);
        assert_eq!(rates.count(other, of, 0, 1), None);
        assert_eq!((rates.count(KEY, of, 0, 1), rates.forgotten()), (None, 2));
    }

    #[test]
    fn flows_of_many_users_stay_within_the_budget() {
        let mut rates = Rates::new(100_000);
        let of = rate(RateOf::Flows, 1_024);
        for user in 0..600u32 {
            for flow in 0..500 {
                rates.count((user, KEY.1), of, 0, flow);
            }
        }
        assert!(rates.marks <= MAX_MARKS && rates.forgotten() > 0, "{}", rates.marks);
        let held: usize = rates
            .counts
            .iter()
            .map(|(_, count)| match count {
                Count::Flows(flows) => flows.len(),
                Count::Sum(_) => 0,
            })
            .sum();
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
                let counted = sums.count(KEY, rate(RateOf::Bytes, at_least), time, amount);
                prop_assert_eq!(counted, crosses.then_some(sum + amount));

                earlier.push((time / 10, amount));
                let distinct: HashSet<u64> = recent.iter().map(|(_, flow)| *flow).collect();
                let with: HashSet<u64> = distinct.iter().copied().chain([amount]).collect();
                let (before, after) = (distinct.len() as u64, with.len() as u64);
                let counted = flows.count(KEY, rate(RateOf::Flows, at_least), time, amount);
                let crosses = before < at_least && after >= at_least;
                prop_assert_eq!(counted, crosses.then_some(after));
            }
        }
    }
}
