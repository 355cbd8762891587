//! `every`: at most one event for a rule and a user in a time.

use std::{num::NonZeroUsize, time::Duration};

use lru::LruCache;

use super::RuleAndUser;

/// When rules last fired for users, the longest unused of which gives way.
#[derive(Debug)]
pub(super) struct Windows {
    fired: LruCache<RuleAndUser, u64>,
    forgotten: u64,
}

impl Windows {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { fired: LruCache::new(most), forgotten: 0 }
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether the rule fired within this time before; else it fires now.
    pub(super) fn within(&mut self, key: RuleAndUser, every: Duration, time_ns: u64) -> bool {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        // What is older than the last event, as CPUs report out of order, is within its window too.
        if let Some(last) = self.fired.get(&key)
            && time_ns.saturating_sub(*last) < every
        {
            return true;
        }
        if let Some((other, _)) = self.fired.push(key, time_ns)
            && other != key
        {
            self.forgotten += 1;
        }
        false
    }
}
