//! Sessions that were taken out of the packet path's table and are not told to have ended: more
//! records of them may come. A packet that passes in that very moment still belongs to its session,
//! and an agent that was killed had read records that its successor has yet to read again.

use std::collections::HashMap;

use detector_common::state::SessionKey;

use super::{EndedSession, OpenSession};
use crate::source::session_notes::NoteKey;

/// A packet that had looked its session up before this was taken out has written its record after
/// so long, in ns. A program takes microseconds; it may have to wait for its virtual CPU.
const LATE_NS: u64 = 10_000_000;

/// Up to where the ring was read.
#[derive(Clone, Copy, Debug)]
pub struct ReadUpTo {
    /// A position in the ring.
    pub position: u64,
    /// What was recorded before was read, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
}

#[derive(Default)]
pub(super) struct Leaving {
    sessions: HashMap<NoteKey, Left>,
    /// How many have come.
    turns: u64,
}

struct Left {
    ended: EndedSession,
    turn: u64,
    /// Since when the packet path no longer has it; `None` as long as it may.
    taken_out_ns: Option<u64>,
}

impl Left {
    fn is_read(&self, position: u64) -> bool {
        self.ended.session.adopted_at.is_none_or(|adopted| adopted <= position)
    }

    fn is_over(&self, read: ReadUpTo) -> bool {
        let late = |out: u64| out.saturating_add(LATE_NS) <= read.time_ns;
        self.is_read(read.position) && self.taken_out_ns.is_some_and(late)
    }
}

impl Leaving {
    pub(super) fn add(&mut self, session: SessionKey, ended: EndedSession) {
        let key = NoteKey { session, start_ns: ended.session.start_ns };
        self.turns += 1;
        let left = Left { ended, turn: self.turns, taken_out_ns: None };
        self.sessions.insert(key, left);
    }

    pub(super) fn get(&self, session: &SessionKey, start_ns: u64) -> Option<&EndedSession> {
        let key = NoteKey { session: *session, start_ns };
        self.sessions.get(&key).map(|left| &left.ended)
    }

    pub(super) fn get_mut(
        &mut self,
        session: &SessionKey,
        start_ns: u64,
    ) -> Option<&mut OpenSession> {
        let key = NoteKey { session: *session, start_ns };
        self.sessions.get_mut(&key).map(|left| &mut left.ended.session)
    }

    /// The packet path has had none of them since `now_ns`, at the latest.
    pub(super) fn taken_out(&mut self, now_ns: u64) {
        for left in self.sessions.values_mut() {
            left.taken_out_ns.get_or_insert(now_ns);
        }
    }

    /// Those of which all has been read, in the order in which they came.
    pub(super) fn take_over(&mut self, read: ReadUpTo) -> Vec<(NoteKey, EndedSession)> {
        self.take(|_, left| left.is_over(read))
    }

    /// Those of a user and application that has begun a new one, at this position.
    pub(super) fn take_of(
        &mut self,
        session: &SessionKey,
        position: u64,
    ) -> Vec<(NoteKey, EndedSession)> {
        self.take(|key, left| key.session == *session && left.is_read(position))
    }

    /// All of them.
    pub(super) fn take_all(&mut self) -> Vec<(NoteKey, EndedSession)> {
        self.take(|_, _| true)
    }

    fn take(&mut self, which: impl Fn(&NoteKey, &Left) -> bool) -> Vec<(NoteKey, EndedSession)> {
        let taken = self.sessions.extract_if(|key, left| which(key, left));
        let mut taken: Vec<(NoteKey, Left)> = taken.collect();
        taken.sort_by_key(|(_, left)| left.turn);
        taken.into_iter().map(|(key, left)| (key, left.ended)).collect()
    }
}
