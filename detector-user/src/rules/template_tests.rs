use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use detector_common::packet::{Direction, Protocol};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    detection::{
        Evidence, Flow, FlowTotals, Moment, Session, SessionEnd, SessionEndReason, Tunnel,
    },
    l7::fact::{
        ClientHello, CoapMessage, DnsMessage, DnsQuestion, Fact, HttpRequest, HttpResponse,
        HttpVersion, MqttPacket, QuicHello,
    },
    rules::model::{
        Application, Emit, HttpRequestMatch, PathMatch, Rule, SessionPolicy, Signature,
    },
};

fn http_signature() -> Signature {
    Signature::HttpRequest(HttpRequestMatch { methods: Vec::new(), path: PathMatch::Any })
}

fn seen(signature: Signature) -> Detection {
    let started = SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000);
    let total = SessionEnd {
        duration: Duration::from_millis(1_500),
        packets: 7,
        bytes: 900,
        detections: 1,
        reason: SessionEndReason::Idle,
    };
    let http = HttpRequest {
        version: HttpVersion::Http11,
        method: "POST".to_owned(),
        target: "/buy".to_owned(),
        host: Some("shop".to_owned()),
        headers: vec![("X-Cart".to_owned(), "7".to_owned())],
    };
    let is_http = matches!(signature, Signature::HttpRequest(_));
    let ended = matches!(signature, Signature::SessionEnded).then_some(total);
    Detection {
        time: started + Duration::from_micros(1_250),
        device: "n6".into(),
        flow: Flow {
            ue_ip: [10, 60, 0, 1].into(),
            ue_port: if is_http { 40_000 } else { 0 },
            app_ip: [10, 45, 0, 10].into(),
            app_port: 80,
            protocol: Protocol::Tcp,
            direction: Direction::Uplink,
        },
        session: Some(Session { id: "s1".to_owned(), started, ended }),
        evidence: Evidence::of(match is_http {
            true => Moment::Message(Arc::new(Fact::HttpRequest(http))),
            false => Moment::Session,
        }),
        tunnel: None,
        vlan: None,
        discriminator: 1,
        read_at: Instant::now(),
        rule: Arc::new(rule(signature)),
    }
}

fn rule(signature: Signature) -> Rule {
    let session = SessionPolicy { idle: Duration::from_secs(30), linger: Duration::from_secs(2) };
    Rule {
        name: "buy".to_owned(),
        application: Arc::new(Application {
            name: "shop".to_owned(),
            endpoints: Vec::new(),
            session,
        }),
        ue: Vec::new(),
        direction: None,
        terms: signature.into(),
        priority: 0,
        is_final: false,
        by_user_space: false,
        needs_session: false,
        every: None,
        capture: 256,
        emit: Emit {
            event_type: "t".to_owned(),
            subject: Template::default(),
            dataschema: None,
            data: DataTemplate::default(),
        },
    }
}

fn render(template: &str) -> String {
    Template::parse(template).unwrap().render(&seen(http_signature()))
}

#[test]
fn fields_and_braces_are_rendered() {
    assert_eq!(render("{ue.ip} at {http.path}"), "10.60.0.1 at /buy");
    assert_eq!(render("{{{app.port}}}"), "{80}");
    assert_eq!(render("{time}"), "2023-11-14T22:13:20.001250Z");
    assert_eq!(render("[{http.query}]"), "[]");
}

#[test]
fn bad_templates_say_what_is_wrong() {
    let error = |text| Template::parse(text).unwrap_err().to_string();
    assert_eq!(
        error("{ue.ipp}"),
        "unknown template field {ue.ipp}; expected a field such as {ue.ip} or {http.path}; did \
         you mean \"ue.ip\"?"
    );
    assert_eq!(
        error("ü {ue.ip"),
        "\"{\" at character 3 is not closed; expected a field such as {ue.ip}, or {{ for a brace"
    );
    assert_eq!(error("a}"), "\"}\" at character 2 closes nothing; expected }} for a brace");
    assert!(matches!(Template::parse("{a{b}"), Err(TemplateError::Unclosed { at: 1 })));
}

