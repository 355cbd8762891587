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
use zerocopy::{Immutable, IntoBytes};

use super::kernel::{LoadError, take};
use crate::rules::{model::Rule, table::TableImage};

/// What was counted for a rule, in the order of `RuleCounter::ALL`.
pub type RuleCounts = [u64; RULE_COUNTERS];

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
    current: Vec<Arc<Rule>>,
    totals: BTreeMap<String, RuleCounts>,
}

impl RuleMaps {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        Ok(Self {
            active: take(ebpf, "ACTIVE")?,
            generations: SlotMap::new(take(ebpf, "GENERATIONS")?, 1),
            buckets: SlotMap::new(take(ebpf, "BUCKETS")?, MAX_BUCKETS),
            ports: SlotMap::new(take(ebpf, "PORTS")?, PORT_WORDS),
            rows: SlotMap::new(take(ebpf, "ROWS")?, MAX_ROWS),
            applications: SlotMap::new(take(ebpf, "APPLICATIONS")?, MAX_APPLICATIONS),
            rules: SlotMap::new(take(ebpf, "RULES")?, MAX_RULES),
            counts: take(ebpf, "RULE_COUNTS")?,
            slot: 0,
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
        self.retire_counts()?;
        self.slot = idle;
        self.current = rules.to_vec();
        Ok(())
    }

    /// Counts of every rule that was ever active, by name.
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn counts(&self) -> Result<BTreeMap<String, RuleCounts>, MapError> {
        let mut totals = self.totals.clone();
        for (number, rule) in self.current.iter().enumerate() {
            add(totals.entry(rule.name.clone()).or_default(), self.read_counts(number)?);
        }
        Ok(totals)
    }

    /// Adds the counts of the rules that are no longer active to the totals, and zeroes them for
    /// the next generation that uses the slot.
    fn retire_counts(&mut self) -> Result<(), MapError> {
        let cpus = aya::util::nr_cpus().map_err(|(_, source)| MapError::IoError(source))?;
        for (number, rule) in self.current.iter().enumerate() {
            let counts = self.read_counts(number)?;
            add(self.totals.entry(rule.name.clone()).or_default(), counts);
            let zeroes = PerCpuValues::try_from(vec![[0; RULE_COUNTERS]; cpus])?;
            self.counts.set((self.slot * MAX_RULES + number) as u32, zeroes, 0)?;
        }
        Ok(())
    }

    fn read_counts(&self, number: usize) -> Result<RuleCounts, MapError> {
        let mut sum = [0; RULE_COUNTERS];
        for cpu in self.counts.get(&((self.slot * MAX_RULES + number) as u32), 0)?.iter() {
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
