//! Writes rule tables into the kernel and reads what was counted per rule.
//!
//! Every table has two slots. A swap writes the idle one, flips the one word that says which is
//! active, and waits until no packet that read the old word is still being judged. So a packet is
//! judged by one set of rules or the next, and the idle slot is never in use.

use std::{collections::BTreeMap, sync::Arc};

use aya::{
    Ebpf,
    maps::{Array, Map, MapData, MapError, PerCpuArray, PerCpuValues},
};
use detector_common::{
    counter::RULE_COUNTERS,
    rule::{MAX_RULES, SLOTS},
};

use super::{
    kernel::{LoadError, take},
    rule_notes::{TotalNote, TotalNotes},
    slot_map::SlotMap,
};
use crate::rules::{compile::stable_id, model::Rule, table::TableImage};

/// What was counted for a rule, in the order of `RuleCounter::ALL`.
pub type RuleCounts = [u64; RULE_COUNTERS];

/// A generation of rules that another agent left in pinned tables.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InheritedRules {
    /// As records name it.
    pub generation: u32,
    /// Stable ids of its rules, by number.
    pub rules: Vec<u32>,
    slot: usize,
}

/// The kernel's rule tables.
pub struct RuleMaps {
    active: Array<MapData, u32>,
    slots: SlotMap,
    counts: PerCpuArray<MapData, RuleCounts>,
    slot: usize,
    /// Stable ids and names of the active rules, by number.
    current: Vec<(u32, String)>,
    generation: u32,
    /// What was counted under other generations.
    totals: BTreeMap<u32, Total>,
    /// For the next agent, where pins are kept.
    notes: Option<TotalNotes>,
}

