//! More matches than the ring buffer has room for: what matters more gets through.

mod common;

use std::sync::Arc;

use common::{
    frames,
    kernel::{Hook, inject},
    rules::{application, http, rule},
};
use detector_common::{counter::RuleCounter, http::HttpMethod, packet::Protocol};
use detector_user::{
    rules::{
        compile::compile,
        model::{PathMatch, Rule, RuleSet},
    },
    source::kernel::{Kernel, KernelLimits},
};
use testbed::need_root;

const RING: u32 = 64 << 10;

#[test]
fn a_flood_leaves_a_quarter_of_the_ring_to_rules_with_a_priority() {
    need_root!();
    let shop = application("shop", &[("10.45.0.10/32", 80, 80, Protocol::Tcp)]);
    let path = |path: &str| http(&[HttpMethod::Post], PathMatch::Exact(path.to_owned()));
    let rules = vec![
        rule("flood", &shop, path("/flood")),
        Rule { priority: 1, ..rule("buy", &shop, path("/buy")) },
    ];
    let set =
        RuleSet { applications: vec![shop], rules: rules.into_iter().map(Arc::new).collect() };
    let image = compile(&set, &["10.60.0.0/16".parse().expect("a pool")], 1).expect("compiles");
    let limits = KernelLimits { ring_bytes: RING, ..KernelLimits::default() };
    let mut kernel = Kernel::load(limits).expect("loads");
    kernel.rules.swap(&image, &set.rules).expect("rules are written");
    Hook::Xdp.load(&mut kernel);

    let mut press = |path: &str, sequence: u32| {
        let request = format!("POST {path} HTTP/1.1\r\nHost: shop\r\nContent-Length: 0\r\n\r\n");
        let (ue, app) = (([10, 60, 0, 2], 40_000), ([10, 45, 0, 10], 80));
        let frame = frames::tcp4(ue, app, sequence, |h| h.psh = true, request.as_bytes());
        inject(&mut kernel, Hook::Xdp, &frame, 1);
        let counts = kernel.rules.counts().expect("counts");
        RuleCounter::ALL.map(|counter| counts[path.trim_start_matches('/')][counter as usize])
    };
    let mut sequence = 0;
    let flooded = loop {
        sequence += 100;
        let [matched, _, lost] = press("/flood", sequence);
        if lost == 50 {
            break matched;
        }
    };
    let bought = (1..=20).map(|n| press("/buy", sequence + n * 100)).last();
    assert_eq!(bought, Some([20, 0, 0]), "of {flooded} others 50 were lost before");
    let unread = kernel.ring.unread();
    assert!(unread > u64::from(RING) * 3 / 4 && unread < u64::from(RING), "{unread}");
}
