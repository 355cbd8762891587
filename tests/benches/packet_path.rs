//! What the packet path costs, as ratios to an empty XDP program measured beside it in the same
//! run. It prints; it never judges.
//!
//! `cargo xtask bench` builds what this needs and runs it as root.

#[path = "../tests/common/mod.rs"]
mod common;

use std::{fs, sync::Arc, time::Duration};

use aya::{
    Ebpf, EbpfLoader,
    maps::ProgramArray,
    programs::{TestRun, TestRunOptions, Xdp},
};
use common::{
    frames,
    kernel::Hook,
    rules::{application, http, rule},
};
use detector_common::{event::WAKE_HOLDOFF_NS, http::HttpMethod, packet::Protocol};
use detector_user::{
    rules::{
        compile::compile,
        model::{PathMatch, Rule, RuleSet},
    },
    source::{
        kernel::{Kernel, KernelLimits},
        ring,
        ring_buffer::RingRecord,
    },
};

const ROUNDS: usize = 21;
const NEVER: u64 = u64::MAX;

/// One program under test, behind a program that changes the packet.
struct Subject {
    _harness: Ebpf,
    front: String,
    kernel: Option<Kernel>,
    frame: Vec<u8>,
    repeat: u32,
}

impl Subject {
    /// `front` is a program of the bench object; `kernel` what it goes on with, or the empty one.
    fn new(front: &str, ues: u32, kernel: Option<Kernel>, frame: &[u8]) -> Self {
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

    /// Few enough runs that the small ring buffer, drained after each, never fills.
    fn that_fills_the_ring(mut self) -> Self {
        self.repeat = 500;
        self
    }

    /// Mean time of one packet.
    fn run(&mut self) -> Duration {
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

fn load(limits: KernelLimits) -> Kernel {
    Kernel::load_object(&object("detector.bpf.o"), limits, None).expect("loads")
}

/// `count` rules: one on the shop, the others on applications of their own.
fn rules(count: usize) -> RuleSet {
    let shop = application("shop", &[("10.45.0.10/32", 80, 80, Protocol::Tcp)]);
    let buy = PathMatch::Exact("/api/buttons/buy".to_owned());
    let mut all = vec![rule("buy", &shop, http(&[HttpMethod::Post], buy))];
    let mut applications = vec![shop];
    for n in 1..count {
        let prefix = format!("10.46.{}.{}/32", n / 250, n % 250 + 1);
        let other = application(
            &format!("app-{n}"),
            &[(&prefix, 80 + n as u16, 80 + n as u16, Protocol::Tcp)],
        );
        let path = PathMatch::Prefix(format!("/api/v1/things/{n:05}/press"));
        all.push(rule(&format!("rule-{n}"), &other, http(&[HttpMethod::Post], path)));
        applications.push(other);
    }
    let all: Vec<Arc<Rule>> = all.into_iter().map(Arc::new).collect();
    RuleSet { applications, rules: all }
}

fn kernel(rule_count: usize, limits: KernelLimits) -> Kernel {
    let set = rules(rule_count);
    let pools = ["10.60.0.0/16", "10.128.0.0/9"].map(|pool| pool.parse().expect("a pool"));
    let image = compile(&set, &pools, 1).expect("compiles");
    let mut kernel = load(limits);
    kernel.rules.swap(&image, &set.rules).expect("rules are written");
    kernel
}

fn quiet() -> KernelLimits {
    KernelLimits {
        sessions: 262_144,
        // Stays in the cache, as the part of the ring does that a reader keeps up with.
        ring_bytes: 256 << 10,
        wake_holdoff_ns: Some(NEVER),
        ..KernelLimits::default()
    }
}

/// A reader that only reads.
struct Forget;

impl ring::RecordTaker for Forget {
    fn take(&mut self, _record: &RingRecord<'_>) {}
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
fn compare(
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

fn segments(kernel: Kernel, frame: &[u8]) -> Subject {
    Subject::new("detector_bench_segments", 1, Some(kernel), frame)
}

fn spread(kernel: Kernel, ues: u32, frame: &[u8]) -> Subject {
    Subject::new("detector_bench_spread", ues, Some(kernel), frame)
}

fn main() {
    // `cargo test` runs benches too, without `--bench`; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return;
    }
    let ue = [10, 60, 0, 2];
    let tcp = |to, payload: &[u8]| frames::tcp4((ue, 40000), to, 100, |_| (), payload);
    let unmatched = tcp(([10, 45, 0, 11], 80), &[b'x'; 600]);
    let elsewhere = tcp(([93, 184, 216, 34], 443), &[b'x'; 600]);
    let bulk = tcp(([10, 45, 0, 10], 80), &[0x17; 1400]);
    let mut request =
        b"POST /api/buttons/buy HTTP/1.1\r\nHost: shop\r\nUser-Agent: bench\r\nCookie: ".to_vec();
    request.resize(600, b'c');
    let matched = tcp(([10, 45, 0, 10], 80), &request);

    println!("{:<72} {:>6}  {:^12} {:>5}   median", "ratio", "median", "p10..p90", "goal");
    let base = || Subject::new("detector_bench_segments", 1, None, &unmatched);
    let one = |frame| segments(kernel(1, quiet()), frame);
    let thousand = |frame| segments(kernel(1000, quiet()), frame);
    compare(
        "unmatched (neighbour of an application), 1,000 rules / empty",
        "2.5",
        || thousand(&unmatched),
        base,
    );
    compare(
        "unmatched (somewhere else), 1,000 rules / empty",
        "2.5",
        || thousand(&elsewhere),
        base,
    );
    compare("bulk packet of a watched flow, 1,000 rules / empty", "3.5", || thousand(&bulk), base);
    compare(
        "matched HTTP request, record with 256 B / empty",
        "8",
        || thousand(&matched).that_fills_the_ring(),
        base,
    );
    compare("unmatched, 1,000 rules / 1 rule", "1.2", || thousand(&unmatched), || one(&unmatched));
    compare("bulk, 1,000 rules / 1 rule", "1.2", || thousand(&bulk), || one(&bulk));
    compare(
        "matched, 1,000 rules / 1 rule",
        "1.2",
        || thousand(&matched).that_fills_the_ring(),
        || one(&matched).that_fills_the_ring(),
    );
    let many = || {
        let mut many = spread(kernel(1, quiet()), 131_072, &bulk);
        many.repeat = 400_000; // begin all sessions before measuring
        many.run();
        many.repeat = 20_000;
        many
    };
    let few = || spread(kernel(1, quiet()), 128, &bulk);
    compare("bulk, 131,072 live sessions / 128", "2.5", many, few);
    wake_ups(&matched);
}

/// Every packet matches, and a reader takes the records as the agent does: the shipped wake-up
/// policy beside one that never wakes.
fn wake_ups(matched: &[u8]) {
    let with_reader = |holdoff| {
        let limits =
            KernelLimits { ring_bytes: 64 << 20, wake_holdoff_ns: Some(holdoff), ..quiet() };
        let mut kernel = kernel(1, limits);
        let empty = load(quiet()).ring;
        let mut records = std::mem::replace(&mut kernel.ring, empty);
        let (stop, waited_on) = ring::stop_pair().expect("an eventfd");
        // Read until the process ends.
        std::mem::forget(stop);
        std::thread::spawn(move || {
            ring::read_until_stopped(&mut records, &waited_on, &mut Forget).expect("reads");
        });
        segments(kernel, matched)
    };
    compare(
        "every packet matches: shipped wake-up policy / none",
        "1.5",
        || with_reader(WAKE_HOLDOFF_NS),
        || with_reader(NEVER),
    );
}
