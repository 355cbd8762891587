//! Which rules the numbers in records meant, for the last generations: records that an agent has not
//! finished may be of any of them when the next one reads them. (The kernel's own tables know two.)

use aya::maps::{HashMap, MapData};
use detector_common::rule::MAX_RULES;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::{agent_map, kernel::LoadError};
use crate::pin::PinDirectory;

/// Generations that are remembered.
pub const KEPT_GENERATIONS: usize = 16;

const VALUE: usize = MAX_RULES * size_of::<u32>();

/// Stable ids of rules, by generation and number.
pub struct RuleNotes {
    map: HashMap<MapData, u32, [u8; VALUE]>,
}

impl RuleNotes {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, "RULE_NOTES", KEPT_GENERATIONS as u32 + 1)? })
    }

    /// All that are remembered, oldest first.
    pub fn generations(&self) -> Vec<(u32, Vec<u32>)> {
        let notes = self.map.iter().filter_map(Result::ok);
        let mut all: Vec<(u32, Vec<u32>)> = notes
            .map(|(generation, bytes)| {
                let ids = bytes.chunks_exact(size_of::<u32>());
                let ids = ids.filter_map(|id| u32::read_from_bytes(id).ok());
                (generation, ids.take_while(|id| *id != 0).collect())
            })
            .collect();
        all.sort_by_key(|(generation, _)| *generation);
        all
    }

    /// Remembers a generation, before there are records of it.
    pub fn keep(&mut self, generation: u32, ids: &[u32]) {
        let old = self.generations();
        for (old, _) in old.iter().rev().skip(KEPT_GENERATIONS - 1) {
            let _ = self.map.remove(old);
        }
        let mut words = [0u32; MAX_RULES];
        words.iter_mut().zip(ids).for_each(|(word, id)| *word = *id);
        let mut value = [0; VALUE];
        value.copy_from_slice(words.as_bytes());
        if let Err(error) = self.map.insert(generation, value, 0) {
            log::warn!("rule notes: {error}; the next agent may not know what records mean");
        }
    }
}
