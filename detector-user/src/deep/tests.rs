use std::{net::Ipv4Addr, time::Duration};

use detector_common::packet::{Direction, Protocol};
use proptest::prelude::*;

use super::*;
use crate::{
    detection::FlowTotals,
    l7::fact::{
        ClientHello, CoapMessage, DnsMessage, DnsQuestion, Fact, HttpRequest, HttpResponse,
        HttpVersion, MqttPacket, QuicHello,
    },
    rules::file::parse,
};

const SECOND: u64 = 1_000_000_000;
const APPLICATION: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  endpoints: [{cidr: 10.45.0.10}, {cidr: 10.45.0.10, protocol: udp}]
---
";

fn rules(specs: &[&str]) -> DeepRules {
    let rule = |(i, spec): (usize, &&str)| {
        format!(
            "apiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {{name: r{i}}}\n\
             spec: {{application: shop, {spec}, emit: {{type: t}}}}\n---\n"
        )
    };
    let rules: String = specs.iter().enumerate().map(rule).collect();
    let text = format!("{APPLICATION}{rules}");
    let set = parse(&[("r.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}"));
    for rule in &set.rules {
        assert_eq!(rule.signature(), None, "{} is to be decided in user space", rule.name);
    }
    DeepRules::new(&set)
}

fn seen(moment: Moment) -> Observation {
    Observation {
        application: stable_id("shop"),
        flow: Flow {
            ue_ip: Ipv4Addr::new(10, 60, 0, 1).into(),
            ue_port: 40_000,
            app_ip: Ipv4Addr::new(10, 45, 0, 10).into(),
            app_port: 80,
            protocol: Protocol::Tcp,
            direction: Direction::Uplink,
        },
        tunnel: None,
        in_session: true,
        time_ns: SECOND,
        bytes: 100,
        evidence: Evidence::of(moment),
    }
}

fn says(fact: Fact) -> Observation {
    seen(Moment::Message(Arc::new(fact)))
}

fn down(observation: Observation) -> Observation {
    let flow = Flow { direction: Direction::Downlink, ..observation.flow };
    Observation { flow, ..observation }
}

fn at(time_ns: u64, observation: Observation) -> Observation {
    Observation { time_ns, ..observation }
}

fn request(method: &str, target: &str, headers: &[(&str, &str)]) -> Fact {
    let owned = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Fact::HttpRequest(HttpRequest {
        version: HttpVersion::Http11,
        method: method.to_owned(),
        target: target.to_owned(),
        host: Some("API.shop.example:8080".to_owned()),
        headers: headers.iter().map(owned).collect(),
    })
}

fn response(status: u16) -> Fact {
    Fact::HttpResponse(HttpResponse { version: HttpVersion::Http11, status, headers: Vec::new() })
}

fn dns(name: &str, qtype: u16, rcode: Option<u16>) -> Fact {
    let questions = vec![DnsQuestion { name: name.to_owned(), qtype, qclass: 1 }];
    let response = rcode.is_some();
    let rcode = rcode.unwrap_or_default();
    Fact::Dns(DnsMessage { id: 1, response, opcode: 0, rcode, questions })
}

fn hello(sni: &str) -> ClientHello {
    ClientHello {
        sni: Some(sni.to_owned()),
        alpn: vec!["h2".to_owned(), "http/1.1".to_owned()],
        version: 0x0304,
        ja4: Some("t13d1516h2_8daaf6152771_e5627efa2ab1".to_owned()),
        ech: false,
    }
}

fn mqtt(kind: u8, topic: &str, client: Option<&str>, qos: Option<u8>) -> Fact {
    Fact::Mqtt(MqttPacket {
        kind,
        topics: vec![topic.to_owned()],
        client_id: client.map(str::to_owned),
        qos,
        level: Some(4),
    })
}

fn coap(code: u8, path: &str, observe: Option<u32>) -> Fact {
    Fact::Coap(CoapMessage {
        kind: Some(0),
        code,
        token: vec![1],
        path: path.to_owned(),
        query: vec!["state=on".to_owned()],
        observe,
        uri: path.to_owned(),
    })
}

/// Names of the rules that fire.
fn fired(judge: &mut Judge, rules: &DeepRules, observation: Observation) -> Vec<String> {
    judge.judge(rules, observation).iter().map(|(rule, _)| rule.name.clone()).collect()
}

/// Whether the one rule fires.
fn fires(spec: &str, observation: Observation) -> bool {
    !Judge::new(64).judge(&rules(&[spec]), observation).is_empty()
}

#[test]
fn http_compares_every_part_of_the_request() {
    let spec = "match: {http: {method: [POST, PUT], host: '*.shop.example', pathGlob: '/api/*/buy', \
                query: {item: [7, '4*'], page: '*'}, headers: {X-Kind: 'a*'}}}";
    let good = ("POST", "/api/v1/buy?page=&item=42", [("x-kind", "abc"), ("x-other", "1")]);
    let with =
        |method, target, kind| fires(spec, says(request(method, target, &[("x-kind", kind)])));
    assert!(fires(spec, says(request(good.0, good.1, &good.2))));
    assert!(!with("GET", good.1, "abc") && !with("POST", "/api/v1/x/buy?page=&item=42", "abc"));
    assert!(!with("POST", "/api/v1/buy?item=42", "abc"), "a parameter is missing");
    assert!(!with("POST", "/api/v1/buy?page=1&item=5", "abc") && !with("POST", good.1, "b"));
    assert!(!fires(
        spec,
        says(request(good.0, "http://other.example/api/v1/buy?page=&item=7", &good.2))
    ));
}

#[test]
fn a_response_knows_the_request_it_answers() {
    let rules =
        rules(&["match: {http: {path: /buy, status: 5xx}}", "match: {http: {status: [404, 500]}}"]);
    let mut judge = Judge::new(64);
    for path in ["/buy", "/other", "/buy"] {
        assert!(fired(&mut judge, &rules, says(request("GET", path, &[]))).is_empty());
    }
    let mut answer = |status| fired(&mut judge, &rules, down(says(response(status))));
    assert!(answer(100).is_empty(), "interim");
    assert_eq!(answer(500), ["r0", "r1"]);
    assert_eq!(answer(500), ["r1"]);
    assert_eq!(answer(503), ["r0"]);
    assert!(answer(503).is_empty(), "nobody asked");
}

#[test]
fn templates_of_a_response_show_the_request() {
    let rules = rules(&["match: {http: {status: 500}}"]);
    let mut judge = Judge::new(64);
    judge.judge(&rules, says(request("GET", "/a?b", &[])));
    let found = judge.judge(&rules, down(says(response(500))));
    assert_eq!(found[0].1.http_request().map(HttpRequest::path), Some("/a"));
}

#[test]
fn dns_asks_name_and_type_of_one_question() {
    let spec = "match: {dns: {name: '*.shop.example', qtype: AAAA}}";
    assert!(fires(spec, says(dns("CDN.shop.EXAMPLE", 28, None))));
    assert!(!fires(spec, says(dns("cdn.shop.example", 1, None))));
    assert!(!fires(spec, says(dns("shop.example", 28, None))));
    assert!(!fires(spec, down(says(dns("cdn.shop.example", 28, Some(0))))), "a response");
    let mut two = dns("cdn.shop.example", 1, None);
    if let Fact::Dns(message) = &mut two {
        let other = DnsQuestion { name: "other".to_owned(), qtype: 28, qclass: 1 };
        message.questions.push(other);
    }
    assert!(!fires(spec, says(two)), "name and type of two questions");
    let missing = "match: {dns: {rcode: NXDOMAIN}}";
    assert!(fires(missing, down(says(dns("a", 1, Some(3))))));
    assert!(!fires(missing, down(says(dns("a", 1, Some(0))))));
}

#[test]
fn tls_and_quic_ask_the_hello() {
    let spec =
        "match: {tls: {sni: shop.example, alpn: h2, version: 1.3, ja4: 't13d*_*', ech: false}}";
    assert!(fires(spec, says(Fact::Tls(hello("SHOP.example")))));
    assert!(!fires(spec, says(Fact::Tls(hello("other.example")))));
    let damaged = ClientHello { ja4: None, ..hello("shop.example") };
    assert!(!fires(spec, says(Fact::Tls(damaged))));
    let old = ClientHello { version: 0x0303, ..hello("shop.example") };
    assert!(!fires(spec, says(Fact::Tls(old))));
    let quic = |version| Fact::Quic(QuicHello { version, hello: hello("shop.example") });
    let spec = "match: {quic: {sni: shop.example, version: [1, 2]}}";
    assert!(fires(spec, says(quic(1))) && fires(spec, says(quic(0x6b33_43cf))));
    assert!(!fires(spec, says(quic(0xff00_001d))));
    assert!(!fires(spec, says(Fact::Tls(hello("shop.example")))), "not over TCP");
}

#[test]
fn mqtt_asks_type_topic_client_and_qos() {
    let spec =
        "match: {mqtt: {type: PUBLISH, topic: 'home/+/button', clientid: 'phone-*', qos: [1, 2]}}";
    assert!(fires(spec, says(mqtt(3, "home/a/button", Some("phone-7"), Some(1)))));
    for other in [
        mqtt(8, "home/a/button", Some("phone-7"), Some(1)),
        mqtt(3, "home/a/lamp", Some("phone-7"), Some(1)),
        mqtt(3, "home/a/button", None, Some(1)),
        mqtt(3, "home/a/button", Some("phone-7"), Some(0)),
    ] {
        assert!(!fires(spec, says(other.clone())), "{other:?}");
    }
}

#[test]
fn coap_asks_code_path_query_observe_and_type() {
    let spec = "match: {coap: {code: [GET, 4.xx], uriPathPrefix: /lamps, uriQuery: 'state=*', \
                observe: 0, type: CON}}";
    assert!(fires(spec, says(coap(1, "/lamps/1", Some(0)))));
    assert!(fires(spec, says(coap(0x84, "/lamps/1", Some(0)))), "4.04");
    for other in [
        coap(2, "/lamps/1", Some(0)),
        coap(1, "/other", Some(0)),
        coap(1, "/lamps/1", None),
        coap(1, "/lamps/1", Some(1)),
    ] {
        assert!(!fires(spec, says(other.clone())), "{other:?}");
    }
    assert!(fires("match: {coap: {uriPath: /}}", says(coap(1, "", None))));
}

#[test]
fn payload_and_flags_ask_the_packet() {
    let packet = |payload: &[u8], flags| {
        let mut packet = seen(Moment::Packet);
        packet.evidence.payload = payload.into();
        packet.evidence.tcp_flags = Some(flags);
        packet
    };
    let spec = "match: {payload: [{all: [{hex: '56 4e'}, {at: 3, hex: '10', mask: 'f0'}]}, {within: 9, text: BUY}]}";
    assert!(fires(spec, packet(b"VN\x00\x1f", 0x18)) && fires(spec, packet(b"......BUY", 0x18)));
    assert!(!fires(spec, packet(b"VN\x00\x2f", 0x18)) && !fires(spec, packet(b".......BUY", 0x18)));
    let spec = "match: {flow: {tcpFlags: [RST, 'SYN,!ACK']}}";
    assert!(fires(spec, packet(b"", 0x04)) && fires(spec, packet(b"", 0x02)));
    assert!(!fires(spec, packet(b"", 0x12)) && !fires(spec, packet(b"", 0x10)));
}

#[test]
fn a_tunnel_is_asked_for_beside_other_terms() {
    let spec = "match: {udp: first-packet, gtpu: {teid: [7, '0x8'], qfi: 5}}";
    let inside = |teid, qfi| {
        let tunnel = Some(Tunnel { teid, message_type: 255, qfi });
        Observation { tunnel, ..seen(Moment::UdpFirst) }
    };
    assert!(fires(spec, inside(7, Some(5))) && fires(spec, inside(8, Some(5))));
    assert!(!fires(spec, inside(9, Some(5))) && !fires(spec, inside(7, None)));
    assert!(!fires(spec, seen(Moment::UdpFirst)));
    let marker = "match: {gtpu: {messageType: End Marker}}";
    let tunnel = |message_type| Some(Tunnel { teid: 7, message_type, qfi: None });
    assert!(fires(marker, Observation { tunnel: tunnel(254), ..seen(Moment::Packet) }));
    assert!(!fires(marker, Observation { tunnel: tunnel(255), ..seen(Moment::Packet) }));
}

#[test]
fn a_flow_that_is_over_is_known_by_its_hello() {
    let rules = rules(&[
        "match: {flow: [closed, idle], tls: {sni: shop.example}}",
        "match: {flow: {event: closed, tcpFlags: RST}}",
    ]);
    let mut judge = Judge::new(64);
    let totals = FlowTotals { duration: Duration::from_secs(1), packets: 9, bytes: 1_000 };
    assert!(fired(&mut judge, &rules, says(Fact::Tls(hello("shop.example")))).is_empty());
    let mut idle = seen(Moment::Idle(totals));
    assert!(fired(&mut judge, &rules, idle.clone()).is_empty(), "another silence than asked for");
    idle.evidence.silent_for = rules.silences(idle.application).first().copied();
    assert_eq!(fired(&mut judge, &rules, idle), ["r0"]);
    assert_eq!(fired(&mut judge, &rules, down(seen(Moment::Closed(totals)))), ["r0"]);
    let mut reset = seen(Moment::Closed(totals));
    reset.evidence.tcp_flags = Some(0x14);
    assert_eq!(fired(&mut judge, &rules, reset), ["r1"], "the hello went with its flow");
}

#[test]
fn not_negates_what_stands_in_it_together() {
    let spec = "match: {http: {method: GET}, not: [{http: {path: /health, headers: {x-probe: '*'}}}, \
                {http: {path: /metrics}}]}";
    assert!(fires(spec, says(request("GET", "/health", &[]))));
    assert!(!fires(spec, says(request("GET", "/health", &[("X-Probe", "1")]))));
    assert!(!fires(spec, says(request("GET", "/metrics", &[]))));
    let names = "match: {dns: {rcode: NXDOMAIN}, not: {dns: {name: '*.arpa'}}}";
    assert!(fires(names, down(says(dns("a.example", 1, Some(3))))));
    assert!(!fires(names, down(says(dns("1.in-addr.arpa", 12, Some(3))))));
}

#[test]
fn direction_user_and_session_are_asked_too() {
    let hit = || says(request("GET", "/", &[("a", "b")]));
    let term = "match: {http: {headers: {a: b}}}";
    assert!(fires(term, hit()) && !fires(term, down(hit())));
    assert!(fires(&format!("{term}, direction: any"), down(hit())));
    assert!(!fires(&format!("{term}, ue: [10.60.0.2]"), hit()));
    let outside = Observation { in_session: false, ..hit() };
    assert!(!fires(&format!("{term}, session: required"), outside.clone()) && fires(term, outside));
    let elsewhere = Observation { application: 1, ..hit() };
    assert!(!fires(term, elsewhere));
}

#[test]
fn a_final_rule_silences_lower_priorities_only() {
    let rules = rules(&[
        "match: {http: {}}",
        "priority: 10, final: true, match: {http: {path: /buy}}",
        "priority: 10, match: {http: {}}",
        "priority: 20, match: {http: {}}",
    ]);
    let mut judge = Judge::new(64);
    assert_eq!(fired(&mut judge, &rules, says(request("GET", "/buy", &[]))), ["r3", "r1", "r2"]);
    assert_eq!(judge.counts().outweighed, HashMap::from([("r0".to_owned(), 1)]));
    assert_eq!(fired(&mut judge, &rules, says(request("GET", "/", &[]))), ["r3", "r2", "r0"]);
}

#[test]
fn every_holds_back_for_each_user_and_counts() {
    let rules = rules(&["every: 10s, match: {tls: {}}"]);
    let mut judge = Judge::new(64);
    let hit = |time, user| {
        let mut hit = at(time * SECOND, says(Fact::Tls(hello("a"))));
        hit.flow.ue_ip = Ipv4Addr::new(10, 60, 0, user).into();
        hit
    };
    let times = [(100, 1), (105, 1), (105, 2), (109, 1), (110, 1)];
    let fired: Vec<bool> =
        times.iter().map(|(t, u)| !judge.judge(&rules, hit(*t, *u)).is_empty()).collect();
    assert_eq!(fired, [true, false, true, false, true]);
    assert_eq!(judge.counts().suppressed, HashMap::from([("r0".to_owned(), 2)]));
}

#[test]
fn a_rate_fires_when_it_is_crossed_with_what_was_counted() {
    let rules = rules(&[
        "match: {http: {}, rate: {packets: 3, within: 16s}}",
        "match: {http: {}, rate: {bytes: 250, within: 16s}}",
        "match: {http: {}, rate: {flows: 2, within: 16s}}",
    ]);
    let mut judge = Judge::new(64);
    let mut counted = Vec::new();
    for (n, port) in [(0, 1), (1, 1), (2, 1), (3, 2), (4, 2)] {
        let mut hit = at((100 + n) * SECOND, says(request("GET", "/", &[])));
        hit.flow.ue_port = port;
        let found = judge.judge(&rules, hit);
        counted.extend(found.into_iter().map(|(rule, seen)| (n, rule.name.clone(), seen.rate)));
    }
    let named = |n, name: &str, count| (n, name.to_owned(), Some(count));
    assert_eq!(counted, [named(2, "r0", 3), named(2, "r1", 300), named(3, "r2", 2)]);
    assert_eq!(judge.counts().below_rate.values().sum::<u64>(), 12);
}

#[test]
fn memories_are_bounded_and_what_they_forget_is_counted() {
    let rules = rules(&[
        "match: {flow: closed, tls: {}}",
        "every: 1h, match: {tls: {}}",
        "match: {http: {status: 200}}",
    ]);
    let mut judge = Judge::new(8);
    for user in 0..=255 {
        let mut hit = says(Fact::Tls(hello("a")));
        hit.flow.ue_ip = Ipv4Addr::new(10, 60, 0, user).into();
        judge.judge(&rules, hit);
    }
    let counts = judge.counts();
    assert_eq!((counts.forgotten_flows, counts.forgotten_windows), (248, 248));
    for _ in 0..1_000 {
        judge.judge(&rules, says(request("GET", "/", &[])));
    }
}

proptest! {
    #[test]
    fn not_is_the_negation_of_the_same_terms(
        path in "/[ab]{0,2}", wanted in "/[ab]{0,2}", method in prop::sample::select(vec!["GET", "POST"]),
    ) {
        let inner = format!("http: {{method: GET, pathPrefix: '{wanted}'}}");
        let plain = method == "GET" && path.starts_with(&wanted);
        let spec = format!("match: {{http: {{host: '*'}}, not: {{{inner}}}}}");
        prop_assert_eq!(fires(&spec, says(request(method, &path, &[]))), !plain);
    }
}
