//! The data of an event whose rule does not say what it wants: everything that was seen, under
//! the names that templates use for it.

use std::time::SystemTime;

use chrono::{DateTime, SecondsFormat, Utc};
use serde_json::{Map, Value, json};

use super::{direction_name, protocol_name};
use crate::detection::{Detection, HttpRequest, Session, SessionEnd, SessionEndReason, Tunnel};

/// Everything that was seen. What was not seen has no key, or null where it could have been.
pub(super) fn default_data(detection: &Detection) -> Value {
    let flow = &detection.flow;
    let mut data = json!({
        "ue": {"ip": flow.ue_ip, "port": flow.ue_port},
        "app": {
            "name": detection.rule.application.name,
            "ip": flow.app_ip,
            "port": flow.app_port,
        },
        "protocol": protocol_name(flow.protocol),
        "direction": direction_name(flow.direction),
        "device": &*detection.device,
    });
    if let Value::Object(keys) = &mut data {
        add_what_was_seen(keys, detection);
    }
    data
}

fn add_what_was_seen(keys: &mut Map<String, Value>, detection: &Detection) {
    let optional = [
        ("http", detection.http.as_ref().map(http)),
        ("tunnel", detection.tunnel.as_ref().map(tunnel)),
        ("session", detection.session.as_ref().map(session)),
    ];
    keys.extend(optional.into_iter().filter_map(|(key, seen)| Some((key.to_owned(), seen?))));
}

fn http(request: &HttpRequest) -> Value {
    json!({
        "method": request.method,
        "path": request.path,
        "query": request.query,
        "host": request.host,
        "user_agent": request.user_agent,
    })
}

fn tunnel(tunnel: &Tunnel) -> Value {
    json!({"teid": tunnel.teid, "qfi": tunnel.qfi})
}

fn session(session: &Session) -> Value {
    let mut value = json!({"id": session.id, "started": timestamp(session.started)});
    if let (Value::Object(keys), Some(end)) = (&mut value, &session.ended) {
        keys.extend(totals(end));
    }
    value
}

fn totals(end: &SessionEnd) -> [(String, Value); 5] {
    [
        ("duration_seconds".to_owned(), json!(end.duration.as_secs_f64())),
        ("packets".to_owned(), json!(end.packets)),
        ("bytes".to_owned(), json!(end.bytes)),
        ("detections".to_owned(), json!(end.detections)),
        ("reason".to_owned(), json!(reason_name(end.reason))),
    ]
}

fn reason_name(reason: SessionEndReason) -> &'static str {
    match reason {
        SessionEndReason::Idle => "idle",
        SessionEndReason::Closed => "closed",
        SessionEndReason::Evicted => "evicted",
        SessionEndReason::Stopped => "stopped",
    }
}

/// RFC 3339 with as many digits as the time has, up to nanoseconds.
fn timestamp(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::AutoSi, true)
}
