//! Sessions and suppression windows.

use testbed::need_root;

use crate::bed::{BUY, Bed, LIMIT, UE, UE6, by_user, rule_count, rule_text, rules_with, settled};

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
    // Both directions: three requests, their answers, and the connection's begin and end.
    let (packets, bytes) = (session["packets"].as_u64(), session["bytes"].as_u64());
    assert!(packets.is_some_and(|packets| (10..200).contains(&packets)), "{session}");
    assert!(bytes.is_some_and(|bytes| (100_000..120_000).contains(&bytes)), "{session}");
    let seconds = session["duration_seconds"].as_f64();
    assert!(seconds.is_some_and(|it| it > 0.0 && it < 20.0), "{session}");
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