#[test]
fn data_keeps_types_and_makes_absent_null() {
    let text = |text| DataTree::Text(Template::parse(text).unwrap());
    let tree = DataTree::Map(vec![
        ("port".to_owned(), text("{app.port}")),
        ("query".to_owned(), text("{http.query}")),
        ("where".to_owned(), text("port {app.port}")),
        ("list".to_owned(), DataTree::List(vec![DataTree::Literal(true.into()), text("x")])),
    ]);
    assert_eq!(
        DataTemplate::Tree(tree).render(&seen(http_signature())),
        json!({"port": 80, "query": null, "where": "port 80", "list": [true, "x"]})
    );
}

#[test]
fn default_data_is_everything_seen_and_nothing_else() {
    let session = json!({"id": "s1", "started": "2023-11-14T22:13:20.000000Z"});
    assert_eq!(
        DataTemplate::Everything.render(&seen(http_signature())),
        json!({
            "ue": {"ip": "10.60.0.1", "port": 40000}, "app": {"ip": "10.45.0.10", "port": 80},
            "application": "shop", "rule": "buy", "device": "n6", "protocol": "tcp",
            "direction": "uplink", "time": "2023-11-14T22:13:20.001250Z",
            "http": {"method": "POST", "path": "/buy", "host": "shop"}, "session": session,
        })
    );
    let ended = DataTemplate::Everything.render(&seen(Signature::SessionEnded));
    assert_eq!(ended["session"]["duration_ms"], 1_500);
    assert_eq!(ended["session"]["reason"], "idle");
    assert_eq!(ended["ue"], json!({"ip": "10.60.0.1"}), "a session has no UE port");
    assert!(ended.get("http").is_none() && ended.get("direction").is_none());
}

#[test]
fn a_header_field_is_named_in_any_case() {
    assert_eq!(render("{http.header.x-cart} {http.header.X-CART}{http.header.other}"), "7 7");
}

