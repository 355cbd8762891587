//! Packets that user space reads itself: the kernel programs show the same ones, with the same
//! bytes, as the software classifier does.

mod common;

use std::net::IpAddr;

use common::{kernel::Hook, pair::Pair};
use detector_common::{
    counter::Counter,
    event::{FLAG_BEHIND_GAP, FLAG_INSPECT, RecordHeader},
    inspect::BUDGET,
};
use detector_user::rules::{compile::compile, file};
use testbed::frames::{Packet, Tcp, http_request};

const UE: (IpAddr, u16) = (IpAddr::V4(std::net::Ipv4Addr::new(10, 60, 0, 2)), 40_000);
const HOOKS: [Hook; 3] = [Hook::Xdp, Hook::XdpFrags, Hook::Tc];

fn app(port: u16) -> (IpAddr, u16) {
    (IpAddr::from([10, 45, 0, 10]), port)
}

/// An application with one rule for each of these matches.
fn pair(hook: Hook, matches: &[&str]) -> Pair {
    let mut text = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: app}
spec: {endpoints: [{cidr: 10.45.0.10}, {cidr: 10.45.0.10, protocol: udp}]}
"
    .to_owned();
    for (number, wanted) in matches.iter().enumerate() {
        text += &format!(
            "---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: r{number}}}
spec: {{application: app, match: {wanted}, emit: {{type: t}}}}
"
        );
    }
    let set = file::parse(&[("rules.yaml", text.as_bytes())]).expect("rules");
    let image = compile(&set, &[], 1).expect("tables");
    Pair::with(hook, (set, image))
}

/// Sends frames; for each, the payload bytes that user space was shown of it, if it was.
fn shown(pair: &mut Pair, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Option<u32>> {
    let of = |header: RecordHeader| (header.flags & FLAG_INSPECT != 0).then_some(header.captured);
    frames.into_iter().map(|frame| pair.send(&frame).and_then(of)).collect()
}

fn segment(sequence: u32, payload: &[u8]) -> Vec<u8> {
    Packet::tcp(UE, app(443), Tcp::data(sequence), payload).frame()
}

fn datagram(port: u16, payload: &[u8]) -> Vec<u8> {
    Packet::udp(UE, app(port), payload).frame()
}

#[test]
fn a_stream_is_shown_until_its_budget_is_used_and_again_where_a_message_begins() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{tls: {sni: shop.example}}"]);
        let bulk = [0x55; 1400];
        let all = BUDGET.div_ceil(1400) as u32;
        let mut frames = vec![Packet::tcp(UE, app(443), Tcp::SYN, &[]).frame()];
        frames.extend((0..all + 3).map(|number| segment(1001 + number * 1400, &bulk)));
        let seen = shown(&mut pair, frames);
        let (within, beyond) = seen[1..].split_at(all as usize);
        assert!(within.iter().all(|shown| *shown == Some(1400)), "{hook:?}: {within:?}");
        assert_eq!(beyond, [None; 3], "{hook:?}: decided");
        let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252][..], &[7; 300]].concat();
        let again = [segment(90_000, &hello), segment(90_309, &bulk), segment(95_000, &bulk)];
        assert_eq!(shown(&mut pair, again), [Some(309), Some(1400), Some(1400)], "{hook:?}");
        // What the application sends is not asked for.
        let down = Packet::tcp(app(443), UE, Tcp::data(1), &bulk).frame();
        assert_eq!(shown(&mut pair, [down]), [None], "{hook:?}");
        pair.compare_memory();
    }
}

/// Of each frame that is shown, whether what came before it was not.
fn behind_gaps(pair: &mut Pair, frames: impl IntoIterator<Item = Vec<u8>>) -> Vec<Option<bool>> {
    let of = |header: RecordHeader| {
        let shown = header.flags & FLAG_INSPECT != 0;
        shown.then_some(header.flags & FLAG_BEHIND_GAP != 0)
    };
    frames.into_iter().map(|frame| pair.send(&frame).and_then(of)).collect()
}

#[test]
fn what_is_shown_behind_something_that_was_not_says_so_once() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{http: {host: shop.example}}"]);
        let request = http_request("GET", "/", "shop", "");
        let bulk = |number: u32| segment(1 + number * 1400, &[0x55; 1400]);
        let all = BUDGET.div_ceil(1400) as u32;
        let within = behind_gaps(&mut pair, (0..all).map(bulk));
        assert!(within.iter().all(|gap| *gap == Some(false)), "{hook:?}: {within:?}");
        let frames = [bulk(all), segment(40_000, &request), segment(40_200, &request)];
        let seen = behind_gaps(&mut pair, frames);
        assert_eq!(seen, [None, Some(true), Some(false)], "{hook:?}");
        pair.compare_memory();
    }
}

#[test]
fn flags_are_shown_of_a_stream_whose_budget_is_used() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{http: {host: shop.example}}", "{flow: {tcpFlags: PSH}}"]);
        let all = BUDGET.div_ceil(1400) as u32 + 3;
        let frames = (0..all).map(|number| segment(1 + number * 1400, &[0x55; 1400]));
        let seen = shown(&mut pair, frames);
        assert!(seen.iter().all(|shown| *shown == Some(1400)), "{hook:?}: {seen:?}");
    }
}

