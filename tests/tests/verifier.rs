//! The kernel programs pass the verifier of the kernel that this runs on. `cargo xtask kernels` runs it
//! on older ones, whose verifiers know less.

use detector_user::{
    attach::{privileges::KernelFeatures, programs},
    source::kernel::{Kernel, KernelLimits},
};

#[test]
fn every_program_that_this_kernel_can_have_is_accepted() {
    testbed::need_root!();
    let features = KernelFeatures::detect().expect("a release");
    let mut kernel = Kernel::load(KernelLimits::default()).expect("the maps are made");
    programs::load(&mut kernel.ebpf, &features).unwrap_or_else(|error| panic!("{error}"));
    if !features.xdp {
        testbed::skip!("the XDP programs: this kernel has no bpf_xdp_load_bytes (Linux 5.18)");
    }
}
