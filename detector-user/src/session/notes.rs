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

/// What changed since it was asked for.
#[derive(Default)]
pub(super) struct Changes {
    open: HashSet<NoteKey>,
    ended: Vec<(NoteKey, SessionNote)>,
}

impl Changes {
    pub(super) fn open(&mut self, session: SessionKey, start_ns: u64) {
        self.open.insert(NoteKey { session, start_ns });
    }

    pub(super) fn ended(&mut self, session: SessionKey, ended: &EndedSession) {
        let key = NoteKey { session, start_ns: ended.session.start_ns };
        self.open.remove(&key);
        self.ended.push((key, ended.note(&session)));
    }
}

impl SessionTable {
    /// The session that another agent opened at the record that is being read, and has not finished:
    /// its begin is to be told again. It may have ended since.
    pub fn begins_again(&self, key: &SessionKey, start_ns: u64) -> Option<OpenSession> {
        if !self.ended_before.was_read(self.position) {
            return None;
        }
        let adopted = |open: &&OpenSession| open.start_ns == start_ns && open.adopted_at.is_some();
        let open = self.open.get(key).filter(adopted);
        let known = open.or(self.ended_before.get(key, start_ns).map(|ended| &ended.session));
        known.filter(|session| session.opened_at == self.position).cloned()
    }

    /// The sessions that had ended when another agent was killed, and of which all has been read when
    /// the ring is read up to `read_to`: the last of their events can be told again.
    pub fn end_adopted(&mut self, read_to: u64) -> Vec<EndedSession> {
        let taken = self.ended_before.take_read(read_to);
        let end = |(NoteKey { session, start_ns }, ended): (NoteKey, EndedSession)| {
            self.ended.note(session, start_ns);
            if let Some(changed) = self.changed.as_mut() {
                changed.ended(session, &ended);
            }
            ended
        };
        taken.into_iter().map(end).collect()
    }

    /// From here on, remembers what changes.
    pub fn track_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    /// The sessions that changed since the last time, as they are or ended when the ring had been
    /// read up to `read_to`.
    pub fn take_changed(&mut self, read_to: u64) -> Vec<(NoteKey, SessionNote)> {
        let Changes { open, ended } = self.changed.as_mut().map(std::mem::take).unwrap_or_default();
        let open = open.into_iter().filter_map(|key| {
            let session = self.open.get(&key.session)?;
            let ours = session.start_ns == key.start_ns;
            ours.then(|| (key, session.note(&key.session, read_to)))
        });
        let read = |(key, note)| (key, SessionNote { as_of: read_to, ..note });
        open.chain(ended.into_iter().map(read)).collect()
    }

    /// Takes over a session that another agent told of. When an open one ends is found out at the
    /// next look; of one that has ended, [`Self::end_adopted`] tells the end.
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
        self.ended_before.had_read(note.as_of);
        if let Some(reason) = note.ended() {
            let ended = EndedSession::noted(session, note, reason);
            self.ended_before.add(key, note.as_of, ended);
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
    fn note(&self, key: &SessionKey) -> SessionNote {
        SessionNote {
            last_ns: self.last_ns,
            packets: self.end.packets,
            bytes: self.end.bytes,
            ended: number(self.end.reason),
            ..self.session.note(key, 0)
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
