//! New rules are taken while the agent runs, and a bad file changes nothing.

use std::{
    fs::{self, File},
    os::unix::fs::PermissionsExt as _,
};

use nix::{
    sys::{signal::Signal, stat::Mode},
    unistd::mkfifo,
};
use testbed::{agent::Agent, need_root};

use crate::bed::{BUY, Bed, LIMIT, UE, balanced, rule_count, rules, rules_with, settled};

fn wait_for_generation(agent: &Agent<'_>, generation: u32) {
    let wanted = format!("generation={generation}");
    agent
        .wait_for_line(LIMIT, |line| line.contains("rules are active") && line.contains(&wanted))
        .expect("the new rules");
}

#[test]
fn a_changed_file_is_taken_and_the_old_rules_are_gone() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let agent = bed.start();
    bed.write("rules.yaml", &rules("/catalog/elsewhere"));
    wait_for_generation(&agent, 2);
    let mut user = bed.user(UE);
    user.post(BUY, "{}").expect("answer");
    user.post("/catalog/elsewhere", "{}").expect("answer");
    settled(&agent, "delivered", 1);
    let [request] = receiver.recorded().try_into().expect("one event");
    assert_eq!(request.json()["http"]["path"], "/catalog/elsewhere");
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 1);
    balanced(&agent, "buy-click");
}

#[test]
fn sighup_reads_a_file_that_does_not_look_changed() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let agent = bed.start();
    // Same length, same time: only the signal can be the reason.
    let path = bed.path("rules.yaml");
    let before = fs::metadata(&path).expect("metadata").modified().expect("time");
    bed.write("rules.new", &rules("/api/buttons/bid"));
    let new = File::options().write(true).open(bed.path("rules.new")).expect("file");
    new.set_modified(before).expect("time");
    fs::rename(bed.path("rules.new"), &path).expect("rename");
    agent.signal(Signal::SIGHUP).expect("signal");
    wait_for_generation(&agent, 2);
    let mut user = bed.user(UE);
    user.post(BUY, "{}").expect("answer");
    user.post("/api/buttons/bid", "{}").expect("answer");
    settled(&agent, "delivered", 1);
    let [request] = receiver.recorded().try_into().expect("one event");
    assert_eq!(request.json()["http"]["path"], "/api/buttons/bid");
}

#[test]
fn a_bad_file_is_refused_with_its_place_and_the_old_rules_still_fire() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let mut agent = bed.start();
    bed.write("rules.yaml", &rules_with("match: {http: {methd: POST}}", "{}"));
    agent
        .wait_for_line(LIMIT, |line| line.contains("rules refused, generation 1 stays active"))
        .expect("refused");
    agent
        .wait_for_line(LIMIT, |line| {
            line.contains("rules.yaml:16:18:") && line.contains("did you mean \"method\"?")
        })
        .expect("the place");
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded().len(), 1);

    // Good again: taken, as generation 2.
    bed.write("rules.yaml", &rules("/catalog/"));
    wait_for_generation(&agent, 2);
    agent.must_run().expect("running");
}

/// A file system that hangs, or a pipe in a file's place, must not take the agent with it.
#[test]
fn a_pipe_in_the_place_of_the_rules_is_refused_and_the_agent_goes_on() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let mut agent = bed.start();
    fs::remove_file(bed.path("rules.yaml")).expect("removed");
    mkfifo(&bed.path("rules.yaml"), Mode::S_IRUSR).expect("a pipe");
    agent
        .wait_for_line(LIMIT, |line| line.contains("rules.yaml: is a pipe; expected a regular"))
        .expect("refused");
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded().len(), 1);
    assert!(agent.terminate(LIMIT).expect("it ends").success());
}

#[test]
fn rules_that_every_user_can_write_are_refused() {
    need_root!();
    let bed = Bed::new();
    let _receiver = bed.receiver();
    let agent = bed.start();
    let path = bed.write("rules.yaml", &rules("/catalog/elsewhere"));
    fs::set_permissions(&path, fs::Permissions::from_mode(0o646)).expect("permissions");
    agent.signal(Signal::SIGHUP).expect("signal");
    agent
        .wait_for_line(LIMIT, |line| line.contains("writable by every user (mode 0646)"))
        .expect("refused");
}
