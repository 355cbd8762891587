//! Sessions that are over and may still be asked for: by records that come late, and by those that an
//! agent that was killed has read and not finished.

use std::collections::{HashMap, VecDeque};

use detector_common::state::SessionKey;

use super::EndedSession;
use crate::source::session_notes::NoteKey;

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

/// Sessions that had ended when another agent was killed, until what that agent had read of them is
/// read again.
#[derive(Default)]
pub(super) struct EndedBefore {
    sessions: HashMap<NoteKey, Before>,
    /// Up to where another agent had read, of sessions open or ended.
    read_before: u64,
}

struct Before {
    /// A position in the ring: the records of the session are before it.
    as_of: u64,
    ended: EndedSession,
}

impl EndedBefore {
    /// Another agent had read up to `as_of` when it noted a session, open or ended.
    pub(super) fn had_read(&mut self, as_of: u64) {
        self.read_before = self.read_before.max(as_of);
    }

    /// Whether what stands there was read before.
    pub(super) fn was_read(&self, position: u64) -> bool {
        position < self.read_before
    }

    pub(super) fn add(&mut self, session: SessionKey, as_of: u64, ended: EndedSession) {
        let key = NoteKey { session, start_ns: ended.session.start_ns };
        self.sessions.insert(key, Before { as_of, ended });
    }

    pub(super) fn get(&self, session: &SessionKey, start_ns: u64) -> Option<&EndedSession> {
        let key = NoteKey { session: *session, start_ns };
        self.sessions.get(&key).map(|before| &before.ended)
    }

    /// Those of which all has been read, in the order in which they began.
    pub(super) fn take_read(&mut self, read_to: u64) -> Vec<(NoteKey, EndedSession)> {
        let read = |_: &NoteKey, it: &mut Before| it.as_of <= read_to;
        let taken = self.sessions.extract_if(read).map(|(key, before)| (key, before.ended));
        let mut taken: Vec<_> = taken.collect();
        taken.sort_by_key(|(key, _)| (key.start_ns, key.session.ue.0, key.session.application));
        taken
    }
}
