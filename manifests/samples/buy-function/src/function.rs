//! What the function does with one event.

use std::collections::BTreeMap;

use chrono::{DateTime, SecondsFormat, Utc};
use cloudevents::{AttributesReader, Data, Event, EventBuilder, EventBuilderV10};
use serde_json::{Value, json};

const CLICKED: &str = "com.example.arshop.buy.clicked";
const ACCEPTED: &str = "com.example.arshop.buy.accepted";

/// The line to print, and the reply if there is one. `times` counts this event's arrivals, from 1.
pub(crate) fn handle(event: &Event, times: u64, now: DateTime<Utc>) -> (String, Option<Event>) {
    let extensions: BTreeMap<&str, String> =
        event.iter_extensions().map(|(name, value)| (name, value.to_string())).collect();
    let data = event.data().map_or(Value::Null, readable);
    let line = json!({
        "time": now.to_rfc3339_opts(SecondsFormat::Micros, true),
        "id": event.id(),
        "type": event.ty(),
        "subject": event.subject(),
        "source": event.source(),
        "extensions": extensions,
        "attempt": times,
        "duplicate": times > 1,
        "data": data,
    });
    (line.to_string(), reply_to(event))
}

/// Only to what it knows: a reply to everything would, with a Trigger that takes everything, be a
/// loop. The id is that of the press, so that a duplicate press gives a duplicate, not a second
/// order.
fn reply_to(event: &Event) -> Option<Event> {
    if event.ty() != CLICKED {
        return None;
    }
    let reply = EventBuilderV10::new()
        .id(event.id())
        .source("/functions/buy")
        .ty(ACCEPTED)
        .data("application/json", json!({ "press": event.id(), "accepted": true }));
    let reply = match event.subject() {
        Some(subject) => reply.subject(subject),
        None => reply,
    };
    reply.build().ok()
}

/// JSON as JSON, anything else as text.
fn readable(data: &Data) -> Value {
    match data {
        Data::Json(value) => value.clone(),
        Data::String(text) => Value::String(text.clone()),
        Data::Binary(bytes) => serde_json::from_slice(bytes)
            .unwrap_or_else(|_| Value::String(String::from_utf8_lossy(bytes).into_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn press() -> Event {
        EventBuilderV10::new()
            .id("e-1")
            .source("/mec/site-a")
            .ty(CLICKED)
            .subject("10.45.0.2")
            .extension("ueip", "10.45.0.2")
            .data("application/json", b"{\"path\":\"/api/buttons/buy\"}".to_vec())
            .build()
            .expect("complete")
    }

    fn now() -> DateTime<Utc> {
        DateTime::from_timestamp(1_750_000_000, 0).expect("in range")
    }

    #[test]
    fn the_line_holds_what_a_person_or_a_script_looks_for() {
        let (line, _) = handle(&press(), 1, now());
        assert!(!line.contains('\n'));
        let line: Value = serde_json::from_str(&line).unwrap();
        assert_eq!(
            line,
            json!({
                "time": "2025-06-15T15:06:40.000000Z", "id": "e-1", "type": CLICKED,
                "subject": "10.45.0.2", "source": "/mec/site-a",
                "extensions": {"ueip": "10.45.0.2"}, "attempt": 1, "duplicate": false,
                "data": {"path": "/api/buttons/buy"},
            })
        );
    }

    #[test]
    fn a_second_arrival_is_marked() {
        let line: Value = serde_json::from_str(&handle(&press(), 2, now()).0).unwrap();
        assert_eq!((&line["attempt"], &line["duplicate"]), (&json!(2), &json!(true)));
    }

    #[test]
    fn the_reply_is_for_the_same_user_and_has_the_id_of_the_press() {
        let reply = handle(&press(), 1, now()).1.expect("a reply");
        assert_eq!((reply.ty(), reply.id()), (ACCEPTED, "e-1"));
        assert_eq!(reply.subject(), Some("10.45.0.2"));
    }

    #[test]
    fn data_that_is_no_json_is_printed_as_text() {
        let mut event = press();
        event.set_data("text/plain", b"hello".to_vec());
        let line: Value = serde_json::from_str(&handle(&event, 1, now()).0).unwrap();
        assert_eq!(line["data"], "hello");
    }
}
