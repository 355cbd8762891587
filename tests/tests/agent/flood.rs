//! A flood of matching packets: the traffic passes, the agent keeps within its memory, users are held
//! to their windows, what matters gets through, and every event that is not sent is counted.

use std::{
    sync::atomic::{AtomicBool, AtomicU64, Ordering},
    time::{Duration, Instant},
};

use pnet::datalink::{self, Channel, Config};
use testbed::{agent::Agent, need_root, receiver::Reply};

use crate::{
    bed::{
        BUY, Bed, SINK, UE, balanced, config_with, eventually, metric, rule_text, rules_with,
        status,
    },
    frames,
};

const FLOOD: Duration = Duration::from_secs(5);
const PRESSES: usize = 60;
/// Of the flood.
const USERS: u8 = 200;
/// What the agent may hold at most, in kB: a debug build under a flood of 4 s.
const MEMORY_KB: u64 = 150_000;

fn bed() -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  delivery: {{queue: 512, spool: {{directory: spool, maxSize: 4Mi, whenFull: priority}}}}
  limits: {{ringBytes: 1Mi}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let buy = format!("priority: 10\n  match: {{http: {{method: POST, path: {BUY}}}}}");
    let flood = "match: {http: {method: GET, path: /flood}}";
    let rules = rules_with(&buy, "{}")
        + &rule_text("flood", flood)
        + &rule_text("once", &format!("every: 1h\n  {flood}"));
    bed.write("rules.yaml", &rules);
    bed
}

/// A request of one of many users. Its checksums are wrong, so that
/// the application's host lets go of it as soon as it has counted it.
fn request(to: [u8; 6], user: u8) -> Vec<u8> {
    let ue = ([10, 60, 1, user], 40_000);
    let request = b"GET /flood HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut frame = frames::tcp4(ue, ([10, 45, 0, 10], 80), 0, |h| h.psh = true, request);
    frame[..6].copy_from_slice(&to);
    frame[24] ^= 0xff;
    frame
}

/// Sends as fast as it can; how many.
fn flood(bed: &Bed, to: [u8; 6], stop: &AtomicBool) -> u64 {
    let send = || {
        let device = datalink::interfaces().into_iter().find(|it| it.name == "ue0");
        let channel = datalink::channel(&device.expect("ue0"), Config::default());
        let Ok(Channel::Ethernet(mut sender, _)) = channel else { panic!("no packet socket") };
        let mut frames: Vec<Vec<u8>> = (0..USERS).map(|user| request(to, user)).collect();
        let (mut sent, mut sequence) = (0, 0u32);
        while !stop.load(Ordering::Relaxed) {
            sequence = sequence.wrapping_add(64);
            for frame in &mut frames {
                // A segment that was not seen before.
                frame[38..42].copy_from_slice(&sequence.to_be_bytes());
                sent += u64::from(matches!(sender.send_to(frame, None), Some(Ok(()))));
            }
        }
        sent
    };
    bed.ue.enter(send).expect("in the users' namespace")
}

/// IP packets that the application's host has received.
fn received(bed: &Bed) -> u64 {
    let snmp = bed.dn.enter(|| std::fs::read_to_string("/proc/thread-self/net/snmp"));
    let snmp = snmp.expect("entered").expect("snmp");
    let mut lines = snmp.lines().filter(|line| line.starts_with("Ip:"));
    let (names, values) = (lines.next().expect("names"), lines.next().expect("values"));
    let at = names.split(' ').position(|name| name == "InReceives").expect("InReceives");
    values.split(' ').nth(at).and_then(|value| value.parse().ok()).expect("a number")
}

fn peak_memory_kb(agent: &Agent<'_>) -> u64 {
    let text = std::fs::read_to_string(format!("/proc/{}/status", agent.pid())).expect("status");
    let line = text.lines().find_map(|line| line.strip_prefix("VmHWM:")).expect("VmHWM");
    line.trim().trim_end_matches(" kB").parse().expect("a number")
}

fn mac(bed: &Bed, device: &str) -> [u8; 6] {
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
    let (before, begun) = (received(&bed), Instant::now());
    let stop = AtomicBool::new(false);
    let answered = AtomicU64::new(0);
    let sent = std::thread::scope(|scope| {
        let flood = scope.spawn(|| flood(&bed, to, &stop));
        let mut user = bed.user(UE);
        for press in 0..PRESSES {
            let due = FLOOD.mul_f64(press as f64 / PRESSES as f64);
            std::thread::sleep(due.saturating_sub(begun.elapsed()));
            let answer = user.post(BUY, "{}").expect("the application answers");
            answered.fetch_add(u64::from(answer.status == 200), Ordering::Relaxed);
        }
        stop.store(true, Ordering::Relaxed);
        flood.join().expect("flooded")
    });
    let rate = sent as f64 / begun.elapsed().as_secs_f64();
    eventually("every packet has passed", || received(&bed) - before >= sent);
    assert_eq!(answered.into_inner(), PRESSES as u64);

    for rule in ["buy-click", "flood", "once"] {
        balanced(&agent, rule);
    }
    let books = status(&agent)["ledger"].clone();
    let count = |rule: &str, what: &str| books[rule][what].as_u64().expect("a count");
    let memory = peak_memory_kb(&agent);
    println!(
        "{rate:.0} matching packets/s, {sent} in all: {} lost in the kernel, {} emitted, {} kB at \
         most; {} of {PRESSES} presses emitted",
        count("flood", "lost_in_kernel"),
        count("flood", "emitted"),
        memory,
        count("buy-click", "emitted"),
    );
    assert_eq!(count("flood", "detected"), sent);
    assert_eq!((count("buy-click", "detected"), count("buy-click", "emitted")), (60, 60));
    // Of each user once; a record that was lost had opened its window.
    assert_eq!(count("once", "detected") - count("once", "suppressed"), u64::from(USERS));
    assert!(memory < MEMORY_KB, "{memory} kB");
    eventually("all that is not lost has been delivered", || {
        metric(&agent, "detector_ledger_in_flight", &[]) == 0.0
    });
    let presses = receiver.recorded();
    let presses = presses.iter().filter(|it| it.header("ce-rule") == "buy-click").count();
    assert_eq!(presses, PRESSES);
    agent.must_run().expect("running");
}
