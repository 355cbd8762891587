//! Streams in any order and any pieces say the same.

use std::net::Ipv4Addr;

use detector_common::{packet::Address, wire::tcp_flag};
use proptest::prelude::*;

use super::*;

fn end(last: u8, port: u16) -> Endpoint {
    Endpoint { address: Address::v4(Ipv4Addr::new(10, 0, 0, last).octets()), port }
}

/// A client and a server whose packets are written by hand.
struct Wire {
    flows: Flows,
    facts: Vec<Found>,
    server: u16,
    frame: u64,
}

impl Wire {
    fn to_port(server: u16) -> Self {
        Self { flows: Flows::new(Limits::CAPTURE), facts: Vec::new(), server, frame: 0 }
    }

    fn packet(
        &mut self,
        up: bool,
        sequence: u32,
        ack: Option<u32>,
        flags: u8,
        payload: &[u8],
        length: u32,
    ) {
        self.frame += 1;
        let (client, server) = (end(1, 40_000), end(2, self.server));
        let (source, destination) = if up { (client, server) } else { (server, client) };
        let flags = if ack.is_some() { flags | tcp_flag::ACK } else { flags };
        let segment = Segment {
            source,
            destination,
            transport: Transport::Tcp { sequence, acknowledgement: ack.unwrap_or(0), flags },
            payload,
            length,
            quoted: false,
            stamp: Stamp { time_ns: self.frame, frame: self.frame },
            wanted: Wanted::default(),
        };
        self.flows.packet(&segment, &mut self.facts);
    }

    /// From the client, with its sequence number.
    fn up(&mut self, sequence: u32, payload: &[u8]) {
        self.packet(true, sequence, None, 0, payload, payload.len() as u32);
    }

    fn finish(mut self) -> Vec<(u64, String)> {
        self.flows.finish(&mut self.facts);
        let requests = self.facts.into_iter().filter_map(|found| match found.fact {
            Fact::HttpRequest(request) => Some((found.stamp.frame, request.target)),
            _ => None,
        });
        requests.collect()
    }
}

const REQUEST: &[u8] = b"GET /a HTTP/1.1\r\nHost: shop\r\n\r\n";
const TWO: &[u8] = b"POST /a HTTP/1.1\r\nHost: shop\r\nContent-Length: 5\r\n\r\nGET /GET /b HTTP/1.1\r\nhost: x\r\n\r\n";

#[test]
fn a_request_is_found_in_the_packet_that_completes_it() {
    let mut wire = Wire::to_port(9000);
    wire.up(1, &REQUEST[..5]);
    wire.up(6, &REQUEST[5..20]);
    wire.up(21, &REQUEST[20..]);
    assert_eq!(wire.finish(), [(3, "/a".into())]);
}

#[test]
fn pipelined_requests_are_found_and_bodies_passed_over() {
    let mut wire = Wire::to_port(80);
    wire.up(1, TWO);
    assert_eq!(wire.finish(), [(1, "/a".into()), (1, "/b".into())]);
}

/// What was held back for its body once came behind the request that followed it.
#[test]
fn a_body_that_ends_where_the_next_request_begins_does_not_change_their_order() {
    let mut wire = Wire::to_port(80);
    wire.up(1, &TWO[..TWO.len() - 31]);
    wire.up(1 + TWO.len() as u32 - 31, &TWO[TWO.len() - 31..]);
    assert_eq!(wire.finish(), [(2, "/a".into()), (2, "/b".into())]);
}

#[test]
fn a_retransmission_says_nothing_again() {
    let mut wire = Wire::to_port(80);
    wire.up(1, REQUEST);
    wire.up(1, REQUEST);
    assert_eq!(wire.finish().len(), 1);
}

