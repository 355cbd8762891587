//! Tests of the event as a whole, and of `docs/events.md` against it.

use std::{
    collections::BTreeSet,
    net::{IpAddr, Ipv4Addr},
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use cloudevents::AttributesReader;
use detector_common::packet::Protocol;
use proptest::prelude::*;
use serde_json::Value;

use super::*;
use crate::{
    detection::{Evidence, Flow, Moment, Session, SessionEnd, SessionEndReason, Tunnel},
    l7::fact::{Fact, HttpRequest, HttpVersion},
    rules::{
        field::Field,
        model::{Application, Emit, HttpRequestMatch, PathMatch, Rule, SessionPolicy, Signature},
        template::{DataTemplate, Template},
    },
};

const DOC: &str = include_str!("../../../docs/events.md");

fn rule(name: &str, signature: Signature) -> Rule {
    Rule {
        name: name.into(),
        application: Arc::new(Application {
            name: "ar-shop".into(),
            endpoints: vec![],
            session: SessionPolicy {
                idle: Duration::from_secs(30),
                linger: Duration::from_secs(2),
            },
        }),
        ue: vec![],
        direction: Some(Direction::Uplink),
        terms: signature.into(),
        priority: 0,
        is_final: false,
        by_user_space: false,
        needs_session: false,
        every: None,
        capture: 256,
        emit: Emit {
            event_type: "com.example.arshop.buy.clicked".into(),
            subject: Template::default(),
            dataschema: Some("https://example.com/schemas/buy.json".parse().unwrap()),
            data: DataTemplate::default(),
        },
    }
}

fn at(nanoseconds: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_nanos(nanoseconds)
}

/// The detection that docs/events.md shows.
pub(crate) fn buy_click() -> Detection {
    let signature = Signature::HttpRequest(HttpRequestMatch {
        methods: vec![detector_common::http::HttpMethod::Post],
        path: PathMatch::Exact("/api/buttons/buy".into()),
    });
    Detection {
        rule: Arc::new(rule("buy-click", signature)),
        time: at(1_781_870_400_123_456_789),
        device: "n6".into(),
        flow: Flow {
            ue_ip: [10, 45, 0, 7].into(),
            ue_port: 40_312,
            app_ip: [192, 0, 2, 80].into(),
            app_port: 80,
            protocol: Protocol::Tcp,
            direction: Direction::Uplink,
        },
        session: Some(Session {
            id: "01c9f6a2-10.45.0.7-ar-shop".into(),
            started: at(1_781_870_398_000_000_000),
            ended: None,
        }),
        evidence: request(&[]),
        tunnel: None,
        vlan: None,
        discriminator: 7,
        read_at: Instant::now(),
    }
}

/// A request with a host and further header fields.
fn request(headers: &[(&str, &str)]) -> Evidence {
    let headers = headers.iter().map(|(name, value)| ((*name).into(), (*value).into()));
    let request = HttpRequest {
        version: HttpVersion::Http11,
        method: "POST".into(),
        target: "/api/buttons/buy?item=42".into(),
        host: Some("shop.example.com".into()),
        headers: headers.collect(),
    };
    Evidence::of(Moment::Message(Arc::new(Fact::HttpRequest(request))))
}

fn identity() -> Identity {
    Identity { site: "north".into(), node: "edge-1".into() }
}

fn event(detection: &Detection) -> Event {
    build(detection, &identity(), &Overrides::default(), Sampler::default())
}

fn id(detection: &Detection) -> String {
    event(detection).id().to_owned()
}

/// The other one.
pub(crate) fn ended_session() -> Detection {
    let mut detection = buy_click();
    let mut rule = rule("visit-over", Signature::SessionEnded);
    rule.emit.event_type = "com.example.arshop.visit.ended".into();
    rule.emit.dataschema = None;
    detection.rule = Arc::new(rule);
    detection.time = at(1_781_870_459_250_000_000);
    detection.flow.ue_port = 0;
    detection.evidence = Evidence::of(Moment::Session);
    detection.session.as_mut().unwrap().ended = Some(SessionEnd {
        duration: Duration::from_millis(61_250),
        packets: 120,
        bytes: 90_400,
        detections: 3,
        reason: SessionEndReason::Idle,
    });
    detection
}

/// All that can be seen at once, and more than ever will be.
fn everything() -> Detection {
    Detection {
        evidence: request(&[("User-Agent", "ue")]),
        tunnel: Some(Tunnel { teid: 0x1001, message_type: 255, qfi: Some(9) }),
        vlan: Some(100),
        rule: buy_click().rule,
        ..ended_session()
    }
}

#[test]
fn the_time_is_the_packets_to_the_nanosecond() {
    let event = event(&buy_click());
    assert_eq!(event.time().unwrap().to_rfc3339(), "2026-06-19T12:00:00.123456789+00:00");
}

#[test]
fn odd_device_names_do_not_break_the_source() {
    assert_eq!(identity().source("n6.100"), "/mec/north/edge-1/n6.100");
    assert_eq!(identity().source("up/f 0"), "/mec/north/edge-1/up%2Ff%200");
    assert_eq!(identity().source("été%"), "/mec/north/edge-1/%C3%A9t%C3%A9%25");
}

#[test]
fn a_ue_partitions_its_events_and_is_the_subject_by_default() {
    let event = event(&buy_click());
    assert_eq!(event.subject(), Some("10.45.0.7"));
    for name in ["partitionkey", "ueip"] {
        assert_eq!(event.extension(name).unwrap().to_string(), "10.45.0.7", "{name}");
    }
}

#[test]
fn k_ce_overrides_are_set_on_the_event_over_what_the_agent_sets() {
    let text = r#"{"extensions": {"site": "north", "rule": "renamed"}}"#;
    let event =
        build(&buy_click(), &identity(), &Overrides::parse(text).unwrap(), Sampler::default());
    assert_eq!(event.extension("site").unwrap().to_string(), "north");
    assert_eq!(event.extension("rule").unwrap().to_string(), "renamed");
}

#[test]
fn a_session_event_keeps_its_id_whatever_packet_ended_it() {
    let first = ended_session();
    let mut later = first.clone();
    later.time += Duration::from_secs(1);
    later.discriminator += 1;
    assert_eq!(id(&first), id(&later));
    let mut started = first.clone();
    started.rule = Arc::new(rule("visit-over", Signature::SessionStarted));
    assert_ne!(id(&first), id(&started), "begin and end of one session are two events");
    later.session.as_mut().unwrap().id.push('2');
    assert_ne!(id(&first), id(&later), "two sessions are two events");
}

#[test]
fn two_rules_on_one_packet_are_two_events() {
    let first = buy_click();
    let mut second = first.clone();
    second.rule = Arc::new(rule("any-request", first.rule.signature().unwrap()));
    assert_ne!(id(&first), id(&second));
}

/// A receiver that has stored ids must go on recognising them.
#[test]
fn ids_do_not_change_between_releases() {
    assert_eq!(id(&buy_click()), "7be133cd-c113-5d67-98e1-2deec8039cac");
    assert_eq!(id(&ended_session()), "be704305-0930-5f2d-9338-a86b00636afb");
}

/// What tells two detections apart, and nothing else.
type Identifying = (String, u64, [u8; 4], u16, [u8; 4], u16, bool, bool, u64, String);

fn identifying() -> impl Strategy<Value = Identifying> {
    // Small ranges, so that equal parts come up as often as differing ones.
    let address = || prop::array::uniform4(0u8..2);
    let (time, port) = (0u64..3, 0u16..2);
    (
        "[ab]{0,2}",
        time,
        address(),
        port.clone(),
        address(),
        port,
        any::<bool>(),
        any::<bool>(),
        0u64..3,
        "[ab/]{0,2}",
    )
}

fn detection_of(parts: &Identifying) -> Detection {
    let (name, time, ue, ue_port, app, app_port, tcp, uplink, discriminator, device) = parts;
    let mut detection = buy_click();
    detection.rule = Arc::new(rule(name, detection.rule.signature().unwrap()));
    detection.time = at(*time);
    detection.device = device.as_str().into();
    detection.discriminator = *discriminator;
    detection.flow = Flow {
        ue_ip: IpAddr::V4(Ipv4Addr::from(*ue)),
        ue_port: *ue_port,
        app_ip: IpAddr::V4(Ipv4Addr::from(*app)),
        app_port: *app_port,
        protocol: if *tcp { Protocol::Tcp } else { Protocol::Udp },
        direction: if *uplink { Direction::Uplink } else { Direction::Downlink },
    };
    detection
}

proptest! {
    #[test]
    fn ids_are_equal_exactly_when_the_detections_are(
        first in identifying(), second in identifying(),
    ) {
        let (a, b) = (id(&detection_of(&first)), id(&detection_of(&second)));
        prop_assert_eq!(a == b, first == second);
        prop_assert_eq!(id(&detection_of(&first)), a, "built again");
    }

    #[test]
    fn one_changed_part_changes_the_id(parts in identifying(), which in 0usize..10) {
        let mut other = parts.clone();
        match which {
            0 => other.0.push('c'),
            1 => other.1 += 1,
            2 => other.2[3] ^= 1,
            3 => other.3 ^= 1,
            4 => other.4[0] ^= 1,
            5 => other.5 ^= 1,
            6 => other.6 = !other.6,
            7 => other.7 = !other.7,
            8 => other.8 += 1,
            _ => other.9.push('c'),
        }
        prop_assert_ne!(id(&detection_of(&parts)), id(&detection_of(&other)));
    }
}

/// The JSON block of the page under the heading that holds `name`.
fn example_of(name: &str) -> Value {
    let heading = format!("### Example: {name}");
    let after = DOC.split(&heading).nth(1).unwrap_or_else(|| panic!("no heading {heading:?}"));
    let block = after.split("```json").nth(1).unwrap().split("```").next().unwrap();
    serde_json::from_str(block).unwrap()
}

#[test]
fn the_documented_examples_are_what_the_agent_sends() {
    for (name, detection) in [("buy", buy_click()), ("session ended", ended_session())] {
        let sent = serde_json::to_value(event(&detection)).unwrap();
        assert_eq!(sent, example_of(name), "docs/events.md, {name}; sent: {sent:#}");
    }
}

#[test]
fn every_attribute_is_documented_and_every_documented_one_exists() {
    let sent: BTreeSet<String> = serde_json::to_value(event(&everything()))
        .unwrap()
        .as_object()
        .unwrap()
        .keys()
        .filter(|key| *key != "data")
        .cloned()
        .collect();
    assert_eq!(sent, documented("## Attributes"));
}

#[test]
fn every_default_data_field_is_documented_and_every_documented_one_exists() {
    // Each of them is seen under some terms, as a test beside the templates says.
    let sent: BTreeSet<String> = Field::all().map(|field| field.name().to_owned()).collect();
    assert_eq!(sent, documented("## Default data"));
}

/// The first column of the table under a heading.
fn documented(heading: &str) -> BTreeSet<String> {
    let section = DOC.split(&format!("{heading}\n")).nth(1).unwrap();
    section
        .split("\n#")
        .next()
        .unwrap()
        .lines()
        .filter_map(|line| line.strip_prefix("| `")?.split('`').next())
        .map(str::to_owned)
        .collect()
}
