//! An action becomes one event at the receiver, whatever the receiver answers at first.

use std::{collections::BTreeSet, time::Duration};

use testbed::{
    need_root,
    receiver::{Receiver, Reply},
};

use crate::bed::{
    BUY, Bed, LIMIT, SINK, UE, UE6, by_user, config_with, eventually, ids, metric, settled,
};

#[test]
fn an_action_is_delivered_once_with_the_users_address_over_ipv4_and_ipv6() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let agent = bed.start();
    for ue in [UE, UE6] {
        bed.user(ue).get("/catalog/").expect("answer"); // no rule for it
        bed.buy(ue);
    }
    settled(&agent, "delivered", 2);
    let requests = by_user(receiver.recorded());
    let seen: Vec<_> = requests.iter().map(|request| request.header("ce-ueip")).collect();
    assert_eq!(seen, [UE, UE6]);
    for (request, ue) in requests.iter().zip([UE, UE6]) {
        assert_eq!((request.method.as_str(), request.path.as_str()), ("POST", "/"));
        let expected = [
            ("ce-specversion", "1.0"),
            ("ce-type", "com.example.buy-click"),
            ("ce-source", "/mec/site-7/mec-1/n6"),
            ("ce-subject", ue),
            ("ce-application", "ar-shop"),
            ("ce-rule", "buy-click"),
            ("ce-partitionkey", ue),
            ("ce-direction", "uplink"),
            ("content-type", "application/json"),
        ];
        for (name, value) in expected {
            assert_eq!(request.header(name), value, "{name}");
        }
        assert!(!request.header("ce-sessionid").is_empty());
        let trace = request.header("ce-id").replace('-', "");
        assert!(request.header("ce-traceparent").starts_with(&format!("00-{trace}-")));
        assert_eq!(request.json()["ue"]["ip"], ue);
        assert_eq!(request.json()["http"]["path"], BUY);
    }
    assert_eq!(BTreeSet::from_iter(ids(&requests)).len(), 2);
}

#[test]
fn an_event_that_is_answered_500_comes_again_with_the_same_id() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    receiver.answer_next([Reply::status(500), Reply::status(500)]);
    let agent = bed.start();
    bed.buy(UE);
    let [delivered] = settled(&agent, "delivered", 1).try_into().expect("one event");
    assert_eq!(ids(&receiver.recorded()), [&delivered; 3]);
    assert_eq!(metric(&agent, "detector_delivery_attempts_total", &["result=\"5xx\""]), 2.0);
}

#[test]
fn an_event_that_is_reset_comes_again_with_the_same_id() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    receiver.answer_next([Reply::Reset, Reply::Reset]);
    let agent = bed.start();
    bed.buy(UE);
    let [delivered] = settled(&agent, "delivered", 1).try_into().expect("one event");
    assert_eq!(ids(&receiver.recorded()), [&delivered; 3]);
}

#[test]
fn an_event_that_is_answered_400_is_counted_and_not_sent_again() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    receiver.answer_next([Reply::status(400)]);
    let agent = bed.start();
    bed.buy(UE);
    let rejected = settled(&agent, "rejected", 1);
    let outcome = |outcome: &str| {
        let labels = ["rule=\"buy-click\"", &format!("outcome=\"{outcome}\"")];
        metric(&agent, "detector_delivery_events_total", &labels)
    };
    assert_eq!(outcome("rejected"), 1.0);
    agent
        .wait_for_line(LIMIT, |line| line.contains("event not delivered") && line.contains("400"))
        .expect("a warning with the answer");

    bed.buy(UE);
    let delivered = settled(&agent, "delivered", 1);
    assert_eq!(ids(&receiver.recorded()), [&rejected[0], &delivered[0]]);
    assert_eq!((outcome("delivered"), outcome("rejected")), (1.0, 1.0));
}

#[test]
fn an_event_waits_for_a_receiver_that_is_down() {
    need_root!();
    let bed = Bed::new();
    let rest = format!("sink: {{url: 'http://{SINK}/'}}\n  delivery: {{retries: 10}}");
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let agent = bed.start();
    bed.buy(UE);
    eventually("a failed attempt", || {
        metric(&agent, "detector_delivery_attempts_total", &["result=\"network\""]) >= 1.0
    });
    let receiver = Receiver::start(bed.sink()).expect("receiver");
    let delivered = settled(&agent, "delivered", 1);
    assert_eq!(ids(&receiver.recorded()), delivered);
}

#[test]
fn sigterm_detaches_and_delivers_what_waits_at_a_slow_receiver() {
    need_root!();
    let bed = Bed::new();
    let rest = format!("sink: {{url: 'http://{SINK}/'}}\n  delivery: {{concurrency: 1}}");
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let receiver = bed.receiver();
    receiver.answer(Reply::Status(202, Duration::from_millis(300)));
    let mut agent = bed.start();
    assert!(bed.describe("n6").contains("prog/xdp"), "{}", bed.describe("n6"));
    for _ in 0..5 {
        bed.buy(UE);
    }
    receiver.wait_for(1, LIMIT).expect("the first of them");
    let status = agent.terminate(LIMIT).expect("it ends");
    assert!(status.success(), "{}", agent.tail());
    assert!(!bed.describe("n6").contains("xdp"), "{}", bed.describe("n6"));
    assert_eq!(BTreeSet::from_iter(ids(&receiver.recorded())).len(), 5);
    assert_eq!(settled(&agent, "delivered", 5).len(), 5);
    bed.user(UE).get("/").expect("traffic goes on");
}