#[test]
fn the_first_copy_of_a_byte_counts() {
    let mut wire = Wire::to_port(80);
    wire.up(1, b"GET /a");
    wire.up(1, b"GET /evil HTTP/1.1\r\n\r\n");
    wire.up(7, b"bc HTTP/1.1\r\n\r\n");
    let found = wire.finish();
    assert_eq!(found, [(2, "/avil".into())]);
}

#[test]
fn sequence_numbers_wrap_around() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, u32::MAX - 4, None, tcp_flag::SYN, b"", 0);
    wire.up(u32::MAX - 3, &REQUEST[..10]);
    wire.up(6, &REQUEST[10..]);
    assert_eq!(wire.finish(), [(3, "/a".into())]);
}

#[test]
fn behind_a_gap_that_the_receiver_never_missed_reading_goes_on_at_once() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 0, None, tcp_flag::SYN, b"", 0);
    wire.up(101, REQUEST);
    assert_eq!(wire.facts.len(), 0);
    wire.packet(false, 1, Some(101), 0, b"", 0);
    assert_eq!(wire.facts.len(), 1);
    assert_eq!(wire.facts[0].stamp.frame, 2);
    assert_eq!(wire.flows.counts().gaps, 100);
}

#[test]
fn a_gap_at_the_end_of_the_packets_is_read_behind_too() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 0, None, tcp_flag::SYN, b"", 0);
    wire.up(101, REQUEST);
    assert_eq!(wire.finish(), [(2, "/a".into())]);
}

const POST: &[u8] = b"POST /b HTTP/1.1\r\nContent-Length: 1000\r\n\r\n";
const BODY: u32 = 1 + POST.len() as u32;

#[test]
fn behind_a_body_with_a_gap_the_next_request_is_found() {
    let mut wire = Wire::to_port(80);
    wire.up(1, POST);
    wire.up(BODY + 900, &[b'x'; 100]);
    wire.up(BODY + 1000, REQUEST);
    wire.packet(false, 1, Some(BODY + 1000), 0, b"", 0);
    // As dissectors have it: what was not whole was never there.
    assert_eq!(wire.flows.counts().unfinished, 1);
    assert_eq!(wire.finish(), [(3, "/a".into())]);
}

#[test]
fn a_message_whose_body_never_ends_is_left_out_and_counted() {
    let mut wire = Wire::to_port(80);
    wire.up(1, POST);
    wire.up(BODY, &[b'x'; 999]);
    wire.flows.finish(&mut wire.facts);
    assert_eq!((wire.facts.len(), wire.flows.counts().unfinished), (0, 1));
}

#[test]
fn a_body_out_of_order_is_whole_all_the_same() {
    let mut wire = Wire::to_port(80);
    wire.up(1, POST);
    wire.up(BODY + 900, &[b'x'; 100]);
    wire.up(BODY, &[b'x'; 900]);
    assert_eq!(wire.finish(), [(3, "/b".into())]);
}

/// Live, the head is enough.
#[test]
fn a_message_counts_before_its_body_where_whole_messages_are_not_asked_for() {
    let mut wire = Wire::to_port(80);
    wire.flows = Flows::new(Limits::LIVE);
    wire.up(1, POST);
    assert_eq!(wire.finish(), [(1, "/b".into())]);
}

/// The head ends with CR alone, so that a LF could be its own still.
#[test]
fn a_gap_right_behind_a_head_is_in_its_body() {
    const HEAD: &[u8] = b"POST /a HTTP/1.1\rContent-Length: 40\r\r";
    let mut wire = Wire::to_port(80);
    wire.flows = Flows::new(Limits::LIVE);
    wire.up(1, HEAD);
    let body = 1 + HEAD.len() as u32;
    wire.packet(false, 1, Some(body + 20), 0, b"", 0);
    wire.up(body + 20, &[&[b'x'; 20], REQUEST].concat());
    assert_eq!(wire.flows.counts().gaps, 0);
    assert_eq!(wire.finish(), [(1, "/a".into()), (3, "/a".into())]);
}

