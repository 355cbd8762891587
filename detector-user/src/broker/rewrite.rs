//! What Knative's data plane changes of an event and its headers on their way.

use axum::http::HeaderMap;
use cloudevents::{Event, event::ExtensionValue};

use super::attempt::Failure;

/// How often an event may go round through replies (eventing `pkg/broker/ttl.go`).
pub(super) const TTL: &str = "knativebrokerttl";
const DEFAULT_TTL: i64 = 255;

/// Knative's TTLDefaulter: absent or not a number means 255, else one less; false when it is used
/// up.
pub(super) fn spend_ttl(event: &mut Event) -> bool {
    let given = match event.extension(TTL) {
        Some(ExtensionValue::Integer(ttl)) => Some(*ttl),
        Some(ExtensionValue::String(text)) => text.parse::<i32>().ok().map(i64::from),
        Some(ExtensionValue::Boolean(_)) | None => None,
    };
    let ttl = given.map_or(DEFAULT_TTL, |ttl| ttl - 1);
    event.set_extension(TTL, ttl);
    ttl > 0
}

/// The event with why it was not delivered (Knative Eventing data plane, dead letter extensions).
pub(super) fn with_error(event: &Event, failure: &Failure) -> Event {
    use base64::prelude::{BASE64_STANDARD, Engine};
    const DATA_LIMIT: usize = 1024;
    let mut data = BASE64_STANDARD.encode(&failure.body);
    data.truncate(DATA_LIMIT);
    let mut event = event.clone();
    event.set_extension("knativeerrordest", failure.destination.as_str());
    event.set_extension("knativeerrorcode", i64::from(failure.code.as_u16()));
    event.set_extension("knativeerrordata", data);
    event
}

/// The headers that survive from sender to subscriber, besides `ce-*`.
pub(super) fn passed_through(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [&str; 2] = ["x-request-id", "traceparent"];
    const PREFIXES: [&str; 2] = ["knative-", "x-b3-"];
    let survives = |name: &str| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers
        .iter()
        .filter(|(name, _)| survives(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use axum::http::{HeaderValue, StatusCode};
    use cloudevents::{EventBuilder, EventBuilderV10};

    use super::*;

    fn event(ttl: Option<ExtensionValue>) -> Event {
        let builder = EventBuilderV10::new().id("1").source("/s").ty("t");
        match ttl {
            Some(ttl) => builder.extension(TTL, ttl),
            None => builder,
        }
        .build()
        .expect("complete")
    }

    #[test]
    fn ttl_is_255_at_first_and_one_less_each_round() {
        let text = |text: &str| Some(ExtensionValue::String(text.into()));
        for (given, left, goes_on) in [
            (None, 255, true),
            (text("garbage"), 255, true),
            (text("255"), 254, true),
            (Some(ExtensionValue::Integer(2)), 1, true),
            (text("1"), 0, false),
            (text("0"), -1, false),
        ] {
            let mut event = event(given.clone());
            assert_eq!(spend_ttl(&mut event), goes_on, "{given:?}");
            assert_eq!(event.extension(TTL), Some(&ExtensionValue::Integer(left)), "{given:?}");
        }
    }

    #[test]
    fn only_the_listed_headers_pass() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-request-id",
            "knative-a",
            "x-b3-traceid",
            "traceparent",
            "authorization",
            "ce-id",
            "content-type",
            "kn-namespace",
            "x-forwarded-for",
            "host",
        ] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        let mut passed: Vec<_> =
            passed_through(&headers).keys().map(|name| name.as_str().to_owned()).collect();
        passed.sort();
        assert_eq!(passed, ["knative-a", "traceparent", "x-b3-traceid", "x-request-id"]);
    }

    #[test]
    fn error_data_is_base64_and_at_most_1024_characters() {
        let failure = Failure {
            destination: "http://f/".into(),
            code: StatusCode::SERVICE_UNAVAILABLE,
            body: vec![b'x'; 5000].into(),
        };
        let dead = with_error(&event(None), &failure);
        let data = dead.extension("knativeerrordata").expect("set").to_string();
        assert_eq!(data.len(), 1024);
        assert!(data.starts_with("eHh4"));
        assert_eq!(dead.extension("knativeerrorcode"), Some(&ExtensionValue::Integer(503)));
    }
}
