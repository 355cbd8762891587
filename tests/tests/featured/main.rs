//! `detector run` as a process, with what it has behind features: streams as sinks, spans to a collector.
//! All of it under its system call filter and without the capabilities that it drops.

#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../agent/bed.rs"]
mod bed;
mod kafka;
mod nats;
mod trace;

use std::fs;

use testbed::{agent::Agent, process::Output};

use bed::{Bed, LIMIT};

/// The agent when it is ready; `None` if it was built without what this config needs.
fn start(bed: &Bed) -> Option<Agent<'_>> {
    let mut agent = bed.spawn();
    match agent.wait_until_ready(LIMIT) {
        Ok(()) => Some(agent),
        Err(_) if said(&agent, "built with the feature") => None,
        Err(error) => panic!("{error:#}\n{}", agent.tail()),
    }
}

fn said(agent: &Agent<'_>, what: &str) -> bool {
    [Output::Stdout, Output::Stderr]
        .iter()
        .any(|output| agent.lines(*output).iter().any(|line| line.contains(what)))
}

/// Each of its threads is filtered, those of libraries too.
fn assert_confined(agent: &Agent<'_>) {
    let threads = fs::read_dir(format!("/proc/{}/task", agent.pid())).expect("threads");
    for thread in threads.flatten() {
        let status = fs::read_to_string(thread.path().join("status")).expect("status");
        for line in ["CapBnd:\t0000000000000000", "NoNewPrivs:\t1", "Seccomp:\t2"] {
            assert!(status.contains(line), "{line} expected: {status}");
        }
    }
}