#[test]
fn a_body_that_the_capture_cut_off_is_whole_if_its_head_is_in_the_same_segment() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 1, None, 0, POST, POST.len() as u32 + 1000);
    wire.up(BODY + 1000, POST);
    wire.packet(true, 2 * BODY + 999, None, 0, b"x", 1000);
    assert_eq!(wire.finish(), [(1, "/b".into())]);
}

/// Dissectors show nothing of it; a rule takes the name that is there.
#[test]
fn a_hello_that_the_capture_cut_off_counts_live_only() {
    let name = b"\0\0\0\x0a\0\x08\0\0\x05a.com";
    let body = [&[3, 3][..], &[0; 32], &[0, 0, 2, 0x13, 1, 1, 0, 0, 200], name].concat();
    let start = [&[22, 3, 1, 0, 250, 1, 0, 0, 246][..], &body].concat();
    let hellos = |limits: Limits| {
        let mut wire = Wire::to_port(443);
        wire.flows = Flows::new(limits);
        wire.packet(true, 1, None, 0, &start, 255);
        (wire.facts.len(), wire.flows.counts().unfinished)
    };
    assert_eq!(hellos(Limits::CAPTURE), (0, 1));
    assert_eq!(hellos(Limits::LIVE), (1, 0));
}

#[test]
fn behind_a_damaged_chunk_the_message_counts() {
    let mut wire = Wire::to_port(80);
    wire.up(1, b"POST /c HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n");
    wire.up(57, b"no number\r\n");
    assert_eq!(wire.finish(), [(2, "/c".into())]);
}

#[test]
fn data_that_begins_at_the_syns_own_number_is_whole() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 0, None, tcp_flag::SYN, b"", 0);
    wire.up(0, REQUEST);
    wire.up(REQUEST.len() as u32, REQUEST);
    assert_eq!(wire.finish(), [(2, "/a".into()), (3, "/a".into())]);
}

#[test]
fn behind_a_proxy_header_comes_the_clients_own_protocol() {
    let mut wire = Wire::to_port(9000);
    wire.up(1, &[&b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 80\r\n"[..], REQUEST].concat());
    assert_eq!(wire.finish(), [(1, "/a".into())]);
}

#[test]
fn what_another_protocol_stands_before_does_not_open_the_flow() {
    let opens = |before: &[u8]| {
        let mut wire = Wire::to_port(9000);
        let mut at = 1;
        for bytes in [before, REQUEST, REQUEST].into_iter().filter(|bytes| !bytes.is_empty()) {
            wire.up(at, bytes);
            at += bytes.len() as u32;
        }
        wire.facts.into_iter().map(|found| found.opening).collect::<Vec<_>>()
    };
    assert_eq!(opens(b""), [true, true]);
    assert_eq!(opens(b"220 mail.example\r\n"), [false, false]);
    assert_eq!(opens(b"PROXY UNKNOWN\r\n"), [false, false]);
}

#[test]
fn the_same_ports_with_a_new_syn_are_a_new_connection() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 100, None, tcp_flag::SYN, b"", 0);
    wire.up(101, &REQUEST[..9]);
    wire.packet(true, 5, None, tcp_flag::SYN, b"", 0);
    wire.up(6, REQUEST);
    assert_eq!(wire.finish(), [(4, "/a".into())]);
}

#[test]
fn a_head_that_the_capture_cut_off_says_what_is_there() {
    let mut wire = Wire::to_port(80);
    wire.packet(true, 1, None, 0, &REQUEST[..18], REQUEST.len() as u32);
    assert_eq!(wire.finish(), [(1, "/a".into())]);
}

#[test]
fn one_direction_is_left_alone_after_its_limit() {
    let mut wire = Wire::to_port(9000);
    wire.flows = Flows::new(Limits { stream: Some(64), ..Limits::LIVE });
    wire.up(1, &[b'x'; 64]);
    wire.up(65, REQUEST);
    assert_eq!(wire.facts.len(), 0);
    assert_eq!(wire.flows.counts().left_alone, 1);
}

