//! What happens to the disk that the spool is on.

use std::{fs, time::Duration};

use testbed::{bpffs::BpfFs, need_root};

use super::{
    Row, bed, happens,
    mounts::{ReadOnly, Tmpfs},
    segments, sink, spool, survives,
};
use crate::{
    bed::{LIMIT, balanced, eventually, metric},
    killed::twice_is_the_same,
};

/// So long events come that no disk takes; a few hundred, for which memory has room.
const A_WHILE: Duration = Duration::from_secs(2);

fn errors(agent: &testbed::agent::Agent<'_>, reason: &str) -> f64 {
    let label = format!("reason=\"{reason}\"");
    metric(agent, "detector_spool_errors_total", &[&label])
}

#[test]
fn a_full_disk_costs_nothing_while_memory_has_room() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    let disk = Tmpfs::mount(&bed.path("spool"), 512 << 10);
    survives("disk full while the sink is away", &bed, |scene| {
        let filler = disk.fill();
        scene.sink_away();
        eventually("the spool has met the full disk", || errors(&scene.agent, "disk_full") > 0.0);
        std::thread::sleep(A_WHILE);
        fs::remove_file(filler).expect("room again");
        scene.wait_for_spooled(100.0);
        scene.sink_back();
    });
}

#[test]
fn a_directory_that_becomes_read_only_costs_nothing_while_memory_has_room() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    survives("spool's directory read-only while the sink is away", &bed, |scene| {
        let read_only = ReadOnly::mount(&spool(scene.bed));
        scene.sink_away();
        eventually("the spool has met it", || errors(&scene.agent, "read_only") > 0.0);
        std::thread::sleep(A_WHILE);
        drop(read_only);
        scene.wait_for_spooled(100.0);
        scene.sink_back();
    });
}

#[test]
fn of_a_corrupt_segment_everything_else_is_delivered_and_what_is_missing_is_counted() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let bed = bed(&pins, &sink(), "");
    let agent = bed.start();
    let (scene, pressed) = happens(&bed, agent, |scene| {
        scene.sink_away();
        scene.wait_until_probed();
        std::thread::sleep(A_WHILE);
        scene.wait_for_spooled(100.0);
        assert!(scene.agent.terminate(LIMIT).expect("it ends").success());
        let segment = segments(&spool(scene.bed)).remove(0);
        let mut bytes = fs::read(&segment).expect("a segment");
        let middle = bytes.len() / 2;
        bytes[middle] ^= 0xff;
        fs::write(&segment, bytes).expect("written");
        scene.sink_back();
        scene.agent = scene.bed.start();
    });
    let Row { presses, lost, .. } = Row::of("a byte of a segment flipped", &scene, &pressed);
    Row::of("a byte of a segment flipped", &scene, &pressed).print();
    let agent = &scene.agent;
    let (damaged, missing) = (errors(agent, "damaged"), errors(agent, "missing"));
    assert_eq!((damaged, missing), (1.0, 1.0), "of {presses}");
    // It may have been a session's begin or end.
    assert!(lost <= 1, "{lost} presses");
    agent
        .wait_for_line(LIMIT, |line| {
            line.contains("a place in the spool cannot be read") && line.contains(".spool")
        })
        .expect("its name and place");
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(agent, rule));
    twice_is_the_same(&scene.recorded());
}
