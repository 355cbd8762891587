//! `limits.memory`: what the agent holds stays below it, whatever waits; what finds no room is counted
//! in the kernel; and an agent that needs more than it is given is slow, not dead.

use std::{sync::atomic::AtomicBool, time::Duration};

use testbed::{agent::Agent, need_root, receiver::Reply};

use crate::{
    bed::{
        BUY, Bed, LIMIT, SINK, UE, all_read, balanced, config_with, eventually, metric, rule_count,
        rule_text, rules_with, status,
    },
    flood::{flood, mac, peak_memory_kb},
    stop::Stop,
};

/// Twice what a debug build holds when it has nothing to do.
const BUDGET_MIB: u64 = 96;

fn bed(limits: &str) -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  delivery: {{queue: 262144}}
  limits: {{{limits}}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let buy = format!("match: {{http: {{method: POST, path: {BUY}}}}}");
    let flood = rule_text("flood", "match: {http: {method: GET, path: /flood}}");
    bed.write("rules.yaml", &(rules_with(&buy, "{}") + &flood));
    bed
}

/// From here on, `VmHWM` is the most since now: proc_pid_clear_refs(5).
fn forget_peak(agent: &Agent<'_>) {
    std::fs::write(format!("/proc/{}/clear_refs", agent.pid()), "5").expect("clear_refs");
}

#[test]
fn what_waits_for_a_sink_that_takes_nothing_stays_within_the_budget_and_is_all_counted() {
    need_root!();
    let bed = bed(&format!("memory: {BUDGET_MIB}Mi"));
    let receiver = bed.receiver();
    receiver.answer(Reply::status(503));
    let agent = bed.start();
    forget_peak(&agent);
    let to = mac(&bed, "n6");
    let stop = AtomicBool::new(false);
    let lost = || rule_count(&agent, "flood", "ring_full");
    std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&bed, to, &stop));
        let stop = Stop(&stop);
        // The queue is full, and then the ring.
        let emitted = || status(&agent)["ledger"]["flood"]["emitted"].as_u64().expect("a count");
        eventually("as much is held as may be", || lost() > 0 && emitted() > 4_096);
        std::thread::sleep(Duration::from_secs(3));
        drop(stop);
        flood.join().expect("flooded");
    });
    let held = peak_memory_kb(&agent);
    let books = status(&agent)["ledger"]["flood"].clone();
    println!("at most {held} kB held; {books}");
    assert!(held <= BUDGET_MIB << 10, "{held} kB");

    receiver.answer(Reply::status(202));
    all_read(&agent, "flood");
    eventually("what was held is delivered", || {
        metric(&agent, "detector_ledger_in_flight", &[]) == 0.0
    });
    balanced(&agent, "flood");
    assert_eq!(metric(&agent, "detector_ledger_lost_total", &[]), 0.0, "but for the ring's");
    assert!(lost() > 0);
}

#[test]
fn an_agent_that_needs_more_than_its_budget_reads_slowly_and_says_so() {
    need_root!();
    // A debug build holds more as soon as it has started.
    let bed = bed("memory: 32Mi");
    let receiver = bed.receiver();
    let agent = bed.start();
    let mut user = bed.user(UE);
    (0..5).for_each(|_| drop(user.post(BUY, "{}").expect("answer")));
    receiver.wait_for(5, LIMIT).expect("delivered all the same");
    assert!(metric(&agent, "detector_memory_rests_total", &[]) > 0.0);
    eventually("it is said", || agent.tail().contains("limits.memory"));
}
