//! What the next agent must know of flows whose end rules ask for: who they are, and what was seen of
//! their end.

use aya::maps::{HashMap, MapData};
use detector_common::state::FlowKey;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError};
use crate::pin::PinDirectory;

/// Flows that are remembered.
pub const FLOWS: usize = 65_536;

const KEY: usize = size_of::<FlowKey>();
const NOTE: usize = size_of::<FlowNote>();

/// A flow, as the packet told that began it, and how far it is over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowNote {
    /// When that packet passed, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// When the session began that it belongs to; 0 for none.
    pub session_start_ns: u64,
    /// The application's stable id.
    pub application: u32,
    /// The device that saw it.
    pub ifindex: u32,
    /// TCP sequence number.
    pub sequence: u32,
    /// Bytes of the packet at the hook.
    pub bytes: u32,
    /// The tunnel it came in.
    pub teid: u32,
    /// The VLAN it came in; 0 for none.
    pub vlan: u16,
    /// GTP-U message type.
    pub message_type: u8,
    /// A [`detector_common::packet::Direction`].
    pub direction: u8,
    /// 1 if `teid` counts.
    pub has_tunnel: u8,
    /// 1 if `qfi` counts.
    pub has_qfi: u8,
    /// QoS flow identifier.
    pub qfi: u8,
    /// A bit for each direction whose FIN was seen.
    pub finished: u8,
    /// Times of silence that were told.
    pub reported: u32,
}

/// What became of flows.
#[derive(Debug, Default)]
pub struct FlowChanges {
    /// To be noted now.
    pub open: Vec<(FlowKey, FlowNote)>,
    /// To be noted once what was told of it is settled: `None` for those that are over.
    pub told: Vec<Told>,
}

/// What was told of a flow.
#[derive(Clone, Copy, Debug)]
pub struct Told {
    /// Which.
    pub key: FlowKey,
    /// When the packet passed that began it: the ports may be used again.
    pub time_ns: u64,
    /// How it is afterwards; `None` if it is over.
    pub after: Option<FlowNote>,
}

/// The notes of all flows whose end may still have to be told.
pub struct FlowNotes {
    map: HashMap<MapData, [u8; KEY], [u8; NOTE]>,
}

impl FlowNotes {
    /// Those that are pinned, or none yet.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, "FLOW_NOTES", FLOWS as u32)? })
    }

    /// All of them.
    pub fn all(&self) -> Vec<(FlowKey, FlowNote)> {
        let notes = self.map.iter().filter_map(Result::ok);
        notes.map(|(key, note)| (zerocopy::transmute!(key), zerocopy::transmute!(note))).collect()
    }

    /// Remembers a flow.
    pub fn put(&mut self, key: &FlowKey, note: &FlowNote) {
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        let note: [u8; NOTE] = zerocopy::transmute!(*note);
        if let Err(error) = self.map.insert(key, note, 0) {
            log::warn!("flow notes: {error}; the next agent will not tell how a flow ends");
        }
    }

    /// What was told of a flow is settled.
    pub fn settle(&mut self, told: &Told) {
        let key: [u8; KEY] = zerocopy::transmute!(told.key);
        let Ok(bytes) = self.map.get(&key, 0) else { return };
        let noted: FlowNote = zerocopy::transmute!(bytes);
        if noted.time_ns != told.time_ns {
            return;
        }
        match &told.after {
            Some(note) => self.put(&told.key, note),
            None => drop(self.map.remove(&key)),
        }
    }

    /// Forgets a flow.
    pub fn remove(&mut self, key: &FlowKey) {
        let key: [u8; KEY] = zerocopy::transmute!(*key);
        // One that was never noted is as good.
        let _ = self.map.remove(&key);
    }
}
