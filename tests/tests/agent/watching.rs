//! Hooks, directions and devices.

use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;
use testbed::need_root;

use crate::bed::{
    APP, Bed, LIMIT, SINK, UE, config_with, eventually, rule_count, rule_text, rules, rules_with,
    settled, status,
};

fn config_for(device: &str) -> String {
    config_with(device, &format!("sink: {{url: 'http://{SINK}/'}}"))
}

/// The application sends the user a datagram.
fn push(bed: &Bed) {
    let from: SocketAddr = format!("{APP}:5004").parse().expect("address");
    let socket = bed.dn.enter(|| UdpSocket::bind(from)).expect("entered").expect("socket");
    socket.send_to(b"news", (UE, 40_000)).expect("sent");
}

fn hooks(status: &Value) -> Vec<&str> {
    let devices = status["devices"].as_array().expect("devices");
    devices.iter().map(|device| device["hook"].as_str().unwrap_or("none")).collect()
}

#[test]
fn each_hook_sees_its_direction_and_no_other() {
    need_root!();
    // Device settings, hooks in use, and how often the uplink and the downlink rule fire.
    let table: [(&str, &[&str], [u64; 2]); 6] = [
        ("hook: xdp, directions: receive", &["xdp-native"], [1, 0]),
        ("hook: xdp-generic, directions: receive", &["xdp-generic"], [1, 0]),
        ("hook: tc, directions: receive", &["tc-ingress"], [1, 0]),
        ("hook: tc, directions: send", &["tc-egress"], [0, 1]),
        ("hook: tc, directions: both", &["tc-ingress", "tc-egress"], [1, 1]),
        ("hook: auto, directions: both", &["xdp-native", "tc-egress"], [1, 1]),
    ];
    let bed = Bed::new();
    let downlink = rule_text("push", "direction: downlink\n  match: {udp: first-packet}");
    bed.write("rules.yaml", &(rules("/api/buttons/buy") + &downlink));
    for (device, expected_hooks, [uplink, down]) in table {
        bed.write("config.yaml", &config_for(&format!("{{name: n6, {device}}}")));
        let receiver = bed.receiver();
        let agent = bed.start();
        assert_eq!(hooks(&status(&agent)), expected_hooks, "{device}");
        bed.buy(UE);
        push(&bed);
        let events = settled(&agent, "delivered", (uplink + down) as usize);
        assert_eq!(events.len() as u64, uplink + down, "{device}");
        assert_eq!(rule_count(&agent, "buy-click", "matched"), uplink, "{device}");
        assert_eq!(rule_count(&agent, "push", "matched"), down, "{device}");
        for request in receiver.recorded() {
            let expected = if request.header("ce-rule") == "push" { "downlink" } else { "uplink" };
            assert_eq!(request.header("ce-direction"), expected, "{device}");
            assert_eq!(request.header("ce-ueip"), UE, "{device}");
        }
    }
}

#[test]
fn a_missing_device_is_named_by_readyz_and_attached_to_when_it_appears() {
    need_root!();
    let bed = Bed::unlinked();
    let receiver = bed.receiver();
    let mut agent = bed.spawn();
    let ready = || agent.admin_get("/readyz").ok();
    eventually("an answer that names the device", || {
        ready().is_some_and(|answer| {
            let body: Value = serde_json::from_slice(&answer.body).expect("JSON");
            let reason = body["conditions"]["attached"]["reason"].as_str().unwrap_or_default();
            answer.status == 503 && reason.contains("n6: no such device")
        })
    });
    agent.wait_for_line(LIMIT, |line| line.contains("n6: no such device")).expect("a warning");
    assert_eq!(agent.admin_get("/healthz").expect("answer").status, 200);
    bed.link();
    agent.wait_until_ready(LIMIT).expect("attached");
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded().len(), 1);

    // And when it has gone and come back.
    bed.dn.ip("link delete n6").expect("deleted");
    eventually("no longer ready", || {
        agent.admin_get("/readyz").is_ok_and(|answer| answer.status == 503)
    });
    bed.link();
    agent.wait_until_ready(LIMIT).expect("attached again");
    bed.buy(UE);
    settled(&agent, "delivered", 2);
    assert_eq!(receiver.recorded().len(), 2);
}

#[test]
fn a_connection_that_opens_is_an_event_once() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", &rules_with("match: {flow: opened}", "{}"));
    let receiver = bed.receiver();
    let agent = bed.start();
    let mut user = bed.user(UE);
    for _ in 0..3 {
        user.get("/").expect("answer");
    }
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded().len(), 1);
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 1);
}
