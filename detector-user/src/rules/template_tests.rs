use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use detector_common::packet::{Direction, Protocol};
use proptest::prelude::*;
use serde_json::json;

use super::*;
use crate::{
    detection::{Evidence, Flow, Moment, Session, SessionEnd, SessionEndReason},
    l7::fact::{Fact, HttpRequest, HttpVersion},
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
