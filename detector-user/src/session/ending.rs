//! How sessions end. Each is looked at when its deadline comes; those that leave the table go by
//! way of [`super::leaving`].

use std::{cmp::Reverse, time::Duration};

use detector_common::state::{SessionKey, SessionSnapshot};

use super::{EndedSession, OpenSession, SessionTable, leaving::ReadUpTo, nanos};
use crate::{
    detection::{SessionEnd, SessionEndReason},
    rules::model::Application,
    source::{session_map::Sessions, session_notes::NoteKey},
};

/// So many times as many sessions may be open as the packet path has room for: those that it has
/// forgotten wait here for their deadline.
const FORGOTTEN_TOO: usize = 2;

impl SessionTable {
    /// Looks at the sessions whose deadline has come; gives those that have ended. Where too many are
    /// open, those whose deadline comes next have.
    pub fn expire(&mut self, now_ns: u64, kernel: &mut dyn Sessions) -> Vec<EndedSession> {
        let mut all = self.evict_to(FORGOTTEN_TOO * kernel.room(), kernel);
        while let Some(Reverse((deadline, start_ns, key))) = self.deadlines.peek().copied() {
            if deadline > now_ns {
                break;
            }
            self.deadlines.pop();
            let key: SessionKey = zerocopy::transmute!(key);
            if self.get_mut(&key, start_ns).is_none_or(|session| session.deadline != deadline) {
                continue;
            }
            all.extend(self.check(&key, start_ns, now_ns, kernel));
        }
        all
    }

    /// Ends those whose deadline comes next, one in eight, as memory is short.
    pub fn give_way(&mut self, kernel: &mut dyn Sessions) -> Vec<EndedSession> {
        let most = self.open.len() * 7 / 8;
        let ended = self.evict_to(most, kernel);
        self.open.shrink_to(2 * most);
        self.deadlines.shrink_to(2 * most);
        ended
    }

    fn evict_to(&mut self, most: usize, kernel: &mut dyn Sessions) -> Vec<EndedSession> {
        let mut all = Vec::new();
        while self.open.len() > most
            && let Some(Reverse((deadline, start_ns, key))) = self.deadlines.pop()
        {
            all.extend(self.evict(&zerocopy::transmute!(key), start_ns, deadline, kernel));
        }
        all
    }

    fn evict(
        &mut self,
        key: &SessionKey,
        start_ns: u64,
        deadline: u64,
        kernel: &mut dyn Sessions,
    ) -> Option<EndedSession> {
        self.get_mut(key, start_ns).filter(|session| session.deadline == deadline)?;
        let session = self.open.remove(key)?;
        let state = current(&session, kernel.get(key)).unwrap_or(session.seen);
        kernel.remove(key);
        self.leave(key, ended(session, &state, SessionEndReason::Evicted), kernel)
    }

    /// Ends every session whose application `gone` says is no longer watched, or all of them.
    pub fn end_all(
        &mut self,
        gone: impl Fn(&Application) -> bool,
        kernel: &mut dyn Sessions,
    ) -> Vec<EndedSession> {
        let mut keys: Vec<SessionKey> = self
            .open
            .iter()
            .filter(|(_, session)| gone(&session.application))
            .map(|(key, _)| *key)
            .collect();
        // In the order in which they began, so that two replays tell it the same way.
        keys.sort_by_key(|key| (self.open[key].start_ns, key.ue.0, key.application));
        let end = |key: SessionKey| {
            let session = self.open.remove(&key)?;
            let state = current(&session, kernel.get(&key)).unwrap_or(session.seen);
            kernel.remove(&key);
            self.leave(&key, ended(session, &state, SessionEndReason::Stopped), kernel)
        };
        keys.into_iter().filter_map(end).collect()
    }

