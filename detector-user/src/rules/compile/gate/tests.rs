use std::time::Instant;

use detector_common::packet::Layer;
use proptest::{collection::vec, prelude::*, sample::select};
use uuid::Uuid;

use crate::{
    replay::{FileOutside, Packet, SoftwarePath},
    rules::{compile::compile, file, model::RuleSet},
    source::software::SoftwareClassifier,
};

/// Rules of a shop, one for each of these matches.
fn rules(matches: &[&str]) -> RuleSet {
    let mut text = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec: {endpoints: [{cidr: 10.45.0.10, ports: [80]}]}
"
    .to_owned();
    for (number, wanted) in matches.iter().enumerate() {
        text += &format!(
            "---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: r{number}}}
spec: {{application: shop, match: {wanted}, emit: {{type: t}}}}
"
        );
    }
    file::parse(&[("rules.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

const SYN: u8 = 2;
const ACK: u8 = 16;
const FIN: u8 = 1;

/// A segment of the user's, as raw IP.
fn segment(sequence: u32, flags: u8, payload: &[u8]) -> Vec<u8> {
    let [high, low] = (40 + payload.len() as u16).to_be_bytes();
    let ip = [0x45, 0, high, low, 0, 0, 0, 0, 64, 6, 0, 0, 10, 60, 0, 2, 10, 45, 0, 10];
    let ports = [[0x9c, 0x40], [0, 80]].concat();
    let rest = [0x50, flags, 255, 255, 0, 0, 0, 0];
    [&ip[..], &ports, &sequence.to_be_bytes(), &[0; 4], &rest, payload].concat()
}

/// Whether user space is shown a segment of an open connection.
fn shown(set: &RuleSet, payload: &[u8]) -> bool {
    let mut software = SoftwareClassifier::new(compile(set, &[], 1).expect("compiles"));
    // The session's begin is a record of its own.
    software.inspect(&segment(0, SYN, &[]), Layer::Ip, 1, 1);
    software.inspect(&segment(1, ACK, payload), Layer::Ip, 1, 2).is_some()
}

/// A request as browsers write it.
fn request(method: &str, target: &str) -> Vec<u8> {
    format!("{method} {target} HTTP/1.1\r\nHost: shop.example\r\nUser-Agent: Mozilla/5.0\r\nAccept: */*\r\n\r\n")
        .into_bytes()
}

#[test]
fn requests_that_no_rule_allows_stay_out_of_the_ring() {
    let set = rules(&[
        "{http: {method: GET, path: /cart, headers: {x-app: '1'}}}",
        "{http: {pathGlob: /api/*/buy}, rate: {packets: 2, within: 1s}}",
        "{http: {pathRegex: '^/(help|pay)/', host: shop.example}}",
        "{http: {method: DELETE}, not: {http: {host: a.example}}}",
        "{http: {method: HEAD, path: [/one, /two], host: shop.example}}",
    ]);
    let of = |method, target| shown(&set, &request(method, target));
    for (method, target) in [
        ("GET", "/cart"),
        ("GET", "/cart?item=1"),
        ("GET", "/api/v1/buy"),
        ("PUT", "/api/v1/buy"),
        ("GET", "/help/me"),
        ("OPTIONS", "/pay/"),
        ("DELETE", "/whatever"),
        ("HEAD", "/one"),
        ("HEAD", "/two?x"),
    ] {
        assert!(of(method, target), "{method} {target}");
    }
    for (method, target) in [
        ("GET", "/"),
        ("GET", "/index.html"),
        ("HEAD", "/cart"),
        ("GET", "/one"),
        ("HEAD", "/three"),
        ("TRACE", "/about/help/"),
        ("OPTIONS", "/favicon.ico"),
    ] {
        assert!(!of(method, target), "{method} {target}");
    }
}

#[test]
fn what_is_not_one_whole_request_is_shown() {
    let set = rules(&["{http: {path: /cart, headers: {x-app: '1'}}}"]);
    let (other, wanted) = (request("GET", "/index.html"), request("POST", "/cart"));
    assert!(!shown(&set, &other));
    let cases: [(&str, Vec<u8>); 12] = [
        ("cut in its head", other[..other.len() - 1].to_vec()),
        ("cut in its method", b"GE".to_vec()),
        ("with a body", [&other[..], b"GET"].concat()),
        ("pipelined", [&other[..], &wanted].concat()),
        ("pipelined behind bare line feeds", [b"GET / HTTP/1.1\n\n", &wanted[..]].concat()),
        ("pipelined behind returns", [b"GET / HTTP/1.1\r\r", &wanted[..]].concat()),
        ("in absolute form", request("GET", "http://shop.example/index.html")),
        ("of a method that may have a body", request("POST", "/index.html")),
        ("a tunnel", request("CONNECT", "shop.example:443")),
        ("another method", request("get", "/index.html")),
        ("behind an empty line", [b"\r\n", &other[..]].concat()),
        ("HTTP/2", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec()),
    ];
    for (what, payload) in cases {
        assert!(shown(&set, &payload), "{what}");
    }
}

#[test]
fn one_rule_on_every_request_or_on_other_messages_is_shown_all() {
    let other = request("GET", "/index.html");
    let closed = "{http: {path: /cart, host: shop.example}}";
    assert!(!shown(&rules(&[closed]), &other));
    for open in [
        "{http: {host: shop.example}}",
        "{http: {path: /c, host: shop.example}}",
        "{http: {pathRegex: /cart}}",
        "{http: {path: /cart, status: 5xx}}",
        "{tls: {sni: shop.example}}",
        "{payload: {hex: '474554', at: 0}}",
        "{flow: {tcpFlags: ACK}}",
    ] {
        assert!(shown(&rules(&[closed, open]), &other), "{open}");
    }
    // A rule of the kernel's is no reason, nor is one on how flows end.
    for beside in ["{http: {path: /other}}", "{flow: opened}", "{flow: closed}"] {
        assert!(!shown(&rules(&[closed, beside]), &other), "{beside}");
    }
}

#[test]
fn rules_of_more_paths_than_the_tables_hold_still_compile() {
    let paths: Vec<String> = (0..100).map(|n| format!("/p{n:03}/x")).collect();
    let many = format!("{{http: {{method: POST, path: [{}]}}}}", paths.join(", "));
    let set = rules(&vec![many.as_str(); 900]);
    assert!(!shown(&set, &request("GET", "/p001/x")), "by the method");
}

/// What a user sends: requests that rules ask for and others, as clients of all kinds write them.
fn message() -> impl Strategy<Value = Vec<u8>> {
    let method = select(vec!["GET", "GET", "HEAD", "POST", "PUT", "OPTIONS", "get", "PROPFIND"]);
    let target = select(vec![
        "/",
        "/cart",
        "/cart/1",
        "/index.html",
        "/api/v1/buy",
        "/api",
        "http://shop/cart",
        "*",
    ]);
    let end = select(vec!["\r\n", "\r\n", "\r\n", "\n", "\r"]);
    let body = select(vec!["", "", "{}", "GET /cart HTTP/1.1\r\n\r\n"]);
    let before = select(vec!["", "", "", "", "\r\n"]);
    (method, target, end, body, before).prop_map(|(method, target, end, body, before)| {
        let length = match body {
            "" => String::new(),
            body => format!("Content-Length: {}{end}", body.len()),
        };
        format!(
            "{before}{method} {target} HTTP/1.1{end}Host: shop.example{end}\
             User-Agent: Mozilla/5.0 (X11){end}X-App: 1{end}{length}{end}{body}"
        )
        .into_bytes()
    })
}

/// The rules that fire on a connection whose segments come in this order.
fn fired(matches: &[&str], segments: &[(u32, Vec<u8>)]) -> Vec<String> {
    let outside = FileOutside::new("test");
    let mut path = SoftwarePath::new(rules(matches), &[], Uuid::nil(), outside).expect("rules");
    let end = segments.iter().map(|(at, bytes)| at + bytes.len() as u32).max().unwrap_or(1);
    let data = segments.iter().map(|(at, bytes)| segment(*at, ACK, bytes));
    let all = [segment(0, SYN, &[])].into_iter().chain(data).chain([segment(end, FIN | ACK, &[])]);
    let mut names = Vec::new();
    for (time_ns, bytes) in (1..).zip(all) {
        let packet = Packet { time_ns, ifindex: 0, layer: Layer::Ip, bytes: &bytes };
        let found = path.packet(&packet, Instant::now());
        names.extend(found.into_iter().map(|detection| detection.rule.name.clone()));
    }
    names.sort();
    names
}

proptest! {
    #[test]
    fn what_stays_out_matches_no_rule(
        messages in vec(message(), 1..8),
        lengths in vec(prop_oneof![3 => Just(0), 1 => 1..200usize], 1..20),
        late in vec(0..12usize, 0..3),
    ) {
        let wanted = [
            "{http: {path: /cart, host: shop.example}}",
            "{http: {method: [POST, HEAD], pathGlob: /api/**, headers: {x-app: '1'}}}",
            "{http: {method: PUT, host: shop.example}}",
        ];
        let mut segments = Vec::new();
        let mut lengths = lengths.into_iter().cycle();
        let mut at = 1;
        for message in &messages {
            let mut rest = &message[..];
            while !rest.is_empty() {
                let cut = lengths.next().filter(|cut| *cut > 0).unwrap_or(rest.len());
                let (piece, behind) = rest.split_at(cut.min(rest.len()));
                segments.push((at, piece.to_vec()));
                at += piece.len() as u32;
                rest = behind;
            }
        }
        for place in late {
            if place + 1 < segments.len() {
                segments.swap(place, place + 1);
            }
        }
        let gated = fired(&wanted, &segments);
        // This rule never fires, and has everything shown.
        let open = fired(&[&wanted[..], &["{http: {host: nobody.example}}"]].concat(), &segments);
        prop_assert_eq!(gated, open);
    }
}
