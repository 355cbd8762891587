use std::{path::Path, time::Duration};

use proptest::prelude::*;

use super::{super::resource::BackoffPolicy, *};

const BROKER: &str = "\
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default, namespace: edge}
";

fn trigger(spec: &str) -> String {
    format!(
        "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\n\
             metadata: {{name: buy, namespace: edge}}\nspec: {spec}\n"
    )
}

fn build(text: &str, services: &[&str]) -> Result<Topology, TopologyError> {
    let mut manifests = Manifests::default();
    manifests.add(Path::new("edge.yaml"), text).expect("readable");
    let services: Vec<_> = services.iter().map(|s| s.parse().expect("service")).collect();
    Topology::new(manifests, &services)
}

fn subscriber(spec: &str, services: &[&str]) -> Result<String, String> {
    let text = format!("{BROKER}{}", trigger(&format!("{{broker: default, subscriber: {spec}}}")));
    let topology = build(&text, services).map_err(|error| error.to_string())?;
    Ok(topology.node(&Name::new("edge", "default")).unwrap().routes[0].subscriber.to_string())
}

#[test]
fn a_uri_is_taken_as_it_is() {
    assert_eq!(
        subscriber("{uri: 'http://10.0.0.1:8080/in'}", &[]).unwrap(),
        "http://10.0.0.1:8080/in"
    );
    let message = subscriber("{uri: /in}", &[]).unwrap_err();
    assert!(message.contains("`spec.subscriber`") && message.contains("not a URL"), "{message}");
    let message = subscriber("{uri: 'ftp://a/'}", &[]).unwrap_err();
    assert!(message.contains("http://"), "{message}");
    let message = subscriber("{}", &[]).unwrap_err();
    assert!(message.contains("expected `ref` or `uri`"), "{message}");
}

#[test]
fn a_ref_is_resolved_by_service_and_the_namespaced_one_wins() {
    let reference =
        "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: buy-function}}";
    let any = "buy-function=http://127.0.0.1:1/";
    let edge = "edge/buy-function=http://127.0.0.1:2/";
    let other = "prod/buy-function=http://127.0.0.1:3/";
    assert_eq!(subscriber(reference, &[any]).unwrap(), "http://127.0.0.1:1/");
    assert_eq!(subscriber(reference, &[any, other, edge]).unwrap(), "http://127.0.0.1:2/");
    let message = subscriber(reference, &[other]).unwrap_err();
    assert!(message.contains("--service buy-function=http"), "{message}");
    assert!(message.starts_with("edge.yaml:4: Trigger edge/buy: `spec.subscriber`"), "{message}");
}

#[test]
fn a_ref_with_a_uri_is_a_path_at_the_service() {
    let spec = "{ref: {kind: Service, name: f}, uri: /events}";
    assert_eq!(subscriber(spec, &["f=http://127.0.0.1:9"]).unwrap(), "http://127.0.0.1:9/events");
}

#[test]
fn a_ref_to_a_broker_or_channel_stays_inside() {
    assert_eq!(subscriber("{ref: {kind: Broker, name: default}}", &[]).unwrap(), "/edge/default");
    let message = subscriber("{ref: {kind: Channel, name: audit}}", &[]).unwrap_err();
    assert!(
        message.contains("no Channel edge/audit") && message.contains("known: none"),
        "{message}"
    );
}

#[test]
fn service_arguments_that_are_not_name_and_url_are_refused() {
    for text in
        ["buy", "=http://a/", "/f=http://a/", "a/b/c=http://a/", "f=127.0.0.1:80", "f=file:///x"]
    {
        assert!(text.parse::<ServiceAddress>().is_err(), "{text}");
    }
}

#[test]
fn a_trigger_without_its_broker_is_refused_with_the_known_ones() {
    let text = format!("{BROKER}{}", trigger("{broker: main, subscriber: {uri: 'http://a/'}}"));
    let message = build(&text, &[]).unwrap_err().to_string();
    assert!(message.contains("no Broker edge/main"), "{message}");
    assert!(message.contains("known: edge/default"), "{message}");
}

#[test]
fn two_objects_of_one_name_are_refused() {
    let message = build(&format!("{BROKER}---\n{BROKER}"), &[]).unwrap_err().to_string();
    assert!(message.contains("already a Broker"), "{message}");
    let one = trigger("{broker: default, subscriber: {uri: 'http://a/'}}");
    let message = build(&format!("{BROKER}{one}{one}"), &[]).unwrap_err().to_string();
    assert!(message.contains("trigger edge/buy") && message.contains("twice"), "{message}");
}

fn delivery(broker: &str, trigger_spec: &str) -> Delivery {
    let text = format!(
        "{BROKER}{broker}{}",
        trigger(&format!("{{broker: default, subscriber: {{uri: 'http://a/'}}{trigger_spec}}}"))
    );
    let topology = build(&text, &[]).unwrap();
    topology.node(&Name::new("edge", "default")).unwrap().routes[0].delivery.clone()
}

#[test]
fn delivery_is_the_triggers_else_the_brokers_else_knatives_default() {
    let default = delivery("", "");
    assert_eq!(default.retries, 10);
    let waits: Vec<_> = (1..=10).map(|attempt| default.wait_after(attempt).as_millis()).collect();
    assert_eq!(waits[..4], [200, 400, 800, 1600]);
    assert_eq!(waits.iter().sum::<u128>(), 204_600, "about 205 s in the worst case");

    let linear = "spec: {delivery: {retry: 2, backoffPolicy: linear, backoffDelay: PT1S}}\n";
    let inherited = delivery(linear, "");
    assert_eq!((inherited.retries, inherited.wait_after(3)), (2, Duration::from_secs(2)));

    // A Trigger's `delivery` replaces the Broker's as a whole: no retry is left here.
    let own = delivery(linear, ", delivery: {timeout: PT5S}");
    assert_eq!((own.retries, own.timeout), (0, Some(Duration::from_secs(5))));
    assert_eq!(own.wait_after(1), Duration::ZERO);
}

#[test]
fn the_async_annotation_is_read_from_broker_and_channel() {
    let text = "\
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {name: audit, namespace: edge, annotations: {messaging.knative.dev/async-handler: 'true'}}
";
    let topology = build(&format!("{BROKER}---\n{text}"), &[]).unwrap();
    assert_eq!(topology.node(&Name::new("edge", "audit")).unwrap().ack, Ack::Async);
    assert_eq!(topology.node(&Name::new("edge", "default")).unwrap().ack, Ack::Sync);
}

proptest! {
    #[test]
    fn waits_never_shrink_and_never_overflow(
        exponential: bool, millis in 0u64..10_000, attempt in 1u32..100_000,
    ) {
        let policy = if exponential { BackoffPolicy::Exponential } else { BackoffPolicy::Linear };
        let delivery =
            Delivery { backoff: Some((policy, Duration::from_millis(millis))), ..Delivery::default() };
        prop_assert!(delivery.wait_after(attempt) <= delivery.wait_after(attempt + 1));
    }
}