#[test]
fn datagrams_are_shown_that_look_like_what_is_asked_for() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair =
            pair(hook, &["{dns: {}}", "{quic: {}}", "{coap: {}}", "{payload: {at: 2, hex: cafe}}"]);
        let query = [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1][..], b"a\0\0\x01\0\x01"].concat();
        let frames = [
            datagram(5353, &query),
            datagram(443, &[0xc3; 1200]),
            datagram(5683, &[0x40, 1, 0, 7, 0xb1, b'a', 0xff, 1, 2]),
            datagram(9000, &[0, 0, 0xca, 0xfe, 1, 2, 3, 4, 5, 6, 7, 8]),
            datagram(9000, &[0, 0, 0xca, 0xff, 1, 2, 3, 4, 5, 6, 7, 8]),
            datagram(9000, &[0x80; 900]),
        ];
        let lengths = [Some(query.len() as u32), Some(1200), Some(9), Some(12), None, None];
        assert_eq!(shown(&mut pair, frames), lengths, "{hook:?}");
        pair.compare_memory();
    }
}

/// A DNS query, as `questions` stand on the wire.
fn query(count: u8, questions: &[u8]) -> Vec<u8> {
    datagram(53, &[&[0, 1, 1, 0, 0, count, 0, 0, 0, 0, 0, 0], questions].concat())
}

#[test]
fn of_dns_messages_those_are_shown_whose_name_rules_ask_for() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{dns: {name: [shop.example, '*.cdn.example']}}"]);
        let long = [&[63; 64][..], &[62; 63], &[61; 62], &[60; 61], b"\0\0\x01\0\x01"].concat();
        let frames: [(bool, Vec<u8>); 13] = [
            (true, query(1, b"\x04Shop\x07exAmple\0\0\x01\0\x01")),
            (true, query(1, b"\x01a\x01b\x03cdn\x07example\0\0\x1c\0\x01")),
            (false, query(1, b"\x03cdn\x07example\0\0\x01\0\x01")),
            (false, query(1, b"\x01a\x04shop\x07example\0\0\x01\0\x01")),
            (false, query(1, b"\x02de\0\0\x01\0\x01")),
            (true, query(1, &long)),
            (false, query(1, b"\x01a\x01b\x01c\x01d\x01e\x01f\x01g\x01h\0\0\x01\0\x01")),
            (true, query(1, b"\x01a\x01b\x01c\x01d\x01e\x01f\x01g\x01h\x01i\0\0\x01\0\x01")),
            (false, query(1, &[&[63; 64][..], &[60; 61], b"\0\0\x01\0\x01"].concat())),
            (true, query(2, b"\x02de\0\0\x01\0\x01\xc0\x0c\0\x1c\0\x01")),
            (true, query(1, b"\x02de\xc0\x0c\0\x01\0\x01")),
            (true, query(1, b"\x04shop\x07exam")),
            (true, query(1, b"")),
        ];
        for (number, (wanted, frame)) in frames.into_iter().enumerate() {
            let [seen] = shown(&mut pair, [frame])[..] else { panic!("one frame") };
            assert_eq!(seen.is_some(), wanted, "{hook:?}: {number}");
        }
        pair.compare_memory();
    }
}

#[test]
fn how_a_flow_begins_and_ends_is_shown_and_its_bytes_are_counted() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{flow: closed}"]);
        let fin = |sequence| Tcp { sequence, fin: true, ..Tcp::data(sequence) };
        let frames = [
            Packet::tcp(UE, app(80), Tcp::SYN, &[]).frame(),
            Packet::tcp(UE, app(80), Tcp::data(1001), b"bulk").frame(),
            Packet::tcp(UE, app(80), fin(1005), &[]).frame(),
            Packet::tcp(app(80), UE, fin(1), &[]).frame(),
        ];
        assert_eq!(shown(&mut pair, frames), [Some(0), None, Some(0), Some(0)], "{hook:?}");
        pair.compare_memory();
    }
}

#[test]
fn a_cut_request_line_is_shown_with_what_follows_it_and_a_whole_one_is_not() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{http: {method: GET, path: /catalog/1}}"]);
        let request = http_request("GET", "/catalog/1", "shop", "");
        let whole = segment(1, &request);
        assert_eq!(shown(&mut pair, [whole]), [None], "{hook:?}");
        let cut = [segment(500, b"GE"), segment(502, &request[2..9]), segment(509, &request[9..])];
        let lengths = [Some(2), Some(7), Some(request.len() as u32 - 9)];
        assert_eq!(shown(&mut pair, cut), lengths, "{hook:?}");
        pair.compare_memory();
        assert!(pair.software.counter(Counter::Inspected) == 3, "{hook:?}");
    }
}

#[test]
fn a_request_that_no_rule_allows_is_not_shown_if_nothing_goes_with_it() {
    testbed::need_root!();
    for hook in HOOKS {
        let mut pair = pair(hook, &["{http: {path: /cart, host: shop.example}}"]);
        let get = |path: &str, fill: usize| {
            let fill = "x".repeat(fill);
            format!("GET {path} HTTP/1.1\r\nHost: shop.example\r\nCookie: {fill}\r\n\r\n")
        };
        // Of every length around those that are looked through at a time, and of a full segment.
        let lengths = (8..78).chain([300, 900, 1380]);
        for (number, fill) in (1..).zip(lengths) {
            let (other, wanted) = (get("/index.html", fill), get("/cart/1", fill));
            let pipelined = [&other[..], "GET /cart HTTP/1.1\r\n\r\n"].concat();
            let at = number * 10_000;
            let frames = [(at, &other), (at + 3000, &wanted), (at + 6000, &pipelined)];
            let frames = frames.map(|(at, text)| segment(at, text.as_bytes()));
            let seen = shown(&mut pair, frames).into_iter().map(|shown| shown.is_some());
            assert_eq!(seen.collect::<Vec<_>>(), [false, true, true], "{hook:?}: {fill}");
        }
        pair.compare_memory();
    }
}
