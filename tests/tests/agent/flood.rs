//! A flood of matching packets, as fast as this machine makes them: the traffic passes, the agent keeps
//! within its budget of processor time and memory, users are held to their windows, what matters gets
//! through, and every event that is not sent is counted.

use std::{
    collections::BTreeMap,
    path::PathBuf,
    sync::atomic::{AtomicBool, Ordering},
    time::{Duration, Instant},
};

use aya::{
    EbpfLoader,
    programs::{TestRun as _, TestRunAttrs, TestRunOptions, Xdp},
};
use testbed::{
    agent::Agent,
    need_root,
    receiver::{Recorded, Reply},
};

use crate::{
    bed::{
        BUY, Bed, LIMIT, SINK, UE, balanced, config_with, eventually, metric, rule_text,
        rules_with, status,
    },
    frames,
    stop::Stop,
};

const FLOOD: Duration = Duration::from_secs(5);
const PRESSES: usize = 60;
/// Of the flood: see `detector_bench_flood`.
const USERS: u64 = 128;
/// What the agent may hold at most, in kB: a debug build, a queue of 512 and a spool of 4 MiB.
const MEMORY_KB: u64 = 150_000;
/// Cores.
const CPU: f64 = 0.1;

/// Matches that user space decides, whom the kernel shows the packets.
const READ: &str = "match: {http: {method: GET, path: /flood, headers: {host: shop}}}";
const OFTEN: &str = "match: {payload: {text: GET /flood}, rate: {packets: 3, within: 1h}}";

fn bed() -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  delivery: {{queue: 512, spool: {{directory: spool, maxSize: 4Mi, whenFull: priority}}}}
  limits: {{ringBytes: 1Mi, cpu: {CPU}}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let buy = format!("priority: 10\n  match: {{http: {{method: POST, path: {BUY}}}}}");
    let flood = "match: {http: {method: GET, path: /flood}}";
    let rules = rules_with(&buy, "{}")
        + &rule_text("flood", flood)
        + &rule_text("once", &format!("every: 1h\n  {flood}"))
        + &rule_text("read-once", &format!("every: 1h\n  {READ}"))
        + &rule_text("often", &format!("every: 1h\n  {OFTEN}"));
    bed.write("rules.yaml", &rules);
    bed
}

/// A request of one of many users. Its checksum is wrong, so that the application's host lets go of it
/// as soon as it has counted it.
fn request(to: [u8; 6]) -> Vec<u8> {
    let request = b"GET /flood HTTP/1.1\r\nHost: shop\r\n\r\n";
    let (ue, app) = (([10, 60, 1, 1], 40_000), ([10, 45, 0, 10], 80));
    let mut frame = frames::tcp4(ue, app, 0, |h| h.psh = true, request);
    frame[..6].copy_from_slice(&to);
    frame[24] ^= 0xff;
    frame
}

/// Sends as fast as the kernel can, by test runs of a program with live frames.
pub(crate) fn flood(bed: &Bed, to: [u8; 6], stop: &AtomicBool) {
    const AT_ONCE: u32 = 64;
    let send = || {
        let device = nix::net::if_::if_nametoindex("ue0").expect("ue0");
        let mut programs = EbpfLoader::new()
            .override_global("DEVICE", &device, true)
            .load_file(object())
            .expect("the bench programs load");
        let program = programs.program_mut("detector_bench_flood").expect("is in the object");
        let program: &mut Xdp = program.try_into().expect("XDP");
        program.load().expect("loads");
        let frame = request(to);
        while !stop.load(Ordering::Relaxed) {
            let options = TestRunOptions {
                data_in: Some(&frame),
                repeat: 1_000 * AT_ONCE,
                attrs: TestRunAttrs::new().xdp_live_frames(AT_ONCE),
                ..TestRunOptions::new()
            };
            program.test_run(options).expect("sent");
        }
    };
    bed.ue.enter(send).expect("in the users' namespace");
}

/// `target/bpf/bench.bpf.o`.
fn object() -> PathBuf {
    let here = std::env::current_exe().expect("this file");
    let mut places = here.ancestors().map(|place| place.join("bpf/bench.bpf.o"));
    places.find(|place| place.is_file()).expect("`cargo xtask build`")
}

/// Packets with a wrong checksum that the application's host has received.
fn flooded(bed: &Bed) -> u64 {
    let snmp = bed.dn.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let snmp = snmp.expect("entered").expect("snmp");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "InHdrErrors").expect("InHdrErrors");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}