#[test]
fn too_many_flows_evict_the_oldest_and_count_it() {
    let mut flows = Flows::new(Limits { flows: 8, ..Limits::CAPTURE });
    let mut facts = Vec::new();
    for port in 1..=20 {
        let segment = Segment {
            source: end(1, port),
            destination: end(2, 80),
            transport: Transport::Tcp { sequence: 1, acknowledgement: 0, flags: 0 },
            payload: b"GET ",
            length: 4,
            quoted: false,
            stamp: Stamp { time_ns: port.into(), frame: port.into() },
            wanted: Wanted::default(),
        };
        flows.packet(&segment, &mut facts);
    }
    assert_eq!((flows.counts().evicted, flows.connections.len()), (12, 8));
}

/// However many flows a capture has, and whatever each leaves behind, memory ends somewhere.
#[test]
fn what_ever_new_flows_keep_for_later_messages_is_bounded() {
    let connect =
        [&[0x10, 200, 1, 0, 4][..], b"MQTT\x04\x02\0\x3c", &[0, 188], &[b'x'; 188]].concat();
    let aliased = [&[0x30, 106, 0, 100][..], &[b't'; 100], &[3, 0x23, 0, 7]].concat();
    let held = [&b"POST /a HTTP/1.1\r\nContent-Length: 9\r\nX: "[..], &[b'x'; 200], b"\r\n\r\n"];
    let asked = [&[0x51, 1, 0, 1, b't', 0xbd, 87][..], &[b'a'; 100]].concat();
    let coap_over_tcp = [&[0xd1, 90, 1, b't', 0xbd, 87][..], &[b'a'; 100]].concat();
    let tcp = Transport::Tcp { sequence: 1, acknowledgement: 0, flags: 0 };
    let cases: [(&str, Transport, u16, &[u8]); 5] = [
        ("a client's name", tcp, 1883, &connect),
        ("a topic's alias", tcp, 1883, &[&connect[..], &aliased].concat()),
        ("a head whose body is to come", tcp, 80, &held.concat()),
        ("a request over datagrams", Transport::Udp, 5683, &asked),
        ("a request over a stream", tcp, 5683, &coap_over_tcp),
    ];
    for (what, transport, port, payload) in cases {
        let mut flows = Flows::new(Limits { kept: 2_000, ..Limits::CAPTURE });
        for number in 1..=100 {
            let segment = Segment {
                source: end(1, 20_000 + number),
                destination: end(2, port),
                transport,
                payload,
                length: payload.len() as u32,
                quoted: false,
                stamp: Stamp { time_ns: number.into(), frame: number.into() },
                wanted: Wanted::default(),
            };
            flows.packet(&segment, &mut Vec::new());
        }
        let (kept, entries) = match transport {
            Transport::Tcp { .. } => (flows.connections.kept(), flows.connections.len()),
            Transport::Udp => (flows.datagrams.kept(), flows.datagrams.len()),
        };
        assert!((1..=2_000).contains(&kept), "{what}: {kept} bytes");
        assert_eq!(entries as u64 + flows.counts().evicted, 100, "{what}");
        assert!(entries < 20, "{what}: {entries} flows");
        flows.give_way();
        let left = flows.connections.kept() + flows.datagrams.kept();
        assert!(left <= kept / 2, "{what}: {left} of {kept} bytes");
    }
}

#[test]
fn too_many_waiting_bytes_evict_flows() {
    let mut wire = Wire::to_port(80);
    wire.flows = Flows::new(Limits { kept: 10, ..Limits::CAPTURE });
    wire.up(1, b"GET /aaaaaaaaaaaaaaaaaaa");
    assert_eq!(wire.flows.counts().evicted, 1);
    assert_eq!(wire.flows.connections.kept(), 0);
}

