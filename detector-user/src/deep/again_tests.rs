//! Windows and rates over a kill: an agent that reads some of the records again tells what one agent
//! would have told that had read all of them once.

use std::{
    collections::HashMap,
    net::{IpAddr, Ipv4Addr},
    time::Duration,
};

use proptest::prelude::*;

use super::{
    rate::{Amount, Rates},
    window::Windows,
};
use crate::{
    rules::term::{RateOf, RateTerm},
    source::deep_notes::{DeepChanges, FIRED, LatelyFired, RateNote, RuleAndUser},
};

const USERS: u8 = 2;
const EVERY: Duration = Duration::from_nanos(40);

/// One record, and what it shows.
#[derive(Clone, Copy, Debug)]
struct Seen {
    user: u8,
    time_ns: u64,
    amount: u64,
}

impl Seen {
    fn key(&self) -> RuleAndUser {
        (7, IpAddr::V4(Ipv4Addr::from([10, 60, 0, self.user])))
    }
}

/// What survives an agent.
#[derive(Default)]
struct Store {
    windows: HashMap<RuleAndUser, LatelyFired>,
    rates: HashMap<RuleAndUser, RateNote>,
    flows: HashMap<(RuleAndUser, u64), u64>,
}

impl Store {
    fn write(&mut self, changes: DeepChanges) {
        keep(&mut self.windows, changes.windows);
        keep(&mut self.rates, changes.rates);
        keep(&mut self.flows, changes.flows);
    }
}

fn keep<K: std::hash::Hash + Eq, V>(map: &mut HashMap<K, V>, changes: Vec<(K, Option<V>)>) {
    for (key, value) in changes {
        match value {
            Some(value) => drop(map.insert(key, value)),
            None => drop(map.remove(&key)),
        }
    }
}

/// An agent, with a rule of each kind.
struct Agent {
    windows: Windows,
    rates: Rates,
    of: RateTerm,
}

impl Agent {
    fn new(of: RateTerm, store: &Store) -> Self {
        let mut agent = Self { windows: Windows::new(8), rates: Rates::new(8), of };
        agent.windows.track_changes();
        agent.rates.track_changes();
        store.windows.iter().for_each(|(key, note)| agent.windows.adopt(*key, *note));
        store.rates.iter().for_each(|(key, note)| agent.rates.adopt(*key, note));
        let flows = store.flows.iter();
        flows.for_each(|((key, mark), slot)| agent.rates.adopt_flow(*key, *mark, *slot));
        agent
    }

    /// Whether the rule with a window fires on the record, and with which count the one with a rate.
    fn read(&mut self, position: u64, seen: Seen) -> (bool, Option<u64>) {
        let fires = !self.windows.within(seen.key(), EVERY, seen.time_ns);
        let Seen { time_ns, amount, .. } = seen;
        let what = Amount { amount, time_ns, position };
        (fires, self.rates.count(seen.key(), self.of, what))
    }

    fn changes(&mut self, read_to: u64) -> DeepChanges {
        let windows = self.windows.take_changed();
        let mut changes = DeepChanges { windows, ..DeepChanges::default() };
        self.rates.take_changed(read_to, &mut changes);
        changes
    }
}

/// The positions of records are some way apart.
fn position(number: usize) -> u64 {
    1_000 + number as u64 * 64
}

fn record() -> impl Strategy<Value = (u64, u8, u64)> {
    (1u64..30, 0..USERS, 0u64..4)
}

proptest! {
    #[test]
    fn a_kill_changes_nothing_of_what_rules_tell(
        steps in prop::collection::vec(record(), 2..60),
        kills in prop::collection::vec((0usize..60, 0usize..8), 1..4),
        flows: bool, at_least in 2u64..6,
    ) {
        let of = if flows { RateOf::Flows } else { RateOf::Bytes };
        let of = RateTerm { of, at_least, window: Duration::from_nanos(160) };
        let mut time_ns = 1_000;
        let records: Vec<Seen> = steps
            .into_iter()
            .map(|(pause, user, amount)| {
                time_ns += pause;
                Seen { user, time_ns, amount }
            })
            .collect();
        let mut once = Agent::new(of, &Store::default());
        let expected: Vec<_> =
            (0..).zip(&records).map(|(n, seen)| once.read(position(n), *seen)).collect();

        let mut store = Store::default();
        let mut agent = Agent::new(of, &store);
        let mut kills: Vec<_> = kills.into_iter().filter(|(at, _)| *at < records.len()).collect();
        kills.sort_unstable();
        let (mut next, mut pending) = (0, kills.into_iter().peekable());
        while next < records.len() {
            let told = agent.read(position(next), records[next]);
            prop_assert_eq!(told, expected[next], "record {} of {:?}", next, &records);
            next += 1;
            store.write(agent.changes(position(next)));
            if let Some((_, back)) = pending.next_if(|(at, _)| next > *at) {
                // No more than so many unsettled firings of a rule and user are remembered.
                let mut from = next;
                let fired = |from: usize, user: u8| {
                    let of_user = (from..next).filter(|n| records[*n].user == user);
                    let (windows, rates): (Vec<bool>, Vec<bool>) =
                        of_user.map(|n| (expected[n].0, expected[n].1.is_some())).unzip();
                    let count = |all: &[bool]| all.iter().filter(|fired| **fired).count();
                    count(&windows).max(count(&rates))
                };
                while from > 0 && next - from < back && (0..USERS).all(|it| fired(from - 1, it) <= FIRED) {
                    from -= 1;
                }
                agent = Agent::new(of, &store);
                next = from;
            }
        }
    }
}

#[test]
fn without_notes_a_window_opens_twice_and_a_rate_begins_anew() {
    let of = RateTerm { of: RateOf::Bytes, at_least: 2, window: Duration::from_nanos(160) };
    let seen = |time_ns| Seen { user: 0, time_ns, amount: 1 };
    let mut first = Agent::new(of, &Store::default());
    assert_eq!(first.read(position(0), seen(1_000)), (true, None));
    let mut store = Store::default();
    store.write(first.changes(position(1)));
    assert_eq!(Agent::new(of, &store).read(position(1), seen(1_001)), (false, Some(2)));
    let nothing = Store::default();
    assert_eq!(Agent::new(of, &nothing).read(position(1), seen(1_001)), (true, None));
}
