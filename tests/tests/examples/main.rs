//! The rules of docs/rules.md at work: each example fires on what its text says, and not on what is
//! near to it. A test a term, named after it.

mod capture;
mod hello;

use std::collections::BTreeSet;

use testbed::frames::{Gtpu, Packet, Tcp, http_request};

use self::capture::{Capture, Connection, HOME, RESOLVER, SHOP, SHOP6, answer, datagram, ip};

fn only(rule: &str) -> BTreeSet<String> {
    BTreeSet::from([rule.to_owned()])
}

/// What a user asks of the shop, one connection each, and what it answers.
fn requests(all: &[(Vec<u8>, &str)]) -> Capture {
    let mut capture = Capture::default();
    for (port, (request, status)) in (40_000..).zip(all) {
        let answer = format!("HTTP/1.1 {status} -\r\nContent-Length: 0\r\n\r\n");
        let mut connection = Connection::open(&mut capture, port, (SHOP, 80));
        connection.up(request).down(answer.as_bytes());
    }
    capture
}

fn request(method: &str, path: &str) -> (Vec<u8>, &'static str) {
    (http_request(method, path, "shop.example", ""), "200")
}

#[test]
fn http() {
    for (rule, fits, does_not) in [
        ("buy-click", ("POST", "/api/buttons/buy"), ("GET", "/api/buttons/buy")),
        ("any-button", ("PUT", "/api/buttons/pay"), ("POST", "/api/button")),
    ] {
        assert_eq!(requests(&[request(fits.0, fits.1)]).fired(&[rule]), only(rule));
        assert!(requests(&[request(does_not.0, does_not.1)]).fired(&[rule]).is_empty(), "{rule}");
    }
    let checkout = |host: &str, step: &str| {
        let text = format!(
            "POST /api/cart/checkout?step={step} HTTP/1.1\r\nHost: {host}\r\n\
             Content-Type: application/json; charset=utf-8\r\nX-Cart-Id: 7\r\n\r\n"
        );
        requests(&[(text.into_bytes(), "200")]).events(&["checkout-from-the-app"])
    };
    let events = checkout("eu.shop.example:80", "pay");
    assert_eq!(events[0]["data"]["cart"], "7", "{events:?}");
    assert!(checkout("shop.example.com", "pay").is_empty());
    assert!(checkout("shop.example", "look").is_empty());
    let answered = |path, status| {
        let request = http_request("POST", path, "shop.example", "");
        requests(&[(request, status)]).fired(&["checkout-failed"])
    };
    assert_eq!(answered("/api/v2/checkout", "503"), only("checkout-failed"));
    assert!(answered("/api/v2/checkout", "200").is_empty());
    assert!(answered("/api/vx/checkout", "503").is_empty());
}

#[test]
fn flow() {
    let mut capture = Capture::default();
    Connection::open(&mut capture, 40_000, (SHOP, 80)).up(b"x").close();
    assert_eq!(capture.fired(&["app-opened", "connection-refused"]), only("app-opened"));

    let mut capture = Capture::default();
    let (user, shop) = ((ip("10.60.0.2"), 40_000), (ip(SHOP), 80));
    capture.frame(&Packet::tcp(user, shop, Tcp::SYN, &[]).frame());
    let reset = Tcp { rst: true, ..Tcp::data(0) };
    capture.frame(&Packet::tcp(shop, user, reset, &[]).frame());
    let events = capture.events(&["connection-refused"]);
    assert_eq!(events[0]["data"]["flags"], "RST,ACK", "{events:?}");

    let silent = |seconds| {
        let mut capture = Capture::default();
        capture.frame(&datagram(40_000, (SHOP, 5004), b"media").frame());
        capture.wait(seconds);
        capture.frame(&datagram(40_001, (SHOP, 5004), b"media").frame());
        capture.events(&["stream-over"]).len()
    };
    assert_eq!([silent(29), silent(31)], [0, 1]);

    let download = |name| {
        let mut capture = Capture::default();
        let mut connection = Connection::open(&mut capture, 40_000, (SHOP6, 443));
        connection.up(&hello::tls(name, &[])).down(&[23; 5_000]).wait(3);
        connection.close();
        capture.events(&["download-over"])
    };
    let events = download("cdn.arshop.example");
    assert_eq!(events[0]["data"]["name"], "cdn.arshop.example", "{events:?}");
    assert!(events[0]["data"]["bytes"].as_u64() > Some(5_000), "{events:?}");
    let took = events[0]["data"]["ms"].as_u64().expect("a number");
    assert!((3_000..3_100).contains(&took), "{events:?}");
    assert!(download("www.arshop.example").is_empty());
}

#[test]
fn udp() {
    let mut capture = Capture::default();
    for _ in 0..2 {
        capture.frame(&answer((SHOP, 5004), 40_000, b"media").frame());
    }
    assert_eq!(capture.events(&["stream-began"]).len(), 1);
}