/// However many connections there were: only those of the last minute are remembered.
#[test]
fn flows_that_were_silent_for_too_long_are_forgotten_as_others_begin() {
    let mut flows = Flows::new(Limits::LIVE);
    let mut most = 0;
    for number in 0..10_000_u32 {
        let segment = Segment {
            source: end(1, (number % 50_000) as u16),
            destination: end(2, 80),
            transport: Transport::Tcp { sequence: 1, acknowledgement: 0, flags: 0 },
            payload: b"GET /a",
            length: 6,
            quoted: false,
            stamp: Stamp { time_ns: u64::from(number) * 1_000_000_000, frame: number.into() },
            wanted: Wanted::default(),
        };
        flows.packet(&segment, &mut Vec::new());
        most = most.max(flows.connections.len());
    }
    assert!((60..=122).contains(&most), "{most} flows, one a second");
    assert_eq!(flows.connections.kept(), 6 * flows.connections.len());
    assert_eq!(flows.counts().evicted, 0);
}

#[test]
fn bytes_that_waited_in_a_flow_that_gave_way_or_began_anew_wait_no_more() {
    let mut flows = Flows::new(Limits { flows: 1, ..Limits::LIVE });
    let mut facts = Vec::new();
    for (port, time_ns) in [(1, 0), (2, 0), (2, 2 * Limits::LIVE.idle_ns)] {
        let segment = Segment {
            source: end(1, port),
            destination: end(2, 80),
            transport: Transport::Tcp { sequence: 1, acknowledgement: 0, flags: 0 },
            payload: b"GET /a",
            length: 6,
            quoted: false,
            stamp: Stamp { time_ns, frame: 1 },
            wanted: Wanted::default(),
        };
        flows.packet(&segment, &mut facts);
        assert_eq!(flows.connections.kept(), 6);
    }
}

proptest! {
    /// Any split of a stream, in any order within what may wait, with any segment twice.
    #[test]
    fn any_split_in_any_order_says_the_same(
        cuts in proptest::collection::btree_set(1..TWO.len(), 0..12),
        order in any::<proptest::sample::Index>(),
        port in prop_oneof![Just(80u16), Just(9000)],
    ) {
        let mut at = vec![0];
        at.extend(cuts);
        at.push(TWO.len());
        let mut pieces: Vec<_> = at.windows(2).map(|pair| (pair[0], &TWO[pair[0]..pair[1]])).collect();
        let turn = order.index(pieces.len());
        pieces.rotate_left(turn);
        pieces.push(pieces[0]);
        let mut wire = Wire::to_port(port);
        wire.packet(true, 0, None, tcp_flag::SYN, b"", 0);
        for (at, piece) in pieces {
            wire.up(1 + at as u32, piece);
        }
        let targets: Vec<_> = wire.finish().into_iter().map(|found| found.1).collect();
        prop_assert_eq!(targets, ["/a", "/b"]);
    }

    #[test]
    fn random_segments_never_panic(
        segments in proptest::collection::vec(
            (any::<bool>(), 0..300u32, any::<Option<u32>>(), any::<u8>(), proptest::collection::vec(any::<u8>(), 0..40), 0..60u32),
            0..40,
        ),
        port in prop_oneof![Just(80u16), Just(443), Just(53), Just(1883), Just(5683), Just(9)],
    ) {
        let mut wire = Wire::to_port(port);
        for (up, sequence, ack, flags, payload, more) in segments {
            let length = payload.len() as u32 + more.saturating_sub(50);
            wire.packet(up, sequence, ack, flags, &payload, length);
        }
        wire.finish();
    }
}

/// What a datagram between two ports that say nothing, or say another protocol, is read as.
fn datagram(port: u16, payload: &[u8], wanted: Wanted) -> Option<Fact> {
    let segment = Segment {
        source: end(1, 40_000),
        destination: end(2, port),
        transport: Transport::Udp,
        payload,
        length: payload.len() as u32,
        quoted: false,
        stamp: Stamp { time_ns: 1, frame: 1 },
        wanted,
    };
    let mut facts = Vec::new();
    Flows::new(Limits::CAPTURE).packet(&segment, &mut facts);
    facts.pop().map(|found| found.fact)
}