/// Processor time that the agent has used, all threads, in the kernel and outside.
fn cpu(agent: &Agent<'_>) -> Duration {
    let text = std::fs::read_to_string(format!("/proc/{}/stat", agent.pid())).expect("stat");
    let (_, rest) = text.rsplit_once(") ").expect("a name");
    // proc_pid_stat(5): utime and stime are the 14th and 15th field, in ticks of 10 ms.
    let ticks = rest.split(' ').skip(11).take(2).map(|field| field.parse::<u64>());
    Duration::from_millis(10 * ticks.sum::<Result<u64, _>>().expect("numbers"))
}

pub(crate) fn peak_memory_kb(agent: &Agent<'_>) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

pub(crate) fn mac(bed: &Bed, device: &str) -> [u8; 6] {
    let text = bed.describe(device);
    let (_, rest) = text.split_once("link/ether ").expect("an address");
    let bytes = rest.split([' ', ':']).take(6).map(|byte| u8::from_str_radix(byte, 16));
    bytes.collect::<Result<Vec<_>, _>>().expect("hex").try_into().expect("six bytes")
}

#[test]
fn a_flood_of_matches_is_counted_and_costs_neither_traffic_nor_what_matters() {
    need_root!();
    let bed = bed();
    let receiver = bed.receiver();
    receiver.answer(Reply::status(202));
    let mut agent = bed.start();
    let to = mac(&bed, "n6");
    let (before, begun) = (cpu(&agent), Instant::now());
    let stop = AtomicBool::new(false);
    let answered = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&bed, to, &stop));
        // Somebody who looks all the time.
        scope.spawn(|| {
            while !stop.load(Ordering::Relaxed) {
                status(&agent);
                metric(&agent, "detector_records_total", &[]);
            }
        });
        let stop = Stop(&stop);
        let mut user = bed.user(UE);
        let press = |press: usize| {
            let due = FLOOD.mul_f64(press as f64 / PRESSES as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            user.post(BUY, "{}").expect("the application answers").status == 200
        };
        let answered = (0..PRESSES).map(press).filter(|answered| *answered).count();
        drop(stop);
        flood.join().expect("flooded");
        answered
    });
    let (used, took) = ((cpu(&agent) - before).as_secs_f64(), begun.elapsed().as_secs_f64());
    assert_eq!(answered, PRESSES, "users notice nothing");

    for rule in ["buy-click", "flood", "once", "read-once", "often"] {
        balanced(&agent, rule);
    }
    let books = status(&agent)["ledger"].clone();
    let count = |rule: &str, what: &str| books[rule][what].as_u64().expect("a count");
    let (detected, memory) = (count("flood", "detected"), peak_memory_kb(&agent));
    println!(
        "{:.0} matching packets/s, {detected} in all: {} lost in the kernel, {} emitted; {:.2} \
         cores and at most {memory} kB; {} of {PRESSES} presses emitted",
        detected as f64 / took,
        count("flood", "lost_in_kernel"),
        count("flood", "emitted"),
        used / took,
        count("buy-click", "emitted"),
    );
    // Every packet that a program saw has reached the host.
    eventually("every packet has passed", || flooded(&bed) >= detected);
    assert_eq!(flooded(&bed), detected);
    assert_eq!((count("buy-click", "detected"), count("buy-click", "emitted")), (60, 60));
    // Of each user once; a record that was lost had opened its window.
    assert_eq!(count("once", "detected") - count("once", "suppressed"), USERS);
    // A second's worth may have been saved up; a tenth of one is what was begun when it was used up.
    assert!(used <= CPU * (took + 1.0) + 0.1, "{used} s of processor time in {took} s");
    assert!(memory < MEMORY_KB, "{memory} kB");
    // Awaited where it arrives: what the agent says of itself may be of a moment ago.
    let delivered = receiver.recorded().len();
    let left = metric(&agent, "detector_ledger_in_flight", &[]) as usize;
    receiver.wait_for(delivered + left, 2 * LIMIT).expect("all that is not lost");
    eventually("all that is not lost has been delivered", || {
        metric(&agent, "detector_ledger_in_flight", &[]) == 0.0
    });
    let recorded = receiver.recorded();
    let presses = recorded.iter().filter(|it| it.header("ce-rule") == "buy-click").count();
    assert_eq!(presses, PRESSES);
    ["once", "read-once", "often"].iter().for_each(|rule| once_for_each_user(rule, &recorded));
    agent.must_run().expect("running");
}

/// The rule's `every` is an hour.
fn once_for_each_user(rule: &str, recorded: &[Recorded]) {
    let mut events: BTreeMap<&str, usize> = BTreeMap::new();
    for event in recorded.iter().filter(|it| it.header("ce-rule") == rule) {
        *events.entry(event.header("ce-ueip")).or_default() += 1;
    }
    println!("{rule}: events for {} users", events.len());
    assert!(!events.is_empty(), "{rule} fires");
    assert!(events.values().all(|count| *count == 1), "{rule}: {events:?}");
}
