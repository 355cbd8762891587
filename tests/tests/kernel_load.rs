//! The kernel programs are accepted by this machine's verifier.

use aya::{maps::MapError, programs::Program};
use detector_common::rule::{MAX_RULES, RuleEntry};
use detector_user::{
    rules::table::TableImage,
    source::{
        kernel::{Kernel, KernelLimits, PINNED_MAPS},
        object,
    },
};

/// Linux gives up at a million verified instructions; half of that leaves room for older verifiers.
const BUDGET: u32 = 500_000;

#[test]
fn every_program_passes_the_verifier_within_half_its_budget() {
    let mut kernel = Kernel::load(KernelLimits::default()).expect("maps are made");
    for (name, program) in kernel.ebpf.programs_mut() {
        let info = match program {
            Program::Xdp(program) => {
                program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
                program.info()
            }
            Program::SchedClassifier(program) => {
                program.load().unwrap_or_else(|error| panic!("{name}: {error}"));
                program.info()
            }
            _ => panic!("{name}: neither XDP nor TC"),
        };
        let walked = info.expect("info").verified_instruction_count().expect("Linux 5.16");
        println!("{name}: {walked} of {BUDGET} verified instructions");
        assert!(walked < BUDGET, "{name}: {walked} verified instructions");
    }
}

/// A map that is not pinned is empty after a restart: that must be meant.
#[test]
fn every_map_is_pinned_or_holds_nothing_that_outlives_a_tick() {
    // HEADERS: one packet's; the variable: a tick's; constants.
    let transient =
        |name: &str| matches!(name, "HEADERS" | ".bss.burst_ends") || name.starts_with(".rodata");
    let object = object::embedded().expect("`cargo xtask build`");
    let ebpf = aya::Ebpf::load(object).expect("maps are made");
    let mut lasting: Vec<&str> = ebpf.maps().map(|(name, _)| name).collect();
    lasting.retain(|name| !transient(name));
    lasting.sort_unstable();
    assert_eq!(lasting, PINNED_MAPS);
}

/// The compiler refuses such rules before; the tables behind must stay whole all the same.
#[test]
fn tables_with_more_entries_than_there_is_room_for_are_refused_and_the_last_ones_stay() {
    let mut kernel = Kernel::load(KernelLimits::default()).expect("maps are made");
    let rules = |count| vec![RuleEntry { id: 7, ..RuleEntry::default() }; count];
    let mut image = TableImage::empty();
    image.generation.generation = 1;
    image.rules = rules(MAX_RULES);
    kernel.rules.swap(&image, &[]).expect("as many as there is room for");
    image.rules = rules(MAX_RULES + 1);
    let refused = kernel.rules.swap(&image, &[]).expect_err("one too many");
    assert!(matches!(refused, MapError::OutOfBounds { .. }), "{refused}");
    let left = kernel.rules.inherited().expect("reads");
    assert_eq!(left.iter().filter(|slot| slot.rules.len() == MAX_RULES).count(), 1);
}
