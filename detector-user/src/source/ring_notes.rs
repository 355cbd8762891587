//! Where a pinned ring's positions begin: behind those of the ring of another layout that was before it.

use std::path::Path;

use aya::maps::{HashMap, MapData};

use super::{agent_map, kernel::LoadError};
use crate::pin::PinDirectory;

const NAME: &str = "RING_NOTES";

/// The note of the ring of this agent's layout.
pub struct RingNotes {
    map: HashMap<MapData, u32, u64>,
}

impl RingNotes {
    /// The one that is pinned, or none yet.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, NAME, 1)? })
    }

    /// Where it begins; 0 if nothing was before it.
    pub fn base(&self) -> u64 {
        self.map.get(&0, 0).unwrap_or(0)
    }

    /// Remembers it. To be called before anything of the ring is read.
    pub fn keep(&mut self, base: u64) {
        if let Err(error) = self.map.insert(0, base, 0) {
            log::warn!("ring notes: {error}; the next agent may count records twice");
        }
    }
}

/// Where the ring of another layout begins.
pub fn base_of(maps: &Path) -> u64 {
    let map: Option<HashMap<MapData, u32, u64>> = agent_map::existing(&maps.join(NAME));
    map.and_then(|map| map.get(&0, 0).ok()).unwrap_or(0)
}
