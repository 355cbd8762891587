//! Writes rule tables into the kernel and reads what was counted per rule.
//!
//! Every table has two slots. A swap writes the idle one, flips the one word that says which is
//! active, and waits until no packet that read the old word is still being judged. So a packet is
//! judged by one set of rules or the next, and the idle slot is never in use.

use std::{collections::BTreeMap, sync::Arc};

use aya::{
    Ebpf, Pod,
    maps::{Array, MapData, MapError, PerCpuArray, PerCpuValues},
};
use detector_common::{
    counter::RULE_COUNTERS,
    rule::{
        ApplicationEntry, Bucket, Generation, MAX_APPLICATIONS, MAX_BUCKETS, MAX_ROWS, MAX_RULES,
        PORT_WORDS, Row, RuleEntry, SLOTS,
    },
};
use zerocopy::{FromBytes, Immutable, IntoBytes};

use super::kernel::{LoadError, take};
use crate::rules::{model::Rule, table::TableImage};

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
    generations: SlotMap<{ size_of::<Generation>() }>,
    buckets: SlotMap<{ size_of::<Bucket>() }>,
    ports: SlotMap<8>,
    rows: SlotMap<{ size_of::<Row>() }>,
    applications: SlotMap<{ size_of::<ApplicationEntry>() }>,
    rules: SlotMap<{ size_of::<RuleEntry>() }>,
    counts: PerCpuArray<MapData, RuleCounts>,
    slot: usize,
    /// Names of the active rules, by number.
    current: Vec<String>,
    totals: BTreeMap<String, RuleCounts>,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        let active: Array<MapData, u32> = take(ebpf, "ACTIVE")?;
        // 0 in a new map; in a pinned one what the last agent made active.
        let slot = active.get(&0, 0).map_err(|source| LoadError::Map { name: "ACTIVE", source })?;
        Ok(Self {
            active,
            generations: SlotMap::new(take(ebpf, "GENERATIONS")?, 1),
            buckets: SlotMap::new(take(ebpf, "BUCKETS")?, MAX_BUCKETS),
            ports: SlotMap::new(take(ebpf, "PORTS")?, PORT_WORDS),
            rows: SlotMap::new(take(ebpf, "ROWS")?, MAX_ROWS),
            applications: SlotMap::new(take(ebpf, "APPLICATIONS")?, MAX_APPLICATIONS),
            rules: SlotMap::new(take(ebpf, "RULES")?, MAX_RULES),
            counts: take(ebpf, "RULE_COUNTS")?,
            slot: slot as usize % SLOTS,
            current: Vec::new(),
            totals: BTreeMap::new(),
        })
    }

    /// Makes a new set of rules the active one. `rules` are those that `image` was compiled from.
    ///
    /// # Errors
    /// When the kernel refuses a write; the old rules then stay active.
    pub fn swap(&mut self, image: &TableImage, rules: &[Arc<Rule>]) -> Result<(), MapError> {
        let idle = (self.slot + 1) % SLOTS;
        self.generations.write(idle, &[image.generation])?;
        self.buckets.write(idle, &image.buckets)?;
        self.ports.write(idle, &image.ports)?;
        self.rows.write(idle, &image.rows)?;
        self.applications.write(idle, &image.applications)?;
        self.rules.write(idle, &image.rules)?;
        self.active.set(0, idle as u32, 0)?;
        wait_for_packets_in_flight();
        let (slot, retired) = (self.slot, self.current.clone());
        self.retire_counts(slot, &retired)?;
        self.slot = idle;
        self.current = rules.iter().map(|rule| rule.name.clone()).collect();
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
            let bytes = self.generations.map.get(&(slot as u32), 0)?;
            let generation = Generation::read_from_bytes(&bytes).map_or(0, |it| it.generation);
            if generation != 0 {
                all.push(InheritedRules { generation, slot, rules: self.rule_ids(slot)? });
            }
        }
        all.sort_by_key(|inherited| inherited.generation);
        Ok(all)
    }

    /// Goes on counting where another agent left off. `names` are those of the inherited rules.
    ///
    /// # Errors
    /// When the kernel refuses to read or write the counts.
    pub fn adopt(
        &mut self,
        inherited: &InheritedRules,
        names: Vec<String>,
    ) -> Result<(), MapError> {
        if inherited.slot == self.slot {
            self.current = names;
            Ok(())
        } else {
            // Not zero only if that agent was killed in the middle of a reload.
            self.retire_counts(inherited.slot, &names)
        }
    }

    /// Stable ids of the rules in a slot, by number; those past the last rule are of older sets.
    fn rule_ids(&self, slot: usize) -> Result<Vec<u32>, MapError> {
        let mut ids = Vec::new();
        for number in 0..MAX_RULES {
            let bytes = self.rules.map.get(&((slot * MAX_RULES + number) as u32), 0)?;
            match RuleEntry::read_from_bytes(&bytes) {
                Ok(entry) if entry.id != 0 => ids.push(entry.id),
                Ok(_) | Err(_) => break,
            }
        }
        Ok(ids)
    }

    /// Counts of every rule that was ever active, by name.
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn counts(&self) -> Result<BTreeMap<String, RuleCounts>, MapError> {
        let mut totals = self.totals.clone();
        for (number, rule) in self.current.iter().enumerate() {
            add(totals.entry(rule.clone()).or_default(), self.read_counts(self.slot, number)?);
        }
        Ok(totals)
    }

    /// Adds the counts of the rules that are no longer active to the totals, and zeroes them for
    /// the next generation that uses the slot.
    fn retire_counts(&mut self, slot: usize, rules: &[String]) -> Result<(), MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| MapError::IoError(source))?;
        for (number, rule) in rules.iter().enumerate() {
            let counts = self.read_counts(slot, number)?;
            add(self.totals.entry(rule.clone()).or_default(), counts);
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

/// An array map with a copy of one table per slot.
struct SlotMap<const SIZE: usize>
where
    [u8; SIZE]: Pod,
{
    map: Array<MapData, [u8; SIZE]>,
    entries: usize,
}

impl<const SIZE: usize> SlotMap<SIZE>
where
    [u8; SIZE]: Pod,
{
    fn new(map: Array<MapData, [u8; SIZE]>, entries: usize) -> Self {
        Self { map, entries }
    }

    fn write<T: IntoBytes + Immutable>(
        &mut self,
        slot: usize,
        values: &[T],
    ) -> Result<(), MapError> {
        const { assert!(size_of::<T>() == SIZE, "the kernel's entry has another size") };
        for (index, value) in values.iter().enumerate() {
            let mut bytes = [0; SIZE];
            bytes.copy_from_slice(value.as_bytes());
            self.map.set((slot * self.entries + index) as u32, bytes, 0)?;
        }
        Ok(())
    }
}

/// Waits until every packet that may have read the old slot has been judged.
///
/// BPF programs at XDP and TC run inside an RCU read-side section, and membarrier(2)'s global
/// command is `synchronize_rcu()`: it returns after all sections that had begun before it.
fn wait_for_packets_in_flight() {
    const MEMBARRIER_CMD_GLOBAL: libc::c_int = 1;
    // SAFETY: a system call without pointers.
    let done = unsafe { libc::syscall(libc::SYS_membarrier, MEMBARRIER_CMD_GLOBAL, 0, 0) };
    if done != 0 {
        // Refused on kernels with nohz_full CPUs; a program never runs as long as this.
        std::thread::sleep(std::time::Duration::from_millis(50));
    }
}