#[test]
fn coap_and_dns_are_found_on_any_port_where_a_rule_looks_for_them() {
    let get = [&[0x40, 1, 0, 7, 0xb4][..], b"shop\x03buy"].concat();
    let query =
        [&[0, 1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 0, 4][..], b"shop\x07example\0\0\x01\0\x01"].concat();
    let (none, coap) = (Wanted::default(), Wanted { coap: true, dns: false });
    assert_eq!(datagram(7000, &get, none), None);
    assert!(matches!(datagram(7000, &get, coap), Some(Fact::Coap(_))));
    // Grafana's port, which a guess leaves alone.
    assert_eq!(datagram(3000, &query, none), None);
    assert_eq!(datagram(3000, &query, coap), None, "no CoAP");
    let dns = Wanted { dns: true, coap: true };
    assert!(matches!(datagram(3000, &query, dns), Some(Fact::Dns(_))));
}

/// What a stream says whose pieces come one after the other.
fn stream(port: u16, pieces: &[&[u8]], wanted: Wanted) -> Vec<Fact> {
    let mut flows = Flows::new(Limits::CAPTURE);
    let (mut found, mut sequence) = (Vec::new(), 1);
    for payload in pieces {
        let segment = Segment {
            source: end(1, 40_000),
            destination: end(2, port),
            transport: Transport::Tcp { sequence, acknowledgement: 0, flags: 0 },
            payload,
            length: payload.len() as u32,
            quoted: false,
            stamp: Stamp { time_ns: 1, frame: 1 },
            wanted,
        };
        sequence += segment.length;
        flows.packet(&segment, &mut found);
    }
    flows.finish(&mut found);
    found.into_iter().map(|found| found.fact).collect()
}

proptest! {
    #[test]
    fn coap_and_dns_over_tcp_are_found_on_any_port_where_a_rule_looks_for_them(at in 1..29usize) {
        let query = b"\0\x1e\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04shop\x07example\0\0\x01\0\x01";
        // RFC 8323: a CSM, then GET /shop/buy with a token.
        let get = b"\0\xe1\x91\x01\x07\xb4shop\x03buy\0\xe1\0\xe1\0\xe1\0\xe1\0\xe1\0\xe1\0\xe1\0\xe1";
        let cut = |bytes: &'static [u8], wanted| {
            let (first, second) = bytes.split_at(at);
            stream(7_000, &[first, second], wanted)
        };
        let (none, coap) = (Wanted::default(), Wanted { coap: true, dns: false });
        let (dns, both) = (Wanted { coap: false, dns: true }, Wanted { coap: true, dns: true });
        prop_assert_eq!((cut(query, none), cut(get, none), cut(get, dns)), (vec![], vec![], vec![]));
        for wanted in [dns, both] {
            let facts = cut(query, wanted);
            let [Fact::Dns(message)] = &facts[..] else { panic!("{facts:?}") };
            prop_assert_eq!(&message.questions[0].name, "shop.example");
        }
        for wanted in [coap, both] {
            let facts = cut(get, wanted);
            let coap = |fact: &Fact| matches!(fact, Fact::Coap(get) if get.path == "/shop/buy");
            prop_assert_eq!(facts.iter().filter(|fact| coap(fact)).count(), 1, "{:?}", facts);
        }
    }

    #[test]
    fn what_is_looked_for_does_not_hide_what_a_stream_says_by_itself(at in 1..30usize) {
        let wanted = Wanted { coap: true, dns: true };
        let facts = stream(7_000, &[&REQUEST[..at], &REQUEST[at..]], wanted);
        prop_assert!(matches!(&facts[..], [Fact::HttpRequest(_)]), "{facts:?}");
    }
}

