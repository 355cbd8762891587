//! What time of day the packet path's clock stands for, as the agents before found it: a record that
//! is read again by another agent is then given the same time, and its events the same ids.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use zerocopy::{FromBytes, FromZeros as _, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError};
use crate::pin::PinDirectory;

const NAME: &str = "CLOCK_NOTES";

/// Settings of the wall clock that are remembered.
pub const MAX_SETTINGS: usize = 16;

/// The wall clock as it was set at some moment. Between two settings it runs at the very pace of
/// CLOCK_MONOTONIC: time-keeping steers both.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ClockSetting {
    /// From when on, in ns of CLOCK_MONOTONIC.
    pub from_ns: u64,
    /// What the wall clock would have said when CLOCK_MONOTONIC stood at 0, in ns since 1970.
    pub zero_ns: i64,
}

#[derive(FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct Note {
    count: u64,
    settings: [ClockSetting; MAX_SETTINGS],
}

/// The note of the machine's clock.
pub struct ClockNotes {
    map: HashMap<MapData, u32, [u8; size_of::<Note>()]>,
}

impl ClockNotes {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, NAME, 1)? })
    }

    /// Goes on with what the agents of another layout have noted there. It is noted the same way as
    /// long as records have the same version (`RECORD_VERSION`).
    pub fn keep_those_of(&mut self, maps: &Path) {
        let Some(map) = agent_map::existing(&maps.join(NAME)) else { return };
        if self.settings().is_empty() {
            self.keep(&Self { map }.settings());
        }
    }

    /// The settings, oldest first.
    pub fn settings(&self) -> Vec<ClockSetting> {
        let Ok(bytes) = self.map.get(&0, 0) else { return Vec::new() };
        let Ok(note) = Note::read_from_bytes(&bytes) else { return Vec::new() };
        note.settings.into_iter().take(note.count as usize).collect()
    }

    /// Remembers the settings; of more than [`MAX_SETTINGS`] the newest.
    pub fn keep(&mut self, settings: &[ClockSetting]) {
        let newest = &settings[settings.len().saturating_sub(MAX_SETTINGS)..];
        let mut note = Note::new_zeroed();
        note.count = newest.len() as u64;
        note.settings.iter_mut().zip(newest).for_each(|(place, setting)| *place = *setting);
        let bytes: [u8; size_of::<Note>()] = zerocopy::transmute!(note);
        if let Err(error) = self.map.insert(0, bytes, 0) {
            log::warn!("clock notes: {error}; events that the next agent repeats may have new ids");
        }
    }
}
