//! What happens to the sink, and to its name.

use std::time::Duration;

use nix::sys::signal::Signal;
use testbed::{bpffs::BpfFs, need_root, receiver::Reply};

use super::{bed, mounts::Files, sink, survives};
use crate::bed::{LIMIT, SINK, eventually, metric};

/// Long enough for the breaker to open, and for all that happens to be on disk.
const A_WHILE: Duration = Duration::from_secs(2);

#[test]
fn a_sink_that_is_away_costs_nothing_though_the_agent_is_killed_and_restarted_meanwhile() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    survives("sink away; SIGKILL and SIGTERM meanwhile", &bed, |scene| {
        scene.sink_away();
        scene.wait_until_probed();
        std::thread::sleep(A_WHILE);
        scene.wait_for_spooled(100.0);
        scene.agent.signal(Signal::SIGKILL).expect("signal");
        scene.agent.wait(LIMIT).expect("killed");
        scene.agent = scene.bed.start();
        std::thread::sleep(A_WHILE);
        assert!(scene.agent.terminate(LIMIT).expect("it ends").success());
        scene.agent = scene.bed.start();
        scene.sink_back();
    });
}

#[test]
fn a_sink_that_answers_late_or_never_costs_nothing() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "timeout: 400ms");
    survives("sink slow: 250 ms an answer, then none within the time-out", &bed, |scene| {
        scene.answer(Reply::Status(202, Duration::from_millis(250)));
        std::thread::sleep(A_WHILE);
        // The receiver has them, and says so when nobody waits any longer.
        scene.answer(Reply::Status(202, Duration::from_secs(1)));
        scene.wait_until_probed();
        scene.answer(Reply::status(202));
    });
}

#[test]
fn a_sink_that_restarts_again_and_again_costs_nothing() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    survives("sink restarting: 500, resets, nobody listening, three times", &bed, |scene| {
        const STEP: Duration = Duration::from_millis(300);
        for _ in 0..3 {
            for reply in [Reply::status(500), Reply::Reset] {
                scene.answer(reply);
                std::thread::sleep(STEP);
            }
            scene.sink_away();
            std::thread::sleep(STEP);
            scene.sink_back();
            std::thread::sleep(STEP);
        }
    });
}

#[test]
fn a_name_that_cannot_be_resolved_any_longer_costs_nothing() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let (_, port) = SINK.split_once(':').expect("a port");
    let bed = bed(&pins, &format!("http://broker.test:{port}/"), "");
    let files = Files::new();
    files.write("resolv.conf", "nameserver 127.0.0.1\noptions timeout:1 attempts:1\n");
    files.write("hosts", "127.0.0.1 localhost broker.test\n");
    let mut command = bed.command();
    files.over(&mut command, &[("hosts", "/etc/hosts"), ("resolv.conf", "/etc/resolv.conf")]);
    let mut agent = bed.spawn_command(command);
    agent.wait_until_ready(LIMIT).expect("ready");
    let (scene, pressed) = super::happens(&bed, agent, |scene| {
        files.write("hosts", "127.0.0.1 localhost\n");
        // Connections that are open need no name.
        scene.answer(Reply::Close);
        scene.wait_until_probed();
        scene.answer(Reply::status(202));
        let reached = scene.recorded().len();
        let failed = || metric(&scene.agent, "detector_delivery_attempts_total", &["network"]);
        let before = failed();
        eventually("attempts fail for want of an address", || failed() > before);
        scene.wait_for_spooled(100.0);
        assert_eq!(scene.recorded().len(), reached, "nothing gets through without a name");
        files.write("hosts", "127.0.0.1 localhost broker.test\n");
    });
    super::judge("the sink's name gone from DNS", &scene, &pressed);
}