/// A detection of the first rule of the kind that `terms` makes.
fn of(terms: &str, evidence: Evidence) -> Detection {
    let text = format!(
        "apiVersion: detector.dev/v1alpha1\nkind: Application\nmetadata: {{name: shop}}\n\
         spec: {{endpoints: [{{cidr: 10.45.0.10}}, {{cidr: 10.45.0.10, protocol: udp}}]}}\n---\n\
         apiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {{name: buy}}\n\
         spec: {{application: shop, match: {{{terms}}}, emit: {{type: t}}}}\n"
    );
    let set =
        crate::rules::file::parse(&[("r.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}"));
    Detection {
        rule: set.rules[0].clone(),
        evidence,
        tunnel: Some(Tunnel { teid: 1, message_type: 255, qfi: Some(9) }),
        vlan: Some(5),
        ..seen(http_signature())
    }
}

fn message(fact: Fact) -> Evidence {
    Evidence::of(Moment::Message(Arc::new(fact)))
}

/// Detections that between them have every field.
fn all_seen() -> Vec<Detection> {
    let hello = ClientHello {
        sni: Some("shop.example".to_owned()),
        alpn: vec!["h2".to_owned(), "h3".to_owned()],
        version: 0x0304,
        ja4: Some("t13".to_owned()),
        ech: true,
    };
    let question = |name: &str, qtype| DnsQuestion { name: name.to_owned(), qtype, qclass: 1 };
    let totals = FlowTotals { duration: Duration::from_millis(1_500), packets: 7, bytes: 900 };
    let request = HttpRequest {
        version: HttpVersion::Http11,
        method: "GET".to_owned(),
        target: "/a?b=c".to_owned(),
        host: Some("shop".to_owned()),
        headers: vec![("user-agent".to_owned(), "phone".to_owned())],
    };
    let response = HttpResponse { version: HttpVersion::Http11, status: 404, headers: Vec::new() };
    let dns = DnsMessage {
        id: 1,
        response: true,
        opcode: 0,
        rcode: 3,
        questions: vec![question("first", 1), question("b.example", 65_280)],
    };
    let mqtt = MqttPacket {
        kind: 3,
        topics: vec!["a/b".to_owned()],
        client_id: Some("phone".to_owned()),
        qos: Some(1),
        level: None,
    };
    let coap = CoapMessage {
        kind: Some(2),
        code: 0x45,
        token: vec![1],
        path: String::new(),
        query: vec!["a=b".to_owned(), "c".to_owned()],
        observe: Some(3),
        uri: "coap://lamp/1".to_owned(),
    };
    let quic = QuicHello { version: 0xff00_001d, hello: hello.clone() };
    let counted =
        |count| Evidence { rate: Some(count), ..message(Fact::HttpRequest(request.clone())) };
    let packet = Evidence {
        payload: [0xde, 0xad].as_slice().into(),
        tcp_flags: Some(0x12),
        ..Evidence::default()
    };
    vec![
        seen(http_signature()),
        seen(Signature::SessionEnded),
        of(
            "http: {status: 4xx}",
            Evidence {
                request: Some(Arc::new(request.clone())),
                ..message(Fact::HttpResponse(response))
            },
        ),
        of("dns: {name: b.example, rcode: 3}", message(Fact::Dns(dns))),
        of("tls: {}", message(Fact::Tls(hello))),
        of("quic: {}", message(Fact::Quic(quic))),
        of("mqtt: {}", message(Fact::Mqtt(mqtt))),
        of("coap: {}", message(Fact::Coap(coap))),
        of("flow: closed", Evidence::of(Moment::Closed(totals))),
        of("flow: {tcpFlags: SYN}, payload: {text: a}", packet),
        of("http: {}, rate: {packets: 2, within: 1s}", counted(2)),
        of("http: {}, rate: {bytes: 2, within: 1s}", counted(3)),
        of("http: {}, rate: {flows: 2, within: 1s}", counted(4)),
    ]
}

#[test]
fn every_field_is_seen_under_some_terms() {
    let all = all_seen();
    for field in Field::all() {
        assert!(all.iter().any(|seen| field.value(seen).is_some()), "{}", field.name());
    }
}

#[test]
fn what_messages_say_has_its_group_in_default_data() {
    let data: Vec<_> =
        all_seen().iter().map(|seen| DataTemplate::Everything.render(seen)).collect();
    let group = |name: &str| data.iter().find_map(|data| data.get(name)).unwrap();
    assert_eq!(
        data[2]["http"],
        json!({
            "method": "GET", "path": "/a", "query": "b=c", "host": "shop", "user_agent": "phone",
            "status": 404,
        })
    );
    assert_eq!(
        group("dns"),
        &json!({
            "name": "b.example", "qtype": "TYPE65280", "message": "response", "rcode": "NXDOMAIN",
        })
    );
    assert_eq!(
        group("tls"),
        &json!({
            "sni": "shop.example", "alpn": ["h2", "h3"], "version": "1.3", "ja4": "t13", "ech": true,
        })
    );
    assert_eq!(group("quic")["version"], "draft-29");
    assert_eq!(
        group("mqtt"),
        &json!({
            "type": "PUBLISH", "topic": "a/b", "clientid": "phone", "qos": 1,
        })
    );
    assert_eq!(
        group("coap"),
        &json!({
            "code": "2.05", "path": "/1", "query": "a=b&c", "observe": 3, "type": "ACK",
        })
    );
    assert_eq!(
        group("flow"),
        &json!({
            "event": "closed", "duration_ms": 1_500, "packets": 7, "bytes": 900,
        })
    );
    assert_eq!(data[9]["flow"], json!({"tcp_flags": "SYN,ACK"}));
    assert_eq!(group("payload"), &json!({"hex": "dead"}));
    assert_eq!(group("rate"), &json!({"packets": 2}));
    let alpn = Template::parse("offers {tls.alpn}").unwrap();
    assert_eq!(alpn.render(&all_seen()[4]), "offers h2,h3");
}

proptest! {
    #[test]
    fn parsing_never_panics_and_display_is_its_inverse(text in "[{}a-z.ü ]{0,40}|.{0,40}") {
        if let Ok(template) = Template::parse(&text) {
            prop_assert_eq!(template.to_string(), text);
        }
    }

    #[test]
    fn escaped_text_renders_as_itself(text in ".{0,40}") {
        let escaped = text.replace('{', "{{").replace('}', "}}");
        prop_assert_eq!(render(&escaped), text);
    }

    #[test]
    fn any_mix_of_fields_and_text_round_trips(
        parts in prop::collection::vec((0..FIELDS.len(), "[a-z]{0,5}"), 0..8)
    ) {
        let text: String =
            parts.iter().map(|(i, text)| format!("{text}{{{}}}", FIELDS[*i].name)).collect();
        let template = Template::parse(&text).unwrap();
        prop_assert_eq!(template.fields().count(), parts.len());
        prop_assert_eq!(template.to_string(), text);
    }
}
