//! What devices were called, and since when: a record that is read again by another agent is then of
//! the same device, though it was renamed or is gone, and its event has the same `source`.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError};
use crate::pin::PinDirectory;

const MAP: &str = "DEVICE_NOTES";

/// Names of one device that are remembered.
pub const MAX_NAMES: usize = 4;
/// Devices that are remembered.
const DEVICES: u32 = 4_096;
/// `IFNAMSIZ`: with the zero at the end.
const NAME: usize = 16;

/// A name that a device has, or had.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceName {
    /// From when on, in ns of CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// The name.
    pub name: String,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Named {
    from_ns: u64,
    /// Filled up with zeroes.
    name: [u8; NAME],
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Note {
    count: u64,
    names: [Named; MAX_NAMES],
}

/// The notes, by the devices' numbers.
pub struct DeviceNotes {
    map: HashMap<MapData, u32, [u8; size_of::<Note>()]>,
}

impl DeviceNotes {
    /// Those that are pinned, or none yet.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, MAP, DEVICES)? })
    }

    /// Goes on with what the agents of another layout have noted there. It is noted the same way as
    /// long as records have the same version (`RECORD_VERSION`).
    pub fn keep_those_of(&mut self, maps: &Path) {
        let Some(map) = agent_map::existing(&maps.join(MAP)) else { return };
        let others = Self { map };
        for ifindex in others.map.keys().filter_map(Result::ok) {
            if self.names(ifindex).is_empty() {
                self.keep(ifindex, &others.names(ifindex));
            }
        }
    }

    /// A device's names, oldest first.
    pub fn names(&self, ifindex: u32) -> Vec<DeviceName> {
        let Ok(bytes) = self.map.get(&ifindex, 0) else { return Vec::new() };
        let Ok(note) = Note::read_from_bytes(&bytes) else { return Vec::new() };
        let name = |named: Named| {
            let end = named.name.iter().position(|byte| *byte == 0).unwrap_or(NAME);
            let name = String::from_utf8_lossy(&named.name[..end]).into_owned();
            DeviceName { from_ns: named.from_ns, name }
        };
        note.names.into_iter().take(note.count as usize).map(name).collect()
    }

    /// Remembers a device's names; of more than [`MAX_NAMES`] the newest.
    pub fn keep(&mut self, ifindex: u32, names: &[DeviceName]) {
        let newest = &names[names.len().saturating_sub(MAX_NAMES)..];
        let mut note = Note::new_zeroed();
        note.count = newest.len() as u64;
        for (place, DeviceName { from_ns, name }) in note.names.iter_mut().zip(newest) {
            place.from_ns = *from_ns;
            place.name.iter_mut().zip(name.bytes()).for_each(|(to, from)| *to = from);
        }
        let bytes: [u8; size_of::<Note>()] = zerocopy::transmute!(note);
        if let Err(error) = self.map.insert(ifindex, bytes, 0) {
            log::warn!(
                "device notes: {error}; events that the next agent repeats may name another"
            );
        }
    }
}