/// What was counted for a rule.
struct Total {
    name: String,
    note: TotalNote,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf, notes: Option<TotalNotes>) -> Result<Self, LoadError> {
        let active: Array<MapData, u32> = take(ebpf, "ACTIVE")?;
        // 0 in a new map; in a pinned one what the last agent made active.
        let slot = active.get(&0, 0).map_err(|source| LoadError::Map { name: "ACTIVE", source })?;
        let Some(Map::Array(slots)) = ebpf.take_map("TABLES") else {
            return Err(LoadError::MissingMap("TABLES"));
        };
        let slots =
            SlotMap::open(slots).map_err(|source| LoadError::Map { name: "TABLES", source })?;
        Ok(Self {
            active,
            slots,
            counts: take(ebpf, "RULE_COUNTS")?,
            slot: slot as usize % SLOTS,
            current: Vec::new(),
            generation: 0,
            totals: BTreeMap::new(),
            notes,
        })
    }

    /// Makes a new set of rules the active one. `rules` are those that `image` was compiled from.
    ///
    /// # Errors
    /// When the kernel refuses a write; the old rules then stay active.
    pub fn swap(&mut self, image: &TableImage, rules: &[Arc<Rule>]) -> Result<(), MapError> {
        let idle = (self.slot + 1) % SLOTS;
        self.slots.write(idle, image)?;
        self.active.set(0, idle as u32, 0)?;
        wait_for_packets_in_flight();
        let names = rules.iter().map(|rule| (stable_id(&rule.name), rule.name.clone())).collect();
        let retired = std::mem::replace(&mut self.current, names);
        let slot = std::mem::replace(&mut self.slot, idle);
        let generation = std::mem::replace(&mut self.generation, image.generation.generation);
        // No error of the swap: packets are judged by the new rules already.
        if let Err(error) = self.retire_counts(slot, generation, &retired) {
            log::warn!("what was counted for the rules before: {error}");
        }
        Ok(())
    }

    /// The generations of rules that another agent left in pinned tables, oldest first: records of
    /// them may still be in the ring.
    ///
    /// # Errors
    /// When the kernel refuses to read the maps.
    pub fn inherited(&self) -> Result<Vec<InheritedRules>, MapError> {
        let mut all = Vec::new();
        for slot in 0..SLOTS {
            let (generation, rules) = self.slots.read(slot, |tables| {
                // Those past the last rule are of older sets.
                let ids = tables.rules.iter().map(|rule| rule.id);
                (tables.generation.generation, ids.take_while(|id| *id != 0).collect())
            })?;
            if generation != 0 {
                all.push(InheritedRules { generation, slot, rules });
            }
        }
        all.sort_by_key(|inherited| inherited.generation);
        Ok(all)
    }

    /// Goes on counting where another agent left off, with these names for the rules' stable ids.
    ///
    /// # Errors
    /// When the kernel refuses to read or write the counts.
    pub fn adopt(
        &mut self,
        inherited: &[InheritedRules],
        name: impl Fn(u32) -> String,
    ) -> Result<(), MapError> {
        let noted = self.notes.iter().flat_map(TotalNotes::all);
        self.totals = noted.map(|(id, note)| (id, Total { name: name(id), note })).collect();
        for InheritedRules { generation, rules, slot } in inherited {
            let rules: Vec<(u32, String)> = rules.iter().map(|id| (*id, name(*id))).collect();
            if *slot == self.slot {
                self.current = rules;
                self.generation = *generation;
            } else {
                // Not zero only if that agent was killed in the middle of a reload.
                self.retire_counts(*slot, *generation, &rules)?;
            }
        }
        Ok(())
    }

    /// Counts of every rule that was ever active, by name.
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn counts(&self) -> Result<BTreeMap<String, RuleCounts>, MapError> {
        let mut totals: BTreeMap<String, RuleCounts> =
            self.totals.values().map(|total| (total.name.clone(), total.note.counts)).collect();
        for (number, (_, rule)) in self.current.iter().enumerate() {
            add(totals.entry(rule.clone()).or_default(), self.read_counts(self.slot, number)?);
        }
        Ok(totals)
    }

    /// Adds the counts of the rules that are no longer active to the totals, and zeroes them for
    /// the next generation that uses the slot.
    fn retire_counts(
        &mut self,
        slot: usize,
        generation: u32,
        rules: &[(u32, String)],
    ) -> Result<(), MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| MapError::IoError(source))?;
        for (number, (id, name)) in rules.iter().enumerate() {
            let counts = self.read_counts(slot, number)?;
            let note = TotalNote { counts: [0; RULE_COUNTERS], generation: 0 };
            let fresh = || Total { name: name.clone(), note };
            let total = self.totals.entry(*id).or_insert_with(fresh);
            if total.note.generation < u64::from(generation) {
                add(&mut total.note.counts, counts);
                total.note.generation = generation.into();
                if let Some(notes) = self.notes.as_mut() {
                    notes.keep(*id, &total.note);
                }
            }
            let zeroes = PerCpuValues::try_from(vec![[0; RULE_COUNTERS]; cpus])?;
            self.counts.set((slot * MAX_RULES + number) as u32, zeroes, 0)?;
        }
        Ok(())
    }

    fn read_counts(&self, slot: usize, number: usize) -> Result<RuleCounts, MapError> {
        let mut sum = [0; RULE_COUNTERS];
        for cpu in self.counts.get(&((slot * MAX_RULES + number) as u32), 0)?.iter() {
            add(&mut sum, *cpu);
        }
        Ok(sum)
    }
}

fn add(sum: &mut RuleCounts, values: RuleCounts) {
    for (sum, value) in sum.iter_mut().zip(values) {
        *sum += value;
    }
}

/// Waits until every packet that may have read the old slot has been judged.
///
/// BPF programs at XDP and TC run inside an RCU read-side section, and membarrier(2)'s global
/// command is `synchronize_rcu()`: it returns after all sections that had begun before it.
pub(crate) fn wait_for_packets_in_flight() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Refused on kernels with nohz_full CPUs; a program never runs as long as this.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