/// A message with one question of class IN (RFC 1035 section 4.1).
fn dns_message(flags: u16, name: &str, kind: u16) -> Vec<u8> {
    let mut message = [0x4242_u16, flags, 1, 0, 0, 0].map(u16::to_be_bytes).concat();
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.push(0);
    message.extend([kind, 1].map(u16::to_be_bytes).concat());
    message
}

#[test]
fn dns() {
    const HTTPS: u16 = 65;
    const TXT: u16 = 16;
    let asked = |name, kind| {
        let mut capture = Capture::default();
        let query = dns_message(0x0100, name, kind);
        capture.frame(&datagram(40_000, (RESOLVER, 53), &query).frame());
        let framed = [&(query.len() as u16).to_be_bytes()[..], &query].concat();
        Connection::open(&mut capture, 40_001, (RESOLVER, 53)).up(&framed);
        capture.events(&["shop-looked-up"]).len()
    };
    // Over UDP and TCP.
    assert_eq!(asked("Api.SHOP.example", HTTPS), 2);
    assert_eq!([asked("api.shop.example", TXT), asked("workshop.example", HTTPS)], [0, 0]);

    let answered = |name, code: u16| {
        let mut capture = Capture::default();
        let query = dns_message(0x0100, name, 1);
        capture.frame(&datagram(40_000, (RESOLVER, 53), &query).frame());
        let response = dns_message(0x8180 | code, name, 1);
        capture.frame(&answer((RESOLVER, 53), 40_000, &response).frame());
        capture.events(&["no-such-name"]).len()
    };
    let all = [answered("a.test", 3), answered("a.test", 0), answered("1.in-addr.arpa", 3)];
    assert_eq!(all, [1, 0, 0]);
}

#[test]
fn tls() {
    let launched = |name, alpn: &[&str]| {
        let mut capture = Capture::default();
        let hello = hello::tls(name, alpn);
        let mut connection = Connection::open(&mut capture, 40_000, (SHOP6, 8443));
        // Two segments.
        connection.up(&hello[..50]).up(&hello[50..]);
        capture.events(&["app-launched"])
    };
    let events = launched("api.arshop.example", &["h2"]);
    assert_eq!(events[0]["data"]["name"], "api.arshop.example", "{events:?}");
    assert!(launched("arshop.example", &["h2"]).is_empty());
    assert!(launched("api.arshop.example", &["mqtt"]).is_empty());
}

#[test]
fn quic() {
    let opened = |name| {
        let mut capture = Capture::default();
        for sent in hello::quic(name, (ip(SHOP), 443).into()) {
            capture.frame(&datagram(40_000, (SHOP, 443), &sent).frame());
        }
        capture.fired(&["video-opened"])
    };
    assert_eq!(opened("eu.video.example"), only("video-opened"));
    assert!(opened("music.example").is_empty());
}

#[test]
fn mqtt() {
    let sized = |text: &str| [&(text.len() as u16).to_be_bytes()[..], text.as_bytes()].concat();
    let packet = |first: u8, body: Vec<u8>| [vec![first, body.len() as u8], body].concat();
    let published = |client: &str, topic: &str, quality: u8| {
        let connect = [sized("MQTT"), vec![4, 2, 0, 60], sized(client)].concat();
        let number = if quality == 0 { vec![] } else { vec![0, 1] };
        let publish = [sized(topic), number, b"on".to_vec()].concat();
        let mut capture = Capture::default();
        let mut connection = Connection::open(&mut capture, 40_000, (HOME, 1883));
        connection.up(&packet(0x10, connect)).down(&packet(0x20, vec![0, 0]));
        connection.up(&packet(0x30 | quality << 1, publish));
        capture.events(&["button-published"])
    };
    let events = published("phone-7", "home/kitchen/button/1", 1);
    assert_eq!(events[0]["data"]["client"], "phone-7", "{events:?}");
    assert!(published("panel", "home/kitchen/button/1", 1).is_empty());
    assert!(published("phone-7", "home/kitchen/lamp/1", 1).is_empty());
    assert!(published("phone-7", "home/kitchen/button/1", 0).is_empty());
}

