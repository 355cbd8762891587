//! Programs under test, run beside each other.

use std::{fs, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::ProgramArray,
    programs::{TestRun, TestRunOptions, Xdp},
};
use detector_user::source::kernel::{Kernel, KernelLimits};

use crate::common::kernel::Hook;

const ROUNDS: usize = 101;
pub(crate) const NEVER: u64 = u64::MAX;

/// One program under test, behind a program that changes the packet.
pub(crate) struct Subject {
    _harness: Ebpf,
    front: String,
    kernel: Option<Kernel>,
    frame: Vec<u8>,
    pub(crate) repeat: u32,
}

impl Subject {
    /// `front` is a program of the bench object; `kernel` what it goes on with, or the empty one.
    pub(crate) fn new(front: &str, ues: u32, kernel: Option<Kernel>, frame: &[u8]) -> Self {
        let mut harness = EbpfLoader::new()
            .override_global("UES", &ues, true)
            .load(&object("bench.bpf.o"))
            .expect("the bench programs load");
        let mut kernel = kernel;
        let mut next: ProgramArray<_> =
            harness.take_map("NEXT").expect("a map").try_into().expect("of programs");
        xdp(&mut harness, front).load().expect("loads");
        match kernel.as_mut() {
            None => {
                let empty = xdp(&mut harness, "detector_bench_empty");
                empty.load().expect("loads");
                next.set(0, empty.fd().expect("loaded"), 0).expect("fits");
            }
            Some(kernel) => {
                Hook::Xdp.load(kernel);
                let program = xdp(&mut kernel.ebpf, "detector_xdp_ethernet");
                next.set(0, program.fd().expect("loaded"), 0).expect("fits");
            }
        }
        // The map must outlive this function for the tail call to find the program.
        std::mem::forget(next);
        Self {
            _harness: harness,
            front: front.to_owned(),
            kernel,
            frame: frame.to_vec(),
            repeat: 20_000,
        }
    }

    /// As many runs as the ring buffer has room for, which is drained after them: in the first ones the
    /// program is not in the CPU's caches yet.
    pub(crate) fn with_records_of(mut self, bytes: u32) -> Self {
        let share = KernelLimits::default().ring_bytes / 4 * 3;
        self.repeat = share / bytes;
        self
    }

    /// Mean time of one packet.
    pub(crate) fn run(&mut self) -> Duration {
        let options = TestRunOptions {
            data_in: Some(&self.frame),
            repeat: self.repeat,
            ..TestRunOptions::new()
        };
        let took = xdp(&mut self._harness, &self.front).test_run(options).expect("runs").duration;
        if let Some(kernel) = self.kernel.as_mut() {
            while kernel.ring.next().is_some() {}
        }
        took
    }
}

fn xdp<'a>(ebpf: &'a mut Ebpf, name: &str) -> &'a mut Xdp {
    ebpf.program_mut(name).expect("is in the object").try_into().expect("XDP")
}

/// An object of `target/bpf` as it is now, so that a change to the kernel programs is measured
/// without the agent being built again.
fn object(name: &str) -> Vec<u8> {
    let mut target = std::env::current_exe().expect("this file");
    while !target.join("bpf").join(name).exists() {
        assert!(target.pop(), "no target/bpf/{name}: run `cargo xtask build`");
    }
    fs::read(target.join("bpf").join(name)).expect("a file")
}

pub(crate) fn load(limits: KernelLimits) -> Kernel {
    Kernel::load_object(&object("detector.bpf.o"), limits, None).expect("loads")
}

/// Whether the command line asks for this line: words on it choose lines that hold one of them.
fn wanted(what: &str) -> bool {
    let mut words = std::env::args().skip(1).filter(|argument| !argument.starts_with("--"));
    let mut any = false;
    words.any(|word| {
        any = true;
        what.contains(&word)
    }) || !any
}

/// Runs both in turn and prints the median of the ratios, with its spread.
pub(crate) fn compare(
    what: &str,
    goal: &str,
    subject: impl FnOnce() -> Subject,
    base: impl FnOnce() -> Subject,
) {
    if !wanted(what) {
        return;
    }
    let (mut subject, mut base) = (subject(), base());
    for _ in 0..3 {
        subject.run();
        base.run();
    }
    let mut ratios = Vec::new();
    let mut times = Vec::new();
    for _ in 0..ROUNDS {
        let (a, b) = (subject.run().as_nanos() as f64, base.run().as_nanos() as f64);
        ratios.push(a / b);
        times.push((a, b));
    }
    ratios.sort_by(f64::total_cmp);
    times.sort_by(|x, y| x.0.total_cmp(&y.0));
    let (low, median, high) =
        (ratios[ROUNDS / 10], ratios[ROUNDS / 2], ratios[ROUNDS - 1 - ROUNDS / 10]);
    let (a, b) = times[ROUNDS / 2];
    println!("{what:<72} {median:>6.2}  {low:>5.2}..{high:<5.2} {goal:>5}   {a:.0} / {b:.0} ns");
}

pub(crate) fn segments(kernel: Kernel, frame: &[u8]) -> Subject {
    Subject::new("detector_bench_segments", 1, Some(kernel), frame)
}

pub(crate) fn spread(kernel: Kernel, ues: u32, frame: &[u8]) -> Subject {
    Subject::new("detector_bench_spread", ues, Some(kernel), frame)
}

pub(crate) fn quiet() -> KernelLimits {
    KernelLimits { sessions: 262_144, wake_holdoff_ns: Some(NEVER), ..KernelLimits::default() }
}
