//! One packet through a loaded kernel program, by BPF_PROG_TEST_RUN.

use std::time::Duration;

use aya::programs::{SchedClassifier, TestRun, TestRunOptions, Xdp};
use detector_common::packet::Layer;
use detector_user::source::kernel::Kernel;

const XDP_PASS: u32 = 2;
const TC_ACT_UNSPEC: u32 = u32::MAX;

/// Which of the programs.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Hook {
    Xdp,
    XdpFrags,
    Tc,
    XdpIp,
    TcIp,
}

impl Hook {
    fn program(self) -> &'static str {
        match self {
            Self::Xdp => "detector_xdp_ethernet",
            Self::XdpFrags => "detector_xdp_frags_ethernet",
            Self::Tc => "detector_tc_ethernet",
            Self::XdpIp => "detector_xdp_ip",
            Self::TcIp => "detector_tc_ip",
        }
    }

    /// What its packets begin with.
    pub(crate) fn layer(self) -> Layer {
        match self {
            Self::Xdp | Self::XdpFrags | Self::Tc => Layer::Ethernet,
            Self::XdpIp | Self::TcIp => Layer::Ip,
        }
    }

    fn is_xdp(self) -> bool {
        match self {
            Self::Xdp | Self::XdpFrags | Self::XdpIp => true,
            Self::Tc | Self::TcIp => false,
        }
    }

    /// Loads the program into the kernel.
    pub(crate) fn load(self, kernel: &mut Kernel) {
        let program = kernel.ebpf.program_mut(self.program()).expect("is in the object");
        if self.is_xdp() {
            <&mut Xdp>::try_from(program).expect("XDP").load()
        } else {
            <&mut SchedClassifier>::try_from(program).expect("TC").load()
        }
        .unwrap_or_else(|error| panic!("{self:?}: {error}"));
    }
}

/// Runs the program on a frame `repeat` times; gives the mean time. The packet goes on unchanged.
pub(crate) fn inject(kernel: &mut Kernel, hook: Hook, frame: &[u8], repeat: u32) -> Duration {
    let program = kernel.ebpf.program_mut(hook.program()).expect("is in the object");
    let mut out = vec![0; frame.len() + 256];
    let options = || TestRunOptions { data_in: Some(frame), repeat, ..TestRunOptions::new() };
    let result = if hook.is_xdp() {
        let program = <&mut Xdp>::try_from(program).expect("XDP");
        program.test_run(TestRunOptions { data_out: Some(&mut out), ..options() })
    } else {
        let program = <&mut SchedClassifier>::try_from(program).expect("TC");
        program.test_run(TestRunOptions { data_out: Some(&mut out), ..options() })
    }
    .unwrap_or_else(|error| panic!("{hook:?}: {error}"));
    let expected = if hook.is_xdp() { XDP_PASS } else { TC_ACT_UNSPEC };
    assert_eq!(result.return_value, expected, "the packet must go on");
    assert_eq!(&out[..frame.len()], frame, "the packet must not change");
    result.duration
}