#[test]
fn coap() {
    // RFC 7252 section 3: version, type and token length; code; id; options by ascending number.
    let message = |kind: u8, code: u8, options: &[(u8, &str)]| {
        let mut bytes = vec![0x40 | kind << 4, code, 0, 1];
        let mut before = 0;
        for (number, value) in options {
            bytes.push((number - before) << 4 | value.len() as u8);
            bytes.extend(value.bytes());
            before = *number;
        }
        let mut capture = Capture::default();
        capture.frame(&datagram(40_000, (HOME, 5683), &bytes).frame());
        capture.fired(&["lamp-switched", "lamp-watched"])
    };
    const OBSERVE: u8 = 6;
    const PATH: u8 = 11;
    const QUERY: u8 = 15;
    const GET: u8 = 1;
    const PUT: u8 = 3;
    let lamp = [(PATH, "lamps"), (PATH, "7")];
    let switched = [&lamp[..], &[(QUERY, "state=on")]].concat();
    assert_eq!(message(0, PUT, &switched), only("lamp-switched"));
    assert!(message(0, PUT, &lamp).is_empty());
    let watched = [&[(OBSERVE, "")], &lamp[..]].concat();
    assert_eq!(message(1, GET, &watched), only("lamp-watched"));
    assert!(message(1, GET, &lamp).is_empty());
}

#[test]
fn payload() {
    let sent = |bytes: &[u8]| {
        let mut capture = Capture::default();
        capture.frame(&datagram(40_000, (SHOP, 5004), bytes).frame());
        capture.fired(&["vendor-login"])
    };
    assert_eq!(sent(b"VN\x07\x01\0\0\x1f....LOGIN"), only("vendor-login"));
    assert_eq!(sent(b"VN2 LOGIN"), only("vendor-login"));
    assert!(sent(b"VN\x07\x01\0\0\x2f....LOGIN").is_empty());
    assert!(sent(b"VN\x07\x01\0\0\x1f....LOGOUT").is_empty());
}

#[test]
fn gtpu() {
    let in_tunnel = |flow| {
        let mut capture = Capture::default();
        let media = datagram(40_000, (SHOP, 5004), b"media");
        let tunnel = Gtpu::with_qfi(4711, flow);
        capture.frame(&media.in_tunnel(ip("192.0.2.1"), ip("192.0.2.2"), &tunnel).frame());
        capture.events(&["voice-flow"])
    };
    let events = in_tunnel(5);
    assert_eq!(events[0]["data"]["tunnel"], 4711, "{events:?}");
    assert_eq!(events[0]["ueip"], "10.60.0.2");
    assert!(in_tunnel(9).is_empty());
}

#[test]
fn not() {
    let asked = |path, agent| {
        let text = format!("GET {path} HTTP/1.1\r\nHost: a\r\nUser-Agent: {agent}\r\n\r\n");
        requests(&[(text.into_bytes(), "200")]).fired(&["real-requests"])
    };
    assert_eq!(asked("/", "phone"), only("real-requests"));
    assert!(asked("/health", "phone").is_empty());
    assert!(asked("/", "kube-probe/1.30").is_empty());
}

#[test]
fn rate() {
    let asked = |count| {
        let all = vec![request("GET", "/api/items"); count];
        requests(&all).events(&["hammering"])
    };
    assert!(asked(99).is_empty());
    let events = asked(150);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["data"]["requests"], 100);

    // 50 KiB every so many seconds, each way: only what comes down counts.
    let downloaded = |pause| {
        let mut capture = Capture::default();
        let mut connection = Connection::open(&mut capture, 40_000, (SHOP, 80));
        connection.down(&[7; 1_000]);
        for _ in 0..6 {
            connection.up(&[8; 50 << 10]).down(&[7; 50 << 10]).wait(pause);
        }
        capture.events(&["big-download"])
    };
    assert!(downloaded(4).is_empty());
    let events = downloaded(1);
    assert_eq!(events.len(), 1, "{events:?}");
    let bytes = events[0]["data"]["bytes"].as_u64().expect("a number");
    assert!((200 << 10..260 << 10).contains(&bytes), "the fourth made it {bytes}");

    let connected = |count| {
        let mut capture = Capture::default();
        for port in 0..count {
            Connection::open(&mut capture, 40_000 + port, (SHOP, 80)).up(b"x");
        }
        capture.events(&["many-connections"])
    };
    assert!(connected(19).is_empty());
    let events = connected(30);
    assert_eq!(events.len(), 1, "{events:?}");
    assert_eq!(events[0]["data"]["flows"], 20);
}

#[test]
fn priority_and_final() {
    let rules = ["any-button", "help-before-others"];
    let pressed = |path| requests(&[request("POST", path)]).fired(&rules);
    assert_eq!(pressed("/api/buttons/help"), only("help-before-others"));
    assert_eq!(pressed("/api/buttons/pay"), only("any-button"));
}

#[test]
fn session() {
    let mut capture = Capture::default();
    Connection::open(&mut capture, 40_000, (SHOP, 80)).up(b"x").close();
    let events = capture.events(&["session-started", "session-ended"]);
    let rules: Vec<&str> = events.iter().filter_map(|event| event["rule"].as_str()).collect();
    assert_eq!(rules, ["session-started", "session-ended"]);
    assert_eq!(events[1]["data"]["reason"], "stopped", "the capture ended first");
}
