//! A receiver that hangs: everything between it and the packets fills up, and the packets pass.

use std::time::Duration;

use testbed::{need_root, receiver::Reply};

use crate::bed::{BUY, Bed, LIMIT, SINK, UE, balanced, config_with, eventually, ids, rule_count};

#[test]
fn a_full_ring_buffer_is_counted_and_neither_the_agent_nor_the_traffic_stops() {
    const PRESSES: u64 = 200;
    need_root!();
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  delivery: {{concurrency: 1, queue: 1, retries: 0, timeout: 1s}}
  limits: {{ringBytes: 4Ki}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let receiver = bed.receiver();
    receiver.answer(Reply::Status(202, Duration::from_secs(3600)));
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    for _ in 0..PRESSES {
        assert_eq!(user.post(BUY, "{}").expect("answer").status, 200);
    }
    // At most one event a second leaves, and a page holds a few records.
    let lost = rule_count(&agent, "buy-click", "ring_full");
    assert_eq!(rule_count(&agent, "buy-click", "matched"), PRESSES);
    assert!(lost > PRESSES / 2 && lost < PRESSES, "{lost} of {PRESSES} lost");

    // The receiver is back: so are the events.
    let hung = receiver.recorded().len();
    receiver.answer(Reply::status(202));
    receiver.wait_for(hung + 2, LIMIT).expect("what was waiting");
    eventually("all that was not lost is read", || {
        rule_count(&agent, "buy-click", "detected") + rule_count(&agent, "buy-click", "ring_full")
            == PRESSES
    });
    let before = ids(&receiver.recorded()).len();
    user.post(BUY, "{}").expect("answer");
    receiver.wait_for(before + 1, LIMIT).expect("a new event");
    assert_eq!(rule_count(&agent, "buy-click", "ring_full"), lost);
    balanced(&agent, "buy-click");
    agent.must_run().expect("running");
}

#[test]
fn sigterm_ends_the_agent_in_time_though_the_receiver_hangs_and_the_queue_is_full() {
    need_root!();
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}\n  delivery: {{concurrency: 1, queue: 1, timeout: 1m}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let receiver = bed.receiver();
    receiver.answer(Reply::Status(202, Duration::from_secs(3600)));
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    for _ in 0..10 {
        user.post(BUY, "{}").expect("answer");
    }
    receiver.wait_for(1, LIMIT).expect("the one that hangs");
    // The drain is bounded by 10 s.
    let status = agent.terminate(LIMIT).expect("it ends");
    assert!(status.success(), "{}", agent.tail());
    assert!(!bed.describe("n6").contains("xdp"));
}
