//! The rule tables, written by user space only: in two slots, of which [`ACTIVE`] says which one counts.

use aya_ebpf::{bindings::BPF_F_MMAPABLE, macros::map, maps::Array};
use detector_common::rule::{
    ApplicationEntry, Bucket, Generation, MAX_APPLICATIONS, MAX_BUCKETS, MAX_ROWS, MAX_RULES,
    NAME_WORDS, PORT_WORDS, Row, RuleEntry, SLOTS, Slot, Tables,
};

/// The active slot. One word, so that a flip is seen whole.
#[map]
static ACTIVE: Array<u32> = Array::with_max_entries(1, 0);
/// User space writes it through a mapping (Linux 5.5), not by values of megabytes.
#[map]
static TABLES: Array<Slot> = Array::with_max_entries(SLOTS as u32, BPF_F_MMAPABLE);

/// The tables of the generation that was active when the packet came.
pub(crate) struct ActiveTables {
    number: u32,
    slot: &'static Slot,
}

impl ActiveTables {
    /// Reads the active slot, once per packet.
    #[inline(always)]
    pub(crate) fn now() -> Option<Self> {
        let active = ACTIVE.get_ptr(0)?;
        // SAFETY: a map value; volatile, because user space writes it at any time.
        let number = unsafe { active.read_volatile() };
        Some(Self { number, slot: TABLES.get(number)? })
    }

    /// The active slot's number.
    #[inline(always)]
    pub(crate) fn slot(&self) -> u32 {
        self.number
    }
}

/// Tables have sizes of powers of two, and what lies in them leads nowhere else: an index is cut to size
/// because the verifier does not know that.
impl Tables for ActiveTables {
    #[inline(always)]
    fn generation(&self) -> Option<&Generation> {
        Some(&self.slot.generation)
    }

    #[inline(always)]
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        Some(&self.slot.buckets[index as usize % MAX_BUCKETS])
    }

    #[inline(always)]
    fn ports(&self, index: u32) -> Option<&[u16; 4]> {
        Some(&self.slot.ports[index as usize % PORT_WORDS])
    }

    #[inline(always)]
    fn names(&self, index: u32) -> Option<&u64> {
        Some(&self.slot.names[index as usize % NAME_WORDS])
    }

    #[inline(always)]
    fn row(&self, index: u32) -> Option<&Row> {
        Some(&self.slot.rows[index as usize % MAX_ROWS])
    }

    #[inline(always)]
    fn application(&self, index: u32) -> Option<&ApplicationEntry> {
        Some(&self.slot.applications[index as usize % MAX_APPLICATIONS])
    }

    #[inline(always)]
    fn rule(&self, index: u32) -> Option<&RuleEntry> {
        Some(&self.slot.rules[index as usize % MAX_RULES])
    }
}
