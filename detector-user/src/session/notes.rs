//! What agents tell each other of sessions: each change is noted, and the next agent takes it over.
//!
//! An agent that was killed leaves records behind that it had read and not finished; the next one
//! reads them again. Notes say up to where in the ring they speak, so that nothing is counted twice,
//! the begin of a session is told again exactly where it was told before, and its end after all else.

use std::{collections::HashSet, net::IpAddr, sync::Arc, time::Duration};

use detector_common::{
    packet::Address,
    state::{FlowKey, SessionKey, SessionSnapshot},
};

use super::{EndedSession, OpenSession, SessionTable};
use crate::{
    detection::{SessionEnd, SessionEndReason},
    rules::model::Application,
    source::session_notes::{NoteKey, SessionNote, number},
};

/// What the next agent is to know, of the sessions that changed since it was asked for.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct SessionChanges {
    /// Those that are open, or whose end is not told.
    pub going: Vec<(NoteKey, SessionNote)>,
    /// Those whose end is.
    pub told: Vec<(NoteKey, SessionNote)>,
}

/// What changed since it was asked for.
#[derive(Default)]
pub(super) struct Changes {
    going: HashSet<NoteKey>,
    told: Vec<(NoteKey, SessionNote)>,
}

impl Changes {
    pub(super) fn going(&mut self, session: SessionKey, start_ns: u64) {
        self.going.insert(NoteKey { session, start_ns });
    }

    pub(super) fn ended(&mut self, session: SessionKey, ended: &EndedSession) {
        let key = NoteKey { session, start_ns: ended.session.start_ns };
        self.going.remove(&key);
        self.told.push((key, ended.note(&session, 0)));
    }
}

impl SessionTable {
    /// The session that another agent opened at the record that is being read, and has not finished:
    /// its begin is to be told again. It may have ended since.
    pub fn begins_again(&self, key: &SessionKey, start_ns: u64) -> Option<OpenSession> {
        if self.position >= self.read_before {
            return None;
        }
        let adopted = |open: &&OpenSession| open.start_ns == start_ns && open.adopted_at.is_some();
        let open = self.open.get(key).filter(adopted);
        let known = open.or(self.leaving.get(key, start_ns).map(|ended| &ended.session));
        known.filter(|session| session.opened_at == self.position).cloned()
    }

    /// From here on, remembers what changes.
    pub fn track_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// The sessions that changed since the last time, as they are or ended when the ring had been
    /// read up to `read_to`.
    pub fn take_changed(&mut self, read_to: u64) -> SessionChanges {
        let Changes { going, told } = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let note = |key: NoteKey| {
            let open = self.open.get(&key.session).filter(|it| it.start_ns == key.start_ns);
            let open = open.map(|session| session.note(&key.session, read_to));
            let ended = self.leaving.get(&key.session, key.start_ns);
            Some((key, open.or(ended.map(|ended| ended.note(&key.session, read_to)))?))
        };
        let read = |(key, note)| (key, SessionNote { as_of: read_to, ..note });
        SessionChanges {
            going: going.into_iter().filter_map(note).collect(),
            told: told.into_iter().map(read).collect(),
        }
    }

    /// Takes over a session that another agent told of. When an open one ends is found out at the
    /// next look; of one that has ended, [`Self::left`] tells the end.
    pub fn adopt(&mut self, key: &NoteKey, note: &SessionNote, application: Arc<Application>) {
        let NoteKey { session: key, start_ns } = *key;
        let Some(flow) = note.flow() else { return };
        let session = OpenSession {
            id: self.id(flow.ue_ip, &application, start_ns),
            application,
            start_ns,
            ifindex: note.ifindex,
            flow,
            tunnel: note.tunnel(),
            vlan: (note.vlan != 0).then_some(note.vlan),
            detections: note.detections,
            seen: SessionSnapshot { start_ns, last_ns: start_ns, ..SessionSnapshot::default() },
            quiet: note.quiet == 1,
            deadline: start_ns,
            opened_at: note.opened_at,
            adopted_at: Some(note.as_of),
        };
        self.read_before = self.read_before.max(note.as_of);
        if let Some(reason) = note.ended() {
            self.leaving.add(key, EndedSession::noted(session, note, reason));
            return;
        }
        let known = self.open.contains_key(&key);
        if !known && self.ended.since(&key).is_none_or(|ended| start_ns > ended) {
            self.open.insert(key, session);
            self.schedule(&key, start_ns, start_ns);
        }
    }
}

impl OpenSession {
    /// What the next agent is to know of it, when the ring had been read up to `read_to`.
    fn note(&self, key: &SessionKey, read_to: u64) -> SessionNote {
        let qfi = self.tunnel.and_then(|tunnel| tunnel.qfi);
        SessionNote {
            detections: self.detections,
            // Behind where the agent before had read, its count still holds.
            as_of: self.adopted_at.unwrap_or(0).max(read_to),
            opened_at: self.opened_at,
            last_ns: 0,
            packets: 0,
            bytes: 0,
            flow: FlowKey {
                ue: key.ue,
                application_address: address(self.flow.app_ip),
                ue_port: self.flow.ue_port,
                application_port: self.flow.app_port,
                protocol: self.flow.protocol as u32,
            },
            ifindex: self.ifindex,
            teid: self.tunnel.map_or(0, |tunnel| tunnel.teid),
            direction: self.flow.direction as u8,
            has_tunnel: u8::from(self.tunnel.is_some()),
            has_qfi: u8::from(qfi.is_some()),
            qfi: qfi.unwrap_or(0),
            quiet: u8::from(self.quiet),
            message_type: self.tunnel.map_or(0, |tunnel| tunnel.message_type),
            vlan: self.vlan.unwrap_or(0),
            ended: 0,
        }
    }
}

impl EndedSession {
    fn note(&self, key: &SessionKey, read_to: u64) -> SessionNote {
        SessionNote {
            last_ns: self.last_ns,
            packets: self.end.packets,
            bytes: self.end.bytes,
            ended: number(self.end.reason),
            ..self.session.note(key, read_to)
        }
    }

    fn noted(session: OpenSession, note: &SessionNote, reason: SessionEndReason) -> Self {
        let last_ns = note.last_ns.max(session.start_ns);
        Self {
            end: SessionEnd {
                duration: Duration::from_nanos(last_ns - session.start_ns),
                packets: note.packets,
                bytes: note.bytes,
                detections: note.detections,
                reason,
            },
            // Nothing of it is counted again.
            state: SessionSnapshot::default(),
            last_ns,
            session,
        }
    }
}

fn address(ip: IpAddr) -> Address {
    match ip {
        IpAddr::V4(v4) => Address::v4(v4.octets()),
        IpAddr::V6(v6) => Address::v6(v6.octets()),
    }
}
