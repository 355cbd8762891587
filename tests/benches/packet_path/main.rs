//! What the packet path costs, as ratios to an empty XDP program measured beside it in the same
//! run. It prints; it never judges.
//!
//! `cargo xtask bench` builds what this needs and runs it as root.

mod classes;
#[path = "../../tests/common/mod.rs"]
mod common;
mod subject;

use std::sync::Arc;

use common::{
    frames,
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
        ring_chain::RingChain,
    },
};
use subject::{NEVER, Subject, compare, load, quiet, segments, spread};

/// Bytes in the ring of a record with 256 B of payload.
const RECORD: u32 = 400;

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

/// A reader that only reads.
struct Forget;

impl ring::RecordTaker for Forget {
    fn take(&mut self, _record: &RingRecord<'_>) {}
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
        || thousand(&matched).with_records_of(RECORD),
        base,
    );
    compare("unmatched, 1,000 rules / 1 rule", "1.2", || thousand(&unmatched), || one(&unmatched));
    compare("bulk, 1,000 rules / 1 rule", "1.2", || thousand(&bulk), || one(&bulk));
    compare(
        "matched, 1,000 rules / 1 rule",
        "1.2",
        || thousand(&matched).with_records_of(RECORD),
        || one(&matched).with_records_of(RECORD),
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
    classes::measure(base);
}

/// Every packet matches, and a reader takes the records as the agent does: the shipped wake-up
/// policy beside one that never wakes.
fn wake_ups(matched: &[u8]) {
    let with_reader = |holdoff| {
        let limits =
            KernelLimits { ring_bytes: 64 << 20, wake_holdoff_ns: Some(holdoff), ..quiet() };
        let mut kernel = kernel(1, limits);
        let empty = load(quiet()).ring;
        let mut records = RingChain::from(std::mem::replace(&mut kernel.ring, empty));
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
