//! What the next agent must know of open sessions that the kernel's table does not say: a map that
//! only agents use, pinned beside the others. An agent that is killed leaves it behind.

use aya::maps::{HashMap, MapData, MapError};
use detector_common::state::{FlowKey, SessionKey};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::kernel::LoadError;
use crate::{
    decode,
    detection::{Flow, Tunnel},
    pin::PinDirectory,
};

const NAME: &str = "SESSION_NOTES";
const KEY: usize = size_of::<SessionKey>();
const NOTE: usize = size_of::<SessionNote>();
/// `BPF_F_NO_PREALLOC`: memory for the sessions there are, not for those there could be.
const NO_PREALLOC: u32 = 1;

/// An open session, as the packet that opened it told.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SessionNote {
    /// When it began, in ns of CLOCK_MONOTONIC.
    pub start_ns: u64,
    /// Detections so far.
    pub detections: u64,
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
}

impl SessionNote {
    /// The flow, unless the bytes are no note's.
    pub fn flow(&self) -> Option<Flow> {
        decode::flow(&self.flow, self.direction).ok()
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

type Map = HashMap<MapData, [u8; KEY], [u8; NOTE]>;

/// The notes of all open sessions.
pub struct SessionNotes {
    map: Map,
}

impl SessionNotes {
    /// Those that are pinned, or none yet. There is room for as many as the kernel has sessions.
    pub(super) fn open(pins: &PinDirectory, sessions: u32) -> Result<Self, LoadError> {
        let failed = |source| LoadError::Map { name: NAME, source };
        let path = pins.map(NAME);
        if !path.exists() {
            let map: Map = HashMap::create(sessions, NO_PREALLOC).map_err(failed)?;
            let pinned = map.pin(&path);
            pinned.map_err(|error| failed(MapError::PinError { name: None, error }))?;
        }
        let map = MapData::from_pin(&path).map_err(failed)?;
        let map = aya::maps::Map::HashMap(map).try_into().map_err(failed)?;
        Ok(Self { map })
    }

    /// Remembers a session.
    pub fn put(&mut self, key: &SessionKey, note: &SessionNote) {
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        let note: [u8; NOTE] = zerocopy::transmute!(*note);
        if let Err(error) = self.map.insert(key, note, 0) {
            log::warn!("session notes: {error}; the next agent will not know of a session");
        }
    }

    /// Forgets a session.
    pub fn remove(&mut self, key: &SessionKey) {
        // One that was never noted is as good.
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        let _ = self.map.remove(&key);
    }

    /// All of them.
    pub fn all(&self) -> Vec<(SessionKey, SessionNote)> {
        let notes = self.map.iter().filter_map(Result::ok);
        let read = |(key, note): ([u8; KEY], [u8; NOTE])| {
            Some((
                SessionKey::read_from_bytes(&key).ok()?,
                SessionNote::read_from_bytes(&note).ok()?,
            ))
        };
        notes.filter_map(read).collect()
    }
}
