//! The kernel programs are accepted by this machine's verifier.

use aya::programs::Program;
use detector_user::source::{
    kernel::{Kernel, KernelLimits, PINNED_MAPS},
    object,
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
fn every_map_is_pinned_or_holds_nothing_that_outlives_a_packet() {
    // HEADERS: one packet's; what begins with a dot: constants and log lines.
    let transient = |name: &str| matches!(name, "BURST_ENDS" | "HEADERS") || name.starts_with('.');
    let object = object::embedded().expect("`cargo xtask build`");
    let ebpf = aya::Ebpf::load(object).expect("maps are made");
    let mut lasting: Vec<&str> = ebpf.maps().map(|(name, _)| name).collect();
    lasting.retain(|name| !transient(name));
    lasting.sort_unstable();
    assert_eq!(lasting, PINNED_MAPS);
}
