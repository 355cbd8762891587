//! What the next agent must know of rules: which of them the numbers in records meant, what was
//! counted of those that are no longer active, and how much of it was read.

use std::path::Path;

use aya::maps::{HashMap, MapData};
use detector_common::rule::MAX_RULES;
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError, rule_maps::RuleCounts};
use crate::pin::PinDirectory;

/// Generations that are remembered: records that an agent has not finished may be of any of them.
/// (The kernel's own tables know two.)
pub const KEPT_GENERATIONS: usize = 16;
/// Rules of which counts are remembered, those of earlier sets included.
const RULES: u32 = 8 * MAX_RULES as u32;

const NAME: &str = "GENERATION_NOTES";
const IDS: usize = MAX_RULES * size_of::<u32>();

/// Stable ids of rules, by generation and number.
pub struct GenerationNotes {
    map: HashMap<MapData, u32, [u8; IDS]>,
}

impl GenerationNotes {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self { map: agent_map::open(pins, NAME, KEPT_GENERATIONS as u32 + 1)? })
    }

    /// All that are remembered, oldest first.
    pub fn all(&self) -> Vec<(u32, Vec<u32>)> {
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

    /// Remembers those that the agents of another layout have noted there, so that what they left in
    /// their ring can be read, and no number means two sets of rules. They are noted the same way as
    /// long as records have the same version (`RECORD_VERSION`).
    pub fn keep_those_of(&mut self, maps: &Path) {
        let Some(map) = agent_map::existing(&maps.join(NAME)) else { return };
        let others = Self { map };
        let own: Vec<u32> = self.all().into_iter().map(|(generation, _)| generation).collect();
        for (generation, ids) in others.all() {
            if !own.contains(&generation) {
                self.keep(generation, &ids);
            }
        }
    }

    /// Remembers a generation, before there are records of it.
    pub fn keep(&mut self, generation: u32, ids: &[u32]) {
        let old = self.all();
        for (old, _) in old.iter().rev().skip(KEPT_GENERATIONS - 1) {
            let _ = self.map.remove(old);
        }
        let mut words = [0u32; MAX_RULES];
        words.iter_mut().zip(ids).for_each(|(word, id)| *word = *id);
        let mut value = [0; IDS];
        value.copy_from_slice(words.as_bytes());
        if let Err(error) = self.map.insert(generation, value, 0) {
            log::warn!("rule notes: {error}; the next agent may not know what records mean");
        }
    }
}

/// What was counted of a rule under the generations that are no longer active.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct TotalNote {
    /// In the order of `RuleCounter::ALL`.
    pub counts: RuleCounts,
    /// The last generation that is in it: so that an agent that is killed just then counts it once.
    pub generation: u64,
}

/// Notes of one kind, by the rules' stable ids.
pub struct NotesByRule<T: IntoBytes, const SIZE: usize> {
    map: HashMap<MapData, u32, [u8; SIZE]>,
    note: std::marker::PhantomData<T>,
}

/// What was counted.
pub type TotalNotes = NotesByRule<TotalNote, { size_of::<TotalNote>() }>;
/// How much of what was recorded was read.
pub type ReadNotes = NotesByRule<ReadNote, { size_of::<ReadNote>() }>;

/// How often records that were read have named a rule.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct ReadNote {
    /// In the records before `as_of`.
    pub count: u64,
    /// A position in the ring.
    pub as_of: u64,
}

impl TotalNotes {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Self::named(pins, "TOTAL_NOTES")
    }
}

impl ReadNotes {
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Self::named(pins, "READ_NOTES")
    }
}

impl<T: FromBytes + IntoBytes + Immutable, const SIZE: usize> NotesByRule<T, SIZE> {
    fn named(pins: &PinDirectory, name: &'static str) -> Result<Self, LoadError> {
        const { assert!(size_of::<T>() == SIZE) };
        Ok(Self { map: agent_map::open(pins, name, RULES)?, note: std::marker::PhantomData })
    }

    /// All of them.
    pub fn all(&self) -> Vec<(u32, T)> {
        let notes = self.map.iter().filter_map(Result::ok);
        notes.filter_map(|(id, bytes)| Some((id, T::read_from_bytes(&bytes).ok()?))).collect()
    }

    /// Remembers one.
    pub fn keep(&mut self, id: u32, note: &T) {
        let mut value = [0; SIZE];
        value.copy_from_slice(note.as_bytes());
        if let Err(error) = self.map.insert(id, value, 0) {
            log::warn!("rule notes: {error}; the books of the next agent may not balance");
        }
    }
}
