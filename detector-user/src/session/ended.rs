//! Sessions that are over, of which a record may still come late.

use std::collections::{HashMap, VecDeque};

use detector_common::state::SessionKey;

/// The sessions that ended last. Late records are read at the next look at the ring, so a few would
/// do; a thousand are remembered.
#[derive(Default)]
pub(super) struct EndedLately {
    pub(super) starts: HashMap<SessionKey, u64>,
    pub(super) order: VecDeque<(SessionKey, u64)>,
}

impl EndedLately {
    pub(super) const KEPT: usize = 1_024;

    pub(super) fn note(&mut self, key: SessionKey, start_ns: u64) {
        self.starts.insert(key, start_ns);
        self.order.push_back((key, start_ns));
        if self.order.len() > Self::KEPT
            && let Some((key, start_ns)) = self.order.pop_front()
            && self.since(&key) == Some(start_ns)
        {
            self.starts.remove(&key);
        }
    }

    /// When the key's session that ended last had begun.
    pub(super) fn since(&self, key: &SessionKey) -> Option<u64> {
        self.starts.get(key).copied()
    }
}
