//! The rule tables in array maps, written by user space only. Each map holds [`SLOTS`] copies;
//! [`ACTIVE`] says which one counts.

use aya_ebpf::{macros::map, maps::Array};
use detector_common::rule::{
    ApplicationEntry, Bucket, Generation, MAX_APPLICATIONS, MAX_BUCKETS, MAX_ROWS, MAX_RULES,
    NAME_WORDS, PORT_WORDS, Row, RuleEntry, SLOTS, Tables,
};

const fn entries(one_slot: usize) -> u32 {
    (one_slot * SLOTS) as u32
}

/// The active slot. One word, so that a flip is seen whole.
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);
#[map]
static GENERATIONS: Array<Generation> = Array::with_max_entries(entries(1), 0);
#[map]
static BUCKETS: Array<Bucket> = Array::with_max_entries(entries(MAX_BUCKETS), 0);
#[map]
static PORTS: Array<[u16; 4]> = Array::with_max_entries(entries(PORT_WORDS), 0);
#[map]
static NAMES: Array<u64> = Array::with_max_entries(entries(NAME_WORDS), 0);
#[map]
static ROWS: Array<Row> = Array::with_max_entries(entries(MAX_ROWS), 0);
#[map]
static APPLICATIONS: Array<ApplicationEntry> =
    Array::with_max_entries(entries(MAX_APPLICATIONS), 0);
#[map]
static RULES: Array<RuleEntry> = Array::with_max_entries(entries(MAX_RULES), 0);

/// The tables of the generation that was active when the packet came.
pub(crate) struct ActiveTables {
    slot: u32,
}

impl ActiveTables {
    /// Reads the active slot, once per packet.
    #[inline(always)]
    pub(crate) fn now() -> Option<Self> {
        let slot = ACTIVE.get_ptr(0)?;
        // SAFETY: a map value; volatile, because user space writes it at any time.
        Some(Self { slot: unsafe { slot.read_volatile() } })
    }

    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.slot
    }

    #[inline(always)]
    fn at(&self, one_slot: usize, index: u32) -> u32 {
        self.slot * one_slot as u32 + index
    }
}

impl Tables for ActiveTables {
    #[inline(always)]
    fn generation(&self) -> Option<&Generation> {
        GENERATIONS.get(self.slot)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        BUCKETS.get(self.at(MAX_BUCKETS, index))
    }

    #[inline(always)]
    fn ports(&self, index: u32) -> Option<&[u16; 4]> {
        PORTS.get(self.at(PORT_WORDS, index))
    }

    #[inline(always)]
    fn names(&self, index: u32) -> Option<&u64> {
        NAMES.get(self.at(NAME_WORDS, index))
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        ROWS.get(self.at(MAX_ROWS, index))
    }

    #[inline(always)]
    fn application(&self, index: u32) -> Option<&ApplicationEntry> {
        APPLICATIONS.get(self.at(MAX_APPLICATIONS, index))
    }

    #[inline(always)]
    fn rule(&self, index: u32) -> Option<&RuleEntry> {
        RULES.get(self.at(MAX_RULES, index))
    }
}
