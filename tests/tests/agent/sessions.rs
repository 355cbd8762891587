//! Sessions and suppression windows.

use std::time::{Duration, Instant};

use testbed::need_root;

use crate::bed::{
    BUY, Bed, LIMIT, UE, UE6, by_user, metric, rule_count, rule_text, rules_with, settled,
};

const BUY_RULE: &str = "match: {http: {method: POST, path: /api/buttons/buy}}";

#[test]
fn a_session_ends_after_its_connection_closed_and_says_what_was_in_it() {
    need_root!();
    let bed = Bed::new();
    let session_rules = [("came", "started"), ("left", "ended")]
        .map(|(name, what)| rule_text(name, &format!("match: {{session: {what}}}")));
    let rules = rules_with(BUY_RULE, "{idle: 60s, linger: 300ms}");
    bed.write("rules.yaml", &(rules + &session_rules.concat()));
    let receiver = bed.receiver();
    let _agent = bed.start();
    let mut user = bed.user(UE);
    let download = user.get("/download?bytes=100000").expect("answer");
    assert_eq!(download.length, 100_000);
    for _ in 0..2 {
        user.post(BUY, "{}").expect("answer");
    }
    // A while of use, so that the duration can be told from none.
    let (begun, mut pages) = (Instant::now(), 0);
    while begun.elapsed() < Duration::from_millis(100) {
        user.get("/").expect("answer");
        pages += 1;
    }
    drop(user);
    let requests = receiver.wait_for(4, LIMIT).expect("came, twice bought, left");
    let rule = |name: &str| {
        let found: Vec<_> = requests.iter().filter(|it| it.header("ce-rule") == name).collect();
        assert_eq!(found.len(), if name == "buy-click" { 2 } else { 1 }, "{name}");
        found[0]
    };
    let ended = rule("left");
    for request in [rule("came"), rule("buy-click"), ended] {
        assert_eq!(request.header("ce-ueip"), UE);
        assert_eq!(request.header("ce-sessionid"), ended.header("ce-sessionid"));
    }
    let session = &ended.json()["session"];
    assert_eq!(session["reason"], "closed", "{session}");
    assert_eq!(session["detections"], 2, "{session}");
    // Both directions: at least request and answer of each, and headers and acknowledgements.
    let number = |name: &str| session[name].as_u64().unwrap_or_else(|| panic!("{name}: {session}"));
    let (packets, bytes) = (number("packets"), number("bytes"));
    assert!((2 * pages + 10..5 * pages + 200).contains(&packets), "{pages} pages: {session}");
    let least = 100_000 + 200 * pages;
    assert!((least..least + 20_000 + 1_000 * pages).contains(&bytes), "{pages} pages: {session}");
    assert!((90..60_000).contains(&number("duration_ms")), "{session}");
}

#[test]
fn a_rate_of_all_that_passes_is_told_while_it_passes_and_costs_no_record() {
    need_root!();
    let bed = Bed::new();
    let rate = "direction: downlink\n  match: {rate: {bytes: 1Mi, within: 1s}}\n  every: 1h";
    bed.write("rules.yaml", &rules_with(rate, "{}"));
    let receiver = bed.receiver();
    let agent = bed.start();
    // Below it, as often as it takes to be looked at.
    let mut other = bed.user(UE6);
    for _ in 0..8 {
        assert_eq!(other.get("/download?bytes=10000").expect("answer").length, 10_000);
    }
    let mut user = bed.user(UE);
    assert_eq!(user.get("/download?bytes=5000000").expect("answer").length, 5_000_000);
    let requests = receiver.wait_for(1, LIMIT).expect("one event, while the connection is open");
    assert_eq!(requests[0].header("ce-ueip"), UE);
    let told = &requests[0].json()["rate"]["bytes"];
    assert!(told.as_u64() >= Some(1 << 20), "{told}");
    drop((user, other));
    settled(&agent, "delivered", 1);
    assert_eq!(metric(&agent, "detector_kernel_findings_total", &["\"inspected\""]), 0.0);
    assert_eq!(receiver.recorded().len(), 1, "of the one user, once");
}

#[test]
fn every_lets_one_event_a_user_through_and_counts_the_rest() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", &rules_with(&format!("{BUY_RULE}\n  every: 1h"), "{}"));
    let receiver = bed.receiver();
    let agent = bed.start();
    let mut user = bed.user(UE);
    for _ in 0..5 {
        user.post(BUY, "{}").expect("answer");
    }
    bed.buy(UE); // another connection of the same user
    bed.buy(UE6); // another user
    settled(&agent, "delivered", 2);
    let requests = by_user(receiver.recorded());
    let users: Vec<_> = requests.iter().map(|request| request.header("ce-ueip")).collect();
    assert_eq!(users, [UE, UE6]);
    assert_eq!(rule_count(&agent, "buy-click", "suppressed"), 5);
}