#[test]
fn what_looks_like_dns_on_the_ports_of_mdns_llmnr_netbios_and_ssdp_is_left_alone() {
    let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04shop\x07example\0\0\x01\0\x01";
    let none = Wanted::default();
    assert!(matches!(datagram(7_000, query, none), Some(Fact::Dns(_))));
    for port in [5353, 5355, 137, 1900] {
        assert_eq!(datagram(port, query, none), None, "{port}");
    }
}

/// A ClientHello, two MQTT packets and two DNS messages, with the ports that they are on.
fn streams() -> [(u16, Vec<u8>); 3] {
    let hello = include_bytes!("../../../tests/fuzz/seeds/tls/hello");
    // What stands before it says how the fuzzer cuts it.
    let hello = hello[1 + 2 * usize::from(hello[0])..].to_vec();
    let mqtt = b"\x10\x10\0\x04MQTT\x04\x02\0\x3c\0\x04abcd\x30\x0c\0\x05a/b/chello".to_vec();
    let query = b"\0\x1e\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04shop\x07example\0\0\x01\0\x01";
    [(8443, hello), (1883, mqtt), (53, [query, &query[..]].concat())]
}

proptest! {
    #[test]
    fn tls_mqtt_and_dns_say_the_same_in_any_split_and_order_and_sent_again(
        which in 0..3usize,
        cuts in proptest::collection::btree_set(1..200usize, 0..12),
        order in any::<u64>(),
    ) {
        let (port, bytes) = &streams()[which];
        let mut at: Vec<_> = cuts.into_iter().filter(|cut| *cut < bytes.len()).collect();
        at.extend([0, bytes.len()]);
        at.sort_unstable();
        let mut pieces: Vec<_> = at.windows(2).map(|pair| (pair[0], &bytes[pair[0]..pair[1]])).collect();
        fastrand::Rng::with_seed(order).shuffle(&mut pieces);
        pieces.push(pieces[0]);
        let facts = |pieces: &[(usize, &[u8])]| {
            let mut wire = Wire::to_port(*port);
            wire.packet(true, 0, None, tcp_flag::SYN, b"", 0);
            pieces.iter().for_each(|(at, piece)| wire.up(1 + *at as u32, piece));
            wire.flows.finish(&mut wire.facts);
            wire.facts.into_iter().map(|found| found.fact).collect::<Vec<_>>()
        };
        let whole = facts(&[(0, bytes)]);
        prop_assert_eq!(whole.len(), [1, 2, 2][which]);
        prop_assert_eq!(facts(&pieces), whole);
    }
}

#[test]
fn nobody_waits_for_what_is_known_not_to_come() {
    let mut wire = Wire::to_port(9000);
    wire.up(1, REQUEST);
    // Behind bytes that nobody shows, and before others that are only late.
    wire.up(500, &REQUEST[..9]);
    assert_eq!(wire.facts.len(), 1, "waits");
    wire.up(1000, &TWO[60..]);
    let next = Segment {
        source: end(1, 40_000),
        destination: end(2, 9000),
        transport: Transport::Tcp { sequence: 500, acknowledgement: 0, flags: 0 },
        payload: REQUEST,
        length: REQUEST.len() as u32,
        quoted: false,
        stamp: Stamp { time_ns: 9, frame: 9 },
        wanted: Wanted::default(),
    };
    wire.flows.give_up_before(&next, 500, &mut wire.facts);
    wire.flows.packet(&next, &mut wire.facts);
    assert_eq!(wire.facts.len(), 2);
    wire.up(1000 - 60, &TWO[..60]);
    assert_eq!(wire.facts.len(), 2, "the gap before it may still be filled");
    wire.up(500 + REQUEST.len() as u32, &vec![b'x'; 440 - REQUEST.len()]);
    assert_eq!(wire.facts.len(), 4);
}
