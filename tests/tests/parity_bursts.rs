//! Packets that go in bursts: the kernel programs count them beside the session, and what the agent
//! reads is the same as if they had not.

mod common;

use std::net::IpAddr;

use common::{
    kernel::{Hook, inject},
    pair::Pair,
};
use detector_common::{
    counter::Counter,
    event::{FLAG_INSPECT, FLAG_SESSION_STARTED, RecordHeader},
    state::{SessionKey, SessionSnapshot},
};
use detector_user::{
    rules::{compile::compile, file},
    source::session_map::Sessions as _,
};
use testbed::frames::{Packet, Tcp};
use zerocopy::FromBytes as _;

const UE: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 60, 0, 2)), 40_000);
const APP: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 45, 0, 10)), 80);
const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpFrags, Hook::Tc];
const BULK: [u8; 1400] = [0x17; 1400];

const REQUEST: &[u8] = b"POST /api/buttons/buy HTTP/1.1\r\n\r\n";

const RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec: {endpoints: [{cidr: 10.45.0.10, ports: [80]}]}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: buy}
spec: {application: shop, match: {http: {method: POST, path: /api/buttons/buy}}, emit: {type: t}}
";

fn pair(hook: Hook) -> Pair {
    let set = file::parse(&[("rules.yaml", RULES.as_bytes())]).expect("rules");
    let image = compile(&set, &[], 1).expect("tables");
    let mut pair = Pair::with(hook, (set, image));
    pair.send(&Packet::tcp(UE, APP, Tcp::SYN, &[]).frame());
    pair
}

fn up(sequence: u32, payload: &[u8]) -> Vec<u8> {
    Packet::tcp(UE, APP, Tcp::data(sequence), payload).frame()
}

fn down(sequence: u32, payload: &[u8]) -> Vec<u8> {
    Packet::tcp(APP, UE, Tcp::data(sequence), payload).frame()
}

fn key(pair: &mut Pair) -> SessionKey {
    let keys = pair.kernel.sessions.keys();
    assert_eq!(keys.len(), 1);
    keys[0]
}

/// Counts packets until some of them are in a burst only; gives how many were sent, and the
/// session without and with its bursts. A kernel tick may end between counting and reading.
fn in_a_burst(
    pair: &mut Pair,
    hook: Hook,
    frame: &[u8],
) -> (u64, SessionSnapshot, SessionSnapshot) {
    const AT_ONCE: u32 = 100;
    let key = key(pair);
    let mut sent = 0;
    for _ in 0..50 {
        inject(&mut pair.kernel, hook, frame, AT_ONCE);
        sent += u64::from(AT_ONCE);
        let settled = pair.kernel.sessions.settled(&key).expect("a session");
        let whole = pair.kernel.sessions.get(&key).expect("a session");
        if settled.packets != whole.packets {
            return (sent, settled, whole);
        }
    }
    panic!("{hook:?}: no packet was ever counted in a burst");
}

#[test]
fn packets_in_a_burst_are_in_the_sums_that_are_read() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook);
        let frame = down(1, &BULK);
        let (sent, settled, whole) = in_a_burst(&mut pair, hook, &frame);
        let frame = frame.len() as u64;
        assert_eq!((whole.packets[1], whole.bytes[1]), (sent, sent * frame), "{hook:?}");
        assert!(settled.packets[1] < sent && settled.bytes[1] < sent * frame, "{hook:?}");
        assert_eq!(whole.packets[0], 1, "{hook:?}: the SYN");
    }
}

