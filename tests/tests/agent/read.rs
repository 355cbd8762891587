//! Rules that user space decides, live: messages put together from several packets, and how flows
//! end.

use std::{
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
};

use testbed::{frames::client_hello, need_root};

use crate::bed::{APP, BUY, Bed, UE, metric, rule_text, rules, rules_with, settled};

/// A plain connection of the user, each write of which becomes a segment.
fn connection(bed: &Bed) -> TcpStream {
    let to = SocketAddr::new(APP.parse().expect("address"), 80);
    let from: IpAddr = UE.parse().expect("address");
    let stream = bed.ue.connect(Some(from), to).expect("connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}

/// Sends the pieces, each as a segment of its own.
fn send(stream: &mut TcpStream, pieces: impl IntoIterator<Item = impl AsRef<[u8]>>) {
    for piece in pieces {
        stream.write_all(piece.as_ref()).expect("sent");
    }
}

fn answer(stream: &mut TcpStream) -> String {
    let mut start = [0; 512];
    let length = stream.read(&mut start).expect("answer");
    String::from_utf8_lossy(&start[..length]).into_owned()
}

/// A request as curl writes it.
fn request() -> Vec<u8> {
    format!("POST {BUY} HTTP/1.1\r\nHost: shop\r\nX-Item: 42\r\nContent-Length: 2\r\n\r\n{{}}")
        .into_bytes()
}

#[test]
fn a_request_cut_anywhere_is_one_event_of_a_rule_that_the_kernel_decides() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", &rules(BUY));
    let receiver = bed.receiver();
    let agent = bed.start();
    let request = request();
    // Byte by byte; inside the method; inside the path; whole.
    let mut stream = connection(&bed);
    send(&mut stream, request.iter().map(std::slice::from_ref));
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    settled(&agent, "delivered", 1);
    for (events, cut) in (2..).zip([2, 12, request.len()]) {
        let mut stream = connection(&bed);
        send(&mut stream, [&request[..cut], &request[cut..]]);
        assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
        settled(&agent, "delivered", events);
    }
    for request in receiver.recorded() {
        assert_eq!(request.json()["http"]["path"], BUY);
    }
}

#[test]
fn a_header_is_found_in_whichever_segment_it_lies() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", &rules_with("match: {http: {headers: {x-item: '42'}}}", "{}"));
    let receiver = bed.receiver();
    let agent = bed.start();
    let request = request();
    let mut stream = connection(&bed);
    send(&mut stream, [&request[..30], &request[30..60], &request[60..]]);
    assert!(answer(&mut stream).starts_with("HTTP/1.1 200"));
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded()[0].header("ce-rule"), "buy-click");
}

#[test]
fn a_server_name_is_found_behind_a_hello_of_several_segments() {
    need_root!();
    let bed = Bed::new();
    let rule = "match: {tls: {sni: shop.example}}";
    bed.write("rules.yaml", &rules_with(rule, "{}"));
    let receiver = bed.receiver();
    let agent = bed.start();
    let hello = client_hello("shop.example");
    send(&mut connection(&bed), hello.chunks(50));
    send(&mut connection(&bed), client_hello("other.example").chunks(50));
    settled(&agent, "delivered", 1);
    assert_eq!(receiver.recorded()[0].json()["tls"]["sni"], "shop.example");
}

#[test]
fn a_closed_connection_says_how_much_it_carried_and_a_datagram_what_it_begins_with() {
    need_root!();
    let bed = Bed::new();
    let mut text = rules_with("match: {flow: closed}", "{}");
    text += &rule_text("vendor", "match: {payload: {hex: 'cafe', at: 1}}");
    bed.write("rules.yaml", &text);
    let receiver = bed.receiver();
    let agent = bed.start();
    bed.user(UE).get("/download?bytes=50000").expect("answer");
    let mut events = settled(&agent, "delivered", 1).len();
    assert_eq!(events, 1);
    let closed = receiver.recorded()[0].json();
    assert!(closed["flow"]["bytes"].as_u64().expect("a number") > 50_000, "{closed}");
    let ue: IpAddr = UE.parse().expect("address");
    let socket = bed.ue.enter(|| std::net::UdpSocket::bind((ue, 0))).expect("ue").expect("socket");
    for payload in [&[0u8, 0xca, 0xfe, 9][..], &[0, 1, 2, 3, 4, 5, 6, 7, 8], b"\0\xca\xfe12345678"]
    {
        socket.send_to(payload, (APP, 5004)).expect("sent");
    }
    events = settled(&agent, "delivered", 3).len();
    assert_eq!(events, 3);
}

#[test]
fn requests_whose_method_and_path_no_rule_allows_are_not_shown_to_user_space() {
    need_root!();
    let bed = Bed::new();
    bed.write(
        "rules.yaml",
        &rules_with("match: {http: {path: /cart, headers: {x-item: '42'}}}", "{}"),
    );
    let receiver = bed.receiver();
    let agent = bed.start();
    let shown = || metric(&agent, "detector_kernel_findings_total", &["finding=\"inspected\""]);
    let get = |path: &str| {
        let fields = "Host: shop\r\nX-Item: 42\r\nUser-Agent: a browser of the usual kind";
        format!("GET {path} HTTP/1.1\r\n{fields}\r\n\r\n")
    };
    let mut stream = connection(&bed);
    // The SYN is shown, and what is asked for.
    for path in ["/", "/cart", "/index.html", "/cart"] {
        send(&mut stream, [get(path)]);
        assert!(answer(&mut stream).starts_with("HTTP/1.1 "));
    }
    settled(&agent, "delivered", 2);
    assert_eq!(shown(), 3.0);
    // Two requests in one segment are shown, whichever comes first.
    send(&mut stream, [[get("/"), get("/cart")].concat()]);
    settled(&agent, "delivered", 3);
    assert_eq!(shown(), 4.0);
    for request in receiver.recorded() {
        assert_eq!(request.json()["http"]["path"], "/cart");
    }
}