    fn check(
        &mut self,
        key: &SessionKey,
        start_ns: u64,
        now_ns: u64,
        kernel: &mut dyn Sessions,
    ) -> Option<EndedSession> {
        let session = self.get_mut(key, start_ns)?;
        let Some(state) = current(session, kernel.get(key)) else {
            let session = self.open.remove(key)?;
            let seen = session.seen;
            return self.leave(key, ended(session, &seen, SessionEndReason::Evicted), kernel);
        };
        session.seen = state;
        session.quiet &= state.open_connections == 0;
        let policy = session.application.session;
        let (wait, reason) = if session.quiet && policy.linger < policy.idle {
            (policy.linger, SessionEndReason::Closed)
        } else {
            (policy.idle, SessionEndReason::Idle)
        };
        let deadline = state.last_ns.max(state.start_ns).saturating_add(nanos(wait));
        if deadline > now_ns {
            self.schedule(key, start_ns, deadline);
            return None;
        }
        let session = self.open.remove(key)?;
        kernel.remove(key);
        self.leave(key, ended(session, &state, reason), kernel)
    }

    /// A session has left the table: it is over at once, or when [`Self::left`] says so.
    fn leave(
        &mut self,
        key: &SessionKey,
        ended: EndedSession,
        kernel: &dyn Sessions,
    ) -> Option<EndedSession> {
        self.ended.note(*key, ended.session.start_ns);
        if !kernel.has_late_records() {
            return Some(self.over(*key, ended));
        }
        self.note_change(key, ended.session.start_ns);
        self.leaving.add(*key, ended);
        None
    }

    /// Sessions that have ended are no longer in the packet path's table, since `now_ns` at the latest.
    pub fn taken_out(&mut self, now_ns: u64) {
        self.leaving.taken_out(now_ns);
    }

    /// The sessions that have left before, and of which nothing more can be read; also those that had
    /// ended when another agent was killed, once all that it had read of them was read again.
    pub fn left(&mut self, read: ReadUpTo) -> Vec<EndedSession> {
        let left = self.leaving.take_over(read);
        self.all_over(left)
    }

    /// All that have left: nothing is read any longer.
    pub fn all_left(&mut self) -> Vec<EndedSession> {
        let left = self.leaving.take_all();
        self.all_over(left)
    }

    /// Those whose user has begun anew with the record that is being read.
    pub(super) fn left_before(&mut self, key: &SessionKey) -> Vec<EndedSession> {
        let left = self.leaving.take_of(key, self.position);
        self.all_over(left)
    }

    /// The kernel has forgotten a session, and its user has begun anew.
    pub(super) fn forget(&mut self, key: &SessionKey, session: OpenSession) -> EndedSession {
        let seen = session.seen;
        self.over(*key, ended(session, &seen, SessionEndReason::Evicted))
    }

    fn all_over(&mut self, left: Vec<(NoteKey, EndedSession)>) -> Vec<EndedSession> {
        let over = |(key, ended): (NoteKey, EndedSession)| {
            self.ended.note(key.session, key.start_ns);
            self.over(key.session, ended)
        };
        left.into_iter().map(over).collect()
    }

    fn over(&mut self, key: SessionKey, mut ended: EndedSession) -> EndedSession {
        ended.end.detections = ended.session.detections;
        if let Some(changed) = self.changed.as_mut() {
            changed.ended(key, &ended);
        }
        ended
    }
}

/// The kernel's state of this very session: the same key may have begun anew.
fn current(session: &OpenSession, state: Option<SessionSnapshot>) -> Option<SessionSnapshot> {
    state.filter(|state| state.start_ns == session.start_ns)
}

fn ended(session: OpenSession, state: &SessionSnapshot, reason: SessionEndReason) -> EndedSession {
    // The coarse clock may be a tick behind the precise one that the start was read from.
    let last_ns = state.last_ns.max(session.start_ns);
    EndedSession {
        end: SessionEnd {
            duration: Duration::from_nanos(last_ns - session.start_ns),
            packets: state.packets.iter().sum(),
            bytes: state.bytes.iter().sum(),
            detections: session.detections,
            reason,
        },
        last_ns,
        state: *state,
        session,
    }
}
