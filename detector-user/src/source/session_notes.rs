//! What the next agent must know of sessions that the kernel's table does not say, in a map of the
//! agents' own.

use aya::maps::{HashMap, MapData};
use detector_common::state::{FlowKey, SessionKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError};
use crate::{
    decode,
    detection::{Flow, SessionEndReason, Tunnel},
    pin::PinDirectory,
};

pub(super) const NAME: &str = "SESSION_NOTES";
pub(super) const KEY: usize = size_of::<NoteKey>();
pub(super) const NOTE: usize = size_of::<SessionNote>();

/// Which session: of one user and application there may be an open one, and others before it whose
/// end is still to be told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct NoteKey {
    /// As in the kernel's table.
    pub session: SessionKey,
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
}

/// A session, as the packet that opened it told, and how it ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionNote {
    /// Detections in the records before `as_of`.
    pub detections: u64,
    /// A position in the ring: up to where it had been read when this was written.
    pub as_of: u64,
    /// A position in the ring: of the record that opened it.
    pub opened_at: u64,
    /// Once it has ended: when its last packet passed, in ns of CLOCK_MONOTONIC.
    pub last_ns: u64,
    /// Once it has ended: packets, both directions.
    pub packets: u64,
    /// Once it has ended: bytes, both directions.
    pub bytes: u64,
    /// Who talks to whom.
    pub flow: FlowKey,
    /// The device that saw it.
    pub ifindex: u32,
    /// The tunnel it came in.
    pub teid: u32,
    /// A [`detector_common::packet::Direction`].
    pub direction: u8,
    /// 1 if `teid` counts.
    pub has_tunnel: u8,
    /// 1 if `qfi` counts.
    pub has_qfi: u8,
    /// QoS flow identifier.
    pub qfi: u8,
    /// 1 when its last TCP connection was closed.
    pub quiet: u8,
    /// GTP-U message type.
    pub message_type: u8,
    /// The VLAN it came in; 0 for none.
    pub vlan: u16,
    /// Why it ended, see [`Self::ended`]; 0 while it is open.
    pub ended: u64,
}

impl SessionNote {
    /// The flow, unless the bytes are no note's.
    pub fn flow(&self) -> Option<Flow> {
        decode::flow(&self.flow, self.direction).ok()
    }

    /// Why it ended, if it has.
    pub fn ended(&self) -> Option<SessionEndReason> {
        REASONS.into_iter().find(|reason| number(*reason) == self.ended)
    }

    /// The tunnel, if it came in one.
    pub fn tunnel(&self) -> Option<Tunnel> {
        let qfi = (self.has_qfi == 1).then_some(self.qfi);
        (self.has_tunnel == 1).then_some(Tunnel {
            teid: self.teid,
            message_type: self.message_type,
            qfi,
        })
    }
}

const REASONS: [SessionEndReason; 4] = [
    SessionEndReason::Idle,
    SessionEndReason::Closed,
    SessionEndReason::Evicted,
    SessionEndReason::Stopped,
];

/// How a reason is written in [`SessionNote::ended`].
pub fn number(reason: SessionEndReason) -> u64 {
    match reason {
        SessionEndReason::Idle => 1,
        SessionEndReason::Closed => 2,
        SessionEndReason::Evicted => 3,
        SessionEndReason::Stopped => 4,
    }
}

type Map = HashMap<MapData, [u8; KEY], [u8; NOTE]>;

/// The notes of all sessions that are open, or whose end may not be known to every sink yet.
pub struct SessionNotes {
    map: Map,
}

impl SessionNotes {
    /// Those that are pinned, or none yet. There is room for as many as the kernel has sessions.
    pub(super) fn open(pins: &PinDirectory, sessions: u32) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, NAME, sessions)? })
    }

    /// Remembers a session.
    pub fn put(&mut self, key: &NoteKey, note: &SessionNote) {
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        let note: [u8; NOTE] = zerocopy::transmute!(*note);
        if let Err(error) = self.map.insert(key, note, 0) {
            log::warn!("session notes: {error}; the next agent will not know of a session");
        }
    }

    /// Forgets a session.
    pub fn remove(&mut self, key: &NoteKey) {
        // One that was never noted is as good.
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        let _ = self.map.remove(&key);
    }

    /// All of them.
    pub fn all(&self) -> Vec<(NoteKey, SessionNote)> {
        let notes = self.map.iter().filter_map(Result::ok);
        let read = |(key, note): ([u8; KEY], [u8; NOTE])| {
            Some((NoteKey::read_from_bytes(&key).ok()?, SessionNote::read_from_bytes(&note).ok()?))
        };
        notes.filter_map(read).collect()
    }
}