#[test]
fn a_request_in_a_burst_is_told_once_and_is_in_the_sums_that_are_read() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook);
        let (sent, settled, whole) = in_a_burst(&mut pair, hook, &up(1001, REQUEST));
        assert_eq!(whole.packets[0], 1 + sent, "{hook:?}: the SYN, and the requests");
        assert!(settled.packets[0] < 1 + sent, "{hook:?}");
        let again = pair.kernel.counters.get(Counter::Retransmissions).expect("counters");
        assert_eq!(again, sent - 1, "{hook:?}: the others are the same segment");
        let mut told = 0;
        while let Some(record) = pair.kernel.ring.next() {
            let header = RecordHeader::read_from_prefix(&record).expect("whole").0;
            assert_eq!(header.session_start_ns, whole.start_ns, "{hook:?}");
            told += header.rule_count;
        }
        assert_eq!(told, 1, "{hook:?}");
    }
}

#[test]
fn a_reload_ends_the_burst_so_that_requests_are_judged_by_the_new_rules() {
    testbed::need_root!();
    let of_another_ue = RULES.replace("match:", "ue: [10.60.0.3], match:");
    for hook in HOOKS {
        let mut pair = pair(hook);
        for (number, (text, matches)) in
            (0..).zip([(RULES, true), (of_another_ue.as_str(), false), (RULES, true)])
        {
            let set = file::parse(&[("rules.yaml", text.as_bytes())]).expect("rules");
            let image = compile(&set, &[], 2 + number).expect("tables");
            pair.kernel.rules.swap(&image, &set.rules).expect("rules are written");
            pair.software.swap(image);
            for packet in 0..5 {
                let record = pair.send(&up(1000 * number + packet, REQUEST));
                assert_eq!(record.is_some(), matches, "{hook:?}: {text}");
            }
        }
        pair.compare_memory();
    }
}

#[test]
fn a_conversation_in_bursts_is_counted_as_the_software_counts_it() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook);
        for number in 0..200 {
            pair.send(&up(1001 + number, if number % 3 == 0 { b"" } else { &BULK }));
            pair.send(&down(number * 1400, &BULK));
            if number % 50 == 0 {
                let request = up(500_000 + number, REQUEST);
                let record = pair.send(&request).expect("a match");
                assert_eq!(record.rule_count, 1, "{hook:?}");
                assert_eq!(pair.send(&request), None, "{hook:?}: the same segment again");
                let other = up(600_000 + number, b"GET /api/buttons/buy HTTP/1.1\r\n\r\n");
                assert_eq!(pair.send(&other), None, "{hook:?}: another method");
            }
        }
        pair.compare_memory();
    }
}

#[test]
fn a_cut_request_ends_the_burst_so_that_its_rest_is_shown() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook);
        for number in 0..20 {
            pair.send(&up(2000 + number, &BULK));
        }
        let shown = |record: Option<RecordHeader>| {
            record.is_some_and(|header| header.flags & FLAG_INSPECT != 0)
        };
        assert!(shown(pair.send(&up(90_000, b"POST /api/but"))), "{hook:?}");
        assert!(shown(pair.send(&up(90_013, b"tons/buy HTTP/1.1\r\n\r\n"))), "{hook:?}");
        pair.compare_memory();
    }
}

#[test]
fn a_session_that_begins_again_does_not_get_the_burst_of_the_one_that_ended() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook);
        in_a_burst(&mut pair, hook, &down(1, &BULK));
        let key = key(&mut pair);
        pair.kernel.sessions.remove(&key);
        assert_eq!(pair.kernel.sessions.get(&key), None, "{hook:?}");
        // Enough for the tick to end, and for the old burst to make room.
        let frame = up(3000, &BULK);
        let mut sent = 0;
        while sent < 100_000 {
            inject(&mut pair.kernel, hook, &frame, 1000);
            sent += 1000;
        }
        let session = pair.kernel.sessions.get(&key).expect("begun again");
        assert_eq!(session.packets, [sent, 0], "{hook:?}");
        let record = pair.kernel.ring.next().expect("the notice of the new session").to_vec();
        let header = RecordHeader::read_from_prefix(&record).expect("whole").0;
        assert!(header.flags & FLAG_SESSION_STARTED != 0, "{hook:?}");
    }
}
