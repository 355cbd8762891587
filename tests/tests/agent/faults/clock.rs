//! What happens to the time of day, by a library (libfaketime) that the agent asks instead of the
//! kernel: this machine's own clock is not ours to set.

use std::{path::PathBuf, time::Duration};

use testbed::{bpffs::BpfFs, need_root};

use super::{bed, happens, judge, mounts::Files, sink};
use crate::bed::LIMIT;

const A_WHILE: Duration = Duration::from_secs(2);

/// Debian's package libfaketime.
fn library() -> PathBuf {
    let beside = |arch: &str| format!("/usr/lib/{arch}-linux-gnu/faketime/libfaketimeMT.so.1");
    let places = [beside(std::env::consts::ARCH)].map(PathBuf::from);
    let found = places.into_iter().find(|path| path.is_file());
    found.expect("libfaketime: apt-get install libfaketime")
}

#[test]
fn a_clock_that_jumps_back_and_forth_costs_nothing_and_changes_no_id() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    let files = Files::new();
    files.write("time", "+0");
    let start = || {
        let mut command = bed.command();
        command.env("LD_PRELOAD", library());
        command.env("FAKETIME_TIMESTAMP_FILE", files.path("time"));
        // Asked anew each time; the clock of packets and timers stays as it is.
        command.env("FAKETIME_NO_CACHE", "1").env("FAKETIME_DONT_FAKE_MONOTONIC", "1");
        let mut agent = bed.spawn_command(command);
        agent.wait_until_ready(LIMIT).expect("ready");
        agent
    };
    let (scene, pressed) = happens(&bed, start(), |scene| {
        // Two hours back while events wait in the spool, and over a kill; an hour forward after it.
        scene.sink_away();
        scene.wait_until_probed();
        files.write("time", "-7200");
        std::thread::sleep(A_WHILE);
        scene.wait_for_spooled(100.0);
        scene.agent.signal(nix::sys::signal::Signal::SIGKILL).expect("signal");
        scene.agent.wait(LIMIT).expect("killed");
        scene.agent = start();
        std::thread::sleep(A_WHILE);
        files.write("time", "+3600");
        std::thread::sleep(A_WHILE);
        scene.sink_back();
    });
    judge("clock 2 h back, a SIGKILL, 3 h forward, while the sink is away", &scene, &pressed);
    // The jumps were seen: events of before, between and after.
    let hour = |request: &testbed::receiver::Recorded| {
        request.header("ce-time").get(..13).map(str::to_owned)
    };
    let hours: std::collections::BTreeSet<_> = scene.recorded().iter().filter_map(hour).collect();
    assert!(hours.len() >= 3, "{hours:?}");
}
