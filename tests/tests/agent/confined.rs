//! What a running agent may do, and what it says of itself.

use std::{fs, process::Command};

use testbed::{agent::binary, need_root};

use crate::bed::{ADMIN, BUY, Bed, LIMIT, UE, rule_count, settled};

#[test]
fn every_thread_has_two_capabilities_and_a_system_call_filter() {
    need_root!();
    let bed = Bed::new();
    let _receiver = bed.receiver();
    let agent = bed.start();
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("threads");
    let mut seen = 0;
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("status");
        // CAP_BPF (39) and CAP_NET_ADMIN (12), or fewer where the test has fewer.
        for set in ["CapEff", "CapPrm"] {
            let line = status.lines().find_map(|line| line.strip_prefix(&format!("{set}:\t")));
            let held = u64::from_str_radix(line.expect(set), 16).expect("hexadecimal");
            assert_eq!(held & !(1 << 39 | 1 << 12), 0, "{set}: {held:x}");
        }
        for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} expected: {status}");
        }
        seen += 1;
    }
    assert!(seen > 3, "only {seen} threads");
}

#[test]
fn status_shows_what_is_watched_and_whether_it_is_ready() {
    need_root!();
    let bed = Bed::new();
    let status = |more: &[&str]| {
        let mut command: Command = bed.dn.command(binary("detector").expect("`cargo xtask build`"));
        let output = command.args(["status", "--admin", ADMIN]).args(more).output().expect("runs");
        let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
        (output.status.code(), text)
    };
    let (code, said) = status(&[]);
    assert_eq!(code, Some(1));
    assert!(said.contains("no agent answers at 127.0.0.1:9901"), "{said}");

    let receiver = bed.receiver();
    let agent = bed.start();
    bed.user(UE).post(BUY, "{}").expect("answer");
    receiver.wait_for(1, LIMIT).expect("delivered");
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 1);
    let (code, said) = status(&[]);
    assert_eq!(code, Some(0), "{said}");
    assert!(said.starts_with("ready\n"), "{said}");
    assert!(said.contains("xdp-native") && said.contains("buy-click"), "{said}");
    let (_, said) = status(&["-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["rules"]["buy-click"]["matched"], 1);
    assert_eq!(json["readiness"]["ready"], true);
}
