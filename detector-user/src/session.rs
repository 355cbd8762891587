//! Sessions: the time a user uses an application. The kernel counts their packets; this table
//! knows who they are and finds out when they end.
//!
//! Nothing is swept: each session has one deadline, and when it comes the kernel is asked when the
//! last packet passed. If that was long enough ago the session has ended, else the deadline moves.

mod ended;
mod ending;
mod leaving;
mod notes;

use std::{
    cmp::Reverse,
    collections::{BinaryHeap, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

use detector_common::state::{SessionKey, SessionSnapshot};
use uuid::Uuid;

use ended::EndedLately;
use leaving::Leaving;
pub use leaving::ReadUpTo;
use notes::Changes;
pub use notes::SessionChanges;

use crate::{
    decode::Record,
    detection::{Flow, SessionEnd, Tunnel},
    rules::{
        compile::{address, stable_id},
        model::Application,
    },
};

/// Deadlines that no longer count are swept when there are so many, and more than those that do.
const STALE_DEADLINES: usize = 1_024;

/// An open session.
#[derive(Clone, Debug)]
pub struct OpenSession {
    /// Stable and unique, see [`SessionTable::new`].
    pub id: String,
    /// The application used.
    pub application: Arc<Application>,
    /// When the UE's first packet passed, in ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// The device that saw it.
    pub ifindex: u32,
    /// Its first packet's flow.
    pub flow: Flow,
    /// Its first packet's tunnel.
    pub tunnel: Option<Tunnel>,
    /// Its first packet's VLAN.
    pub vlan: Option<u16>,
    /// Detections so far.
    pub detections: u64,
    /// The last packet that was known of, for sessions the kernel has forgotten.
    seen: SessionSnapshot,
    quiet: bool,
    /// The one entry of [`SessionTable::deadlines`] that counts; its others are stale.
    deadline: u64,
    /// Where the record stands that opened it, see [`SessionTable::reading`].
    opened_at: u64,
    /// Taken over from another agent, which had counted its detections up to there.
    adopted_at: Option<u64>,
}

impl OpenSession {
    /// What the kernel knows it by.
    pub fn key(&self) -> SessionKey {
        let application = stable_id(&self.application.name);
        SessionKey { ue: address(self.flow.ue_ip), application, reserved: 0 }
    }
}

/// A session that has ended.
#[derive(Clone, Debug)]
pub struct EndedSession {
    /// What it was.
    pub session: OpenSession,
    /// What it amounted to.
    pub end: SessionEnd,
    /// The same as the kernel counted it.
    pub state: SessionSnapshot,
    /// When its last packet passed, in ns of CLOCK_MONOTONIC.
    pub last_ns: u64,
}

/// All open sessions.
pub struct SessionTable {
    seed: Uuid,
    open: HashMap<SessionKey, OpenSession>,
    ended: EndedLately,
    leaving: Leaving,
    /// Up to where in the ring another agent had read.
    read_before: u64,
    /// What changed since it was asked for; only if somebody asks.
    changed: Option<Changes>,
    /// Where the record stands that is being read.
    position: u64,
    deadlines: BinaryHeap<Reverse<(u64, u64, [u8; size_of::<SessionKey>()])>>,
}

impl SessionTable {
    /// An empty table. `seed` must differ from boot to boot: a session's id is a hash of it, the UE,
    /// the application and the start on the monotonic clock.
    pub fn new(seed: Uuid) -> Self {
        Self {
            seed,
            open: HashMap::new(),
            ended: EndedLately::default(),
            leaving: Leaving::default(),
            read_before: 0,
            changed: None,
            position: 0,
            deadlines: BinaryHeap::new(),
        }
    }

    /// The next record stands at this position of the ring.
    pub fn reading(&mut self, position: u64) {
        self.position = position;
    }

    /// How many are open.
    pub fn len(&self) -> usize {
        self.open.len()
    }

    /// All that are open.
    pub fn iter(&self) -> impl Iterator<Item = (&SessionKey, &OpenSession)> {
        self.open.iter()
    }

    /// Whether none is open.
    pub fn is_empty(&self) -> bool {
        self.open.is_empty()
    }

    /// The session that began at `start_ns`, if it is open.
    pub fn get_mut(&mut self, key: &SessionKey, start_ns: u64) -> Option<&mut OpenSession> {
        self.open.get_mut(key).filter(|session| session.start_ns == start_ns)
    }

    /// Opens the record's session, unless it is open or has ended: a packet that passed while the
    /// session was taken out of the kernel's table still says that it belongs to it. Gives those
    /// that were there before under the same key: that one has begun says that they are over.
    pub fn open(
        &mut self,
        record: &Record<'_>,
        start_ns: u64,
        application: Arc<Application>,
    ) -> Vec<EndedSession> {
        let key = record.session;
        let not_older = self.open.get(&key).is_some_and(|open| start_ns <= open.start_ns);
        let has_ended = self.ended.since(&key).is_some_and(|last| start_ns <= last)
            || self.leaving.get(&key, start_ns).is_some();
        if not_older || has_ended {
            return Vec::new();
        }
        let mut before = self.left_before(&key);
        let deadline = start_ns.saturating_add(nanos(application.session.idle));
        let session = OpenSession {
            id: self.id(record.flow.ue_ip, &application, start_ns),
            application,
            start_ns,
            ifindex: record.ifindex,
            flow: record.flow,
            tunnel: record.tunnel,
            vlan: record.vlan,
            detections: 0,
            seen: SessionSnapshot { start_ns, last_ns: start_ns, ..SessionSnapshot::default() },
            quiet: false,
            deadline,
            opened_at: self.position,
            adopted_at: None,
        };
        // The kernel has forgotten it.
        before.extend(self.open.insert(key, session).map(|forgotten| self.forget(&key, forgotten)));
        self.note_change(&key, start_ns);
        self.schedule(&key, start_ns, deadline);
        before
    }

    /// The id of a session, open or not.
    pub fn id(&self, ue: IpAddr, application: &Application, start_ns: u64) -> String {
        let name = format!("{ue} {} {start_ns}", application.name);
        Uuid::new_v5(&self.seed, name.as_bytes()).to_string()
    }

    /// The session's last TCP connection was closed at `now_ns`: it ends after its linger time.
    pub fn quiet(&mut self, key: &SessionKey, start_ns: u64, now_ns: u64) {
        let Some(session) = self.get_mut(key, start_ns) else { return };
        session.quiet = true;
        let open_until = session.deadline;
        let deadline = now_ns.saturating_add(nanos(session.application.session.linger));
        // A look that comes earlier finds the session quiet, and looks again when it must.
        if deadline < open_until {
            self.schedule(key, start_ns, deadline);
        }
        self.note_change(key, start_ns);
    }

    /// A rule matched a packet of the session.
    pub fn detected(&mut self, key: &SessionKey, start_ns: u64) {
        let position = self.position;
        let open = self.open.get_mut(key).filter(|session| session.start_ns == start_ns);
        let counts =
            |it: &&mut OpenSession| it.adopted_at.is_none_or(|adopted| position >= adopted);
        if let Some(session) = open.or(self.leaving.get_mut(key, start_ns)).filter(counts) {
            session.detections += 1;
            self.note_change(key, start_ns);
        }
    }

    fn note_change(&mut self, key: &SessionKey, start_ns: u64) {
        if let Some(changed) = self.changed.as_mut() {
            changed.going(*key, start_ns);
        }
    }

    fn schedule(&mut self, key: &SessionKey, start_ns: u64, deadline: u64) {
        let Some(session) = self.get_mut(key, start_ns) else { return };
        session.deadline = deadline;
        self.deadlines.push(Reverse((deadline, start_ns, zerocopy::transmute!(*key))));
        if self.deadlines.len() > 2 * self.open.len() + STALE_DEADLINES {
            self.deadlines.retain(|Reverse((deadline, start_ns, key))| {
                let key: SessionKey = zerocopy::transmute!(*key);
                self.open
                    .get(&key)
                    .is_some_and(|it| (it.deadline, it.start_ns) == (*deadline, *start_ns))
            });
        }
    }
}

fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
mod tests;
