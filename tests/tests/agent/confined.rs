//! What a running agent may do, and what it says of itself.

use std::{
    fs::{self, Permissions},
    os::unix::fs::PermissionsExt as _,
    path::Path,
    process::Command,
};

use testbed::{agent::binary, need_root, process::Output, wait};

use crate::bed::{ADMIN, BUY, Bed, LIMIT, SOCKET, UE, rule_count, settled};

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
        let program = binary("detector").expect("`cargo xtask build`");
        ask(bed.dn.command(program).arg("status").args(more))
    };
    let socket = bed.path(SOCKET).display().to_string();
    for (server, address) in [("--admin", ADMIN), ("--socket", &socket)] {
        let (code, said) = status(&[server, address]);
        assert_eq!(code, Some(1));
        assert!(said.contains(&format!("no agent answers at {address}")), "{said}");
    }

    let receiver = bed.receiver();
    let agent = bed.start();
    bed.user(UE).post(BUY, "{}").expect("answer");
    receiver.wait_for(1, LIMIT).expect("delivered");
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 1);
    for (server, address) in [("--admin", ADMIN), ("--socket", &socket)] {
        let (code, said) = status(&[server, address]);
        assert_eq!(code, Some(0), "{said}");
        assert!(said.starts_with("ready\n"), "{said}");
        assert!(said.contains("xdp-native") && said.contains("buy-click"), "{said}");
    }
    let (_, said) = status(&["--socket", &socket, "-o", "json"]);
    let json: serde_json::Value = serde_json::from_str(&said).expect("JSON");
    assert_eq!(json["rules"]["buy-click"]["matched"], 1);
    assert_eq!(json["readiness"]["ready"], true);
}

#[test]
fn the_control_socket_answers_root_and_nobody_else_whatever_its_mode() {
    need_root!();
    let bed = Bed::new();
    let _receiver = bed.receiver();
    let agent = bed.start();
    let socket = bed.path(SOCKET);
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&socket), 0o600);

    // A copy, because the build's directory may be closed to others.
    let program = bed.path("detector");
    fs::copy(binary("detector").expect("`cargo xtask build`"), &program).expect("copy");
    fs::set_permissions(bed.path(""), Permissions::from_mode(0o755)).expect("permissions");
    let as_nobody = || {
        let mut command = Command::new("setpriv");
        command.args(["--reuid", "65534", "--regid", "65534", "--clear-groups", "--"]);
        ask(command.arg(&program).arg("status").arg("--socket").arg(&socket))
    };
    let (code, said) = as_nobody();
    assert!(code == Some(1) && said.contains("are you root?"), "{said}");
    // Somebody opens it: the kernel's word on who connects still counts.
    fs::set_permissions(&socket, Permissions::from_mode(0o666)).expect("permissions");
    let (code, said) = as_nobody();
    assert!(code == Some(1) && said.contains("no agent answers"), "{said}");
    wait::until("the refusal in the log", LIMIT, || {
        let lines = agent.lines(Output::Stderr);
        Ok(lines
            .iter()
            .any(|line| line.contains("was refused at the control socket"))
            .then_some(()))
    })
    .expect("a line");

    let (code, said) = ask(Command::new(&program).arg("status").arg("--socket").arg(&socket));
    assert_eq!(code, Some(0), "{said}");
    drop(agent);
}

/// The exit code, and all that was said.
fn ask(command: &mut Command) -> (Option<i32>, String) {
    let output = command.output().expect("runs");
    let text = String::from_utf8([output.stdout, output.stderr].concat()).expect("text");
    (output.status.code(), text)
}
