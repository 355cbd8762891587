//! Rates of all that passes between a user and an application. The kernel counts it in the session,
//! and here that count is looked at, once in each step of a rule's window: no packet is shown for it.
//!
//! Looks are due at whole multiples of the step, where the rate's own slots begin, so that what came
//! in between belongs to one slot. A session in which nothing passes is looked at less often; what is
//! found then counts as from the begin of that time, which may make a rate late and never too high.

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
};

use detector_common::{
    packet::Direction,
    state::{SessionKey, SessionSnapshot},
};

use crate::rules::{
    model::Rule,
    term::{RateOf, RateTerm},
};

/// After so many looks that found nothing, only every fourth is made.
const QUIET: u32 = 2;
const SELDOM: u64 = 4;

/// A session and a rule, by its stable id.
pub(super) type Counted = (SessionKey, u32);

/// What is known of one.
struct Look {
    /// When the session began.
    start_ns: u64,
    /// What had passed at the last look.
    counted: u64,
    /// Where the first slot begins that was not looked at.
    since_ns: u64,
    /// Looks that found nothing.
    quiet: u32,
    /// The one entry of [`Sums::deadlines`] that counts.
    due_ns: u64,
}

/// What passed since the last look.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Passed {
    /// Packets or bytes.
    pub(super) amount: u64,
    /// From when on, on the packet path's clock.
    pub(super) since_ns: u64,
}

/// All looks that are to be made.
#[derive(Default)]
pub(super) struct Sums {
    looks: HashMap<Counted, Look>,
    deadlines: BinaryHeap<Reverse<(u64, [u8; size_of::<SessionKey>()], u32)>>,
}

impl Sums {
    /// From `now_ns` on, looks at a session of which so much has been counted already. One that is
    /// looked at goes on as it was.
    pub(super) fn begin(
        &mut self,
        of: Counted,
        start_ns: u64,
        counted: u64,
        now_ns: u64,
        step_ns: u64,
    ) {
        if self.looks.get(&of).is_some_and(|look| look.start_ns == start_ns) {
            return;
        }
        let since_ns = now_ns - now_ns % step_ns;
        let due_ns = since_ns.saturating_add(step_ns);
        self.looks.insert(of, Look { start_ns, counted, since_ns, quiet: 0, due_ns });
        self.schedule(of, due_ns);
    }

    fn schedule(&mut self, (session, rule): Counted, due_ns: u64) {
        self.deadlines.push(Reverse((due_ns, zerocopy::transmute!(session), rule)));
    }

    /// The next look that is due by now, with the time it was due at.
    pub(super) fn due(&mut self, now_ns: u64) -> Option<(Counted, u64)> {
        loop {
            let Reverse((due_ns, session, rule)) = *self.deadlines.peek()?;
            if due_ns > now_ns {
                return None;
            }
            self.deadlines.pop();
            let of = (zerocopy::transmute!(session), rule);
            if self.looks.get(&of).is_some_and(|look| look.due_ns == due_ns) {
                return Some((of, due_ns));
            }
        }
    }

    /// Makes a look: `total` has passed in the session by now. Gives what is new, if anything.
    pub(super) fn look(&mut self, of: Counted, total: u64, step_ns: u64) -> Option<Passed> {
        let look = self.looks.get_mut(&of)?;
        let passed = look.take(total);
        look.quiet = if passed.is_some() { 0 } else { look.quiet.saturating_add(1) };
        look.since_ns = look.due_ns;
        look.due_ns += step_ns * if look.quiet < QUIET { 1 } else { SELDOM };
        let due_ns = look.due_ns;
        self.schedule(of, due_ns);
        passed
    }

    /// The session that began at `start_ns` has ended with this total.
    pub(super) fn end(&mut self, of: Counted, start_ns: u64, total: u64) -> Option<Passed> {
        if self.looks.get(&of)?.start_ns != start_ns {
            return None;
        }
        self.looks.remove(&of)?.take(total)
    }

    /// Makes no more looks.
    pub(super) fn forget(&mut self, of: &Counted) {
        self.looks.remove(of);
    }

    /// When the session that is looked at began.
    pub(super) fn start_ns(&self, of: &Counted) -> Option<u64> {
        self.looks.get(of).map(|look| look.start_ns)
    }
}

impl Look {
    fn take(&mut self, total: u64) -> Option<Passed> {
        let amount = total.saturating_sub(self.counted);
        self.counted = total.max(self.counted);
        (amount != 0).then_some(Passed { amount, since_ns: self.since_ns })
    }
}

/// What of a session a rule counts.
pub(super) fn total(rule: &Rule, rate: RateTerm, session: &SessionSnapshot) -> u64 {
    let of = match rate.of {
        RateOf::Packets | RateOf::Flows => session.packets,
        RateOf::Bytes => session.bytes,
    };
    match rule.direction {
        Some(way @ (Direction::Uplink | Direction::Downlink)) => of[way as usize],
        None => of[0] + of[1],
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const OF: Counted = (
        SessionKey { ue: detector_common::packet::Address([0, 1]), application: 1, reserved: 0 },
        7,
    );

    /// Looks at all that is due by then; `totals` says what had passed when.
    fn until(sums: &mut Sums, now_ns: u64, totals: impl Fn(u64) -> u64) -> Vec<(u64, u64)> {
        let mut found = Vec::new();
        while let Some((of, due_ns)) = sums.due(now_ns) {
            found.extend(sums.look(of, totals(due_ns), 100).map(|p| (p.since_ns, p.amount)));
        }
        found
    }

    #[test]
    fn what_passes_is_counted_in_the_slot_in_which_it_passed() {
        let mut sums = Sums::default();
        sums.begin(OF, 1, 0, 250, 100);
        let totals = |at| if at <= 300 { 5 } else { 12 };
        assert_eq!(until(&mut sums, 299, totals), []);
        assert_eq!(until(&mut sums, 450, totals), [(200, 5), (300, 7)]);
    }

    #[test]
    fn a_quiet_session_is_looked_at_less_often_and_nothing_is_lost() {
        let mut sums = Sums::default();
        sums.begin(OF, 1, 0, 0, 100);
        let mut looks = 0;
        while let Some((of, _)) = sums.due(2_000) {
            looks += 1;
            assert_eq!(sums.look(of, 0, 100), None);
        }
        assert_eq!(looks, 6, "100, 200, 600, 1000, 1400, 1800");
        assert_eq!(until(&mut sums, 2_250, |_| 9), [(1_800, 9)], "as from the last look on");
        assert_eq!(until(&mut sums, 2_300, |_| 10), [(2_200, 1)], "and then in each step again");
    }

    #[test]
    fn the_rest_is_counted_when_the_session_ends_and_another_is_another() {
        let mut sums = Sums::default();
        sums.begin(OF, 1, 3, 50, 100);
        sums.begin(OF, 1, 0, 60, 100);
        assert_eq!(sums.end(OF, 2, 10), None, "of another session");
        assert_eq!(sums.end(OF, 1, 10), Some(Passed { amount: 7, since_ns: 0 }));
        assert_eq!((sums.end(OF, 1, 10), sums.due(1_000)), (None, None));
    }
}
