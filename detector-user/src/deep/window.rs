//! `every`: at most one event for a rule and a user in a time.

use std::{collections::HashSet, num::NonZeroUsize, time::Duration};

use lru::LruCache;

use super::lately::Lately;
use crate::source::deep_notes::{LatelyFired, RuleAndUser};

/// When rules last fired for users, the longest unused of which gives way.
#[derive(Debug)]
pub(super) struct Windows {
    fired: LruCache<RuleAndUser, Lately>,
    forgotten: u64,
    /// Since it was asked for; only if somebody asks.
    changed: Option<HashSet<RuleAndUser>>,
}

impl Windows {
    pub(super) fn new(most: usize) -> Self {
        let most = NonZeroUsize::new(most).unwrap_or(NonZeroUsize::MIN);
        Self { fired: LruCache::new(most), forgotten: 0, changed: None }
    }

    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten
    }

    /// Whether the rule fired within this time before; else it fires now.
    pub(super) fn within(&mut self, key: RuleAndUser, every: Duration, time_ns: u64) -> bool {
        let every = u64::try_from(every.as_nanos()).unwrap_or(u64::MAX);
        if let Some(lately) = self.fired.get_mut(&key) {
            if lately.again(time_ns).is_some() {
                return false;
            }
            // What is older than the last event, as CPUs report out of order, is within its window
            // too.
            if time_ns.saturating_sub(lately.newest()) < every {
                return true;
            }
        }
        self.room(key).fire(time_ns, 0);
        self.note_change(key);
        false
    }

    fn room(&mut self, key: RuleAndUser) -> &mut Lately {
        if !self.fired.contains(&key)
            && self.fired.len() == self.fired.cap().get()
            && let Some((other, _)) = self.fired.pop_lru()
        {
            self.forgotten += 1;
            self.note_change(other);
        }
        self.fired.get_or_insert_mut(key, Lately::default)
    }

    fn note_change(&mut self, key: RuleAndUser) {
        if let Some(changed) = self.changed.as_mut() {
            changed.insert(key);
        }
    }

    /// From here on, remembers what changes.
    pub(super) fn track_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// What changed since the last time; `None` for what is forgotten.
    pub(super) fn take_changed(&mut self) -> Vec<(RuleAndUser, Option<LatelyFired>)> {
        let changed = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        changed.into_iter().map(|key| (key, self.fired.peek(&key).map(Lately::note))).collect()
    }

    /// Goes on from what an agent before has noted.
    pub(super) fn adopt(&mut self, key: RuleAndUser, note: LatelyFired) {
        *self.room(key) = Lately::adopt(note);
    }
}
