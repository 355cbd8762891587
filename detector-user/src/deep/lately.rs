//! When a rule fired lately: for the next agent, which may read the same records again.

use crate::source::deep_notes::{FIRED, Fired, LatelyFired};

/// Of one rule and user.
#[derive(Debug, Default)]
pub(super) struct Lately {
    fired: LatelyFired,
    /// By an agent before, and not yet told again.
    again: Vec<Fired>,
}

impl Lately {
    /// Goes on from what an agent before has noted.
    pub(super) fn adopt(fired: LatelyFired) -> Self {
        let again = fired.into_iter().filter(|fired| fired.time_ns != 0).collect();
        Self { fired, again }
    }

    pub(super) fn fire(&mut self, time_ns: u64, count: u64) {
        self.fired.copy_within(..FIRED - 1, 1);
        self.fired[0] = Fired { time_ns, count };
    }

    /// The count with which an agent before fired on what passed then: it is to be told again, once.
    pub(super) fn again(&mut self, time_ns: u64) -> Option<u64> {
        let place = self.again.iter().position(|fired| fired.time_ns == time_ns)?;
        Some(self.again.swap_remove(place).count)
    }

    /// The last time.
    pub(super) fn newest(&self) -> u64 {
        self.fired[0].time_ns
    }

    pub(super) fn note(&self) -> LatelyFired {
        self.fired
    }
}
