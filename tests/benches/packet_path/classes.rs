//! What a packet costs whose class user space reads itself: it is shown with its bytes, or it is not
//! what rules ask for.

use std::net::{IpAddr, Ipv4Addr};

use detector_user::rules::{compile::compile, file};
use testbed::frames::{Packet, Tcp, http_request};

use crate::subject::{Subject, compare, load, quiet, segments};

/// The most bytes in the ring that a record of these has.
const RECORD: u32 = 1_700;

const UE: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 60, 0, 2)), 40_000);

/// An application with one rule that matches this.
fn watched(wanted: &str, frame: &[u8]) -> Subject {
    let text = format!(
        "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {{name: app}}
spec: {{endpoints: [{{cidr: 10.45.0.10}}, {{cidr: 10.45.0.10, protocol: udp}}]}}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: rule}}
spec: {{application: app, match: {wanted}, emit: {{type: t}}}}
"
    );
    let set = file::parse(&[("rules.yaml", text.as_bytes())]).expect("rules");
    let pools = ["10.60.0.0/16".parse().expect("a pool")];
    let image = compile(&set, &pools, 1).expect("tables");
    let mut kernel = load(quiet());
    kernel.rules.swap(&image, &set.rules).expect("rules are written");
    segments(kernel, frame).with_records_of(RECORD)
}

/// One line for each class.
pub(crate) fn measure(base: impl Fn() -> Subject) {
    let app = |port| (IpAddr::from([10, 45, 0, 10]), port);
    let tcp = |port, payload: &[u8]| Packet::tcp(UE, app(port), Tcp::data(1), payload).frame();
    let udp = |port, payload: &[u8]| Packet::udp(UE, app(port), payload).frame();
    let query =
        [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4][..], b"shop\x07example\0\0\x01\0\x01"].concat();
    let hello = [&[22, 3, 1, 2, 0, 1, 0, 1, 252, 3, 3][..], &[7; 506]].concat();
    let publish = [&[0x30, 20, 0, 7][..], b"a/b/c/dpayload....."].concat();
    let get = [&[0x40, 1, 0, 7, 0xb4][..], b"shop\x03buy"].concat();
    let vendor = [&[0, 0, 0xca, 0xfe][..], &[1; 60]].concat();
    let request = http_request("POST", "/api/buttons/buy", "shop.example", "{}");
    let lines: [(&str, &str, Vec<u8>); 12] = [
        ("dns: a query, shown", "{dns: {name: shop.example}}", udp(53, &query)),
        (
            "dns: a query for another name, not shown",
            "{dns: {name: [shop.example.org, '*.example.org']}}",
            udp(53, &query),
        ),
        ("dns: a datagram that is none", "{dns: {name: shop.example}}", udp(5000, &[0x80; 900])),
        (
            "http: a request with a header term, shown",
            "{http: {headers: {a: b}}}",
            tcp(80, &request),
        ),
        ("tls: a ClientHello of 517 B, shown", "{tls: {sni: shop.example}}", tcp(443, &hello)),
        (
            "tls: bulk of a flow that was decided",
            "{tls: {sni: shop.example}}",
            tcp(443, &[0x55; 1400]),
        ),
        (
            "quic: an Initial of 1,200 B, shown",
            "{quic: {sni: shop.example}}",
            udp(443, &[0xc3; 1200]),
        ),
        (
            "quic: a packet with a short header",
            "{quic: {sni: shop.example}}",
            udp(443, &[0x43; 1200]),
        ),
        ("mqtt: a PUBLISH, shown", "{mqtt: {topic: a/b/c}}", tcp(1883, &publish)),
        ("coap: a GET, shown", "{coap: {uriPath: /shop/buy}}", udp(5683, &get)),
        ("payload: bytes that fit, shown", "{payload: {at: 2, hex: cafe}}", udp(9000, &vendor)),
        ("payload: bytes that do not fit", "{payload: {at: 2, hex: beef}}", udp(9000, &vendor)),
    ];
    for (what, wanted, frame) in lines {
        compare(&format!("{what} / empty"), "", || watched(wanted, &frame), &base);
    }
}
