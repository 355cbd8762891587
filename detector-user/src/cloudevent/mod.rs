//! Detection -> CloudEvent (CloudEvents 1.0). Every attribute is described in `docs/events.md`;
//! a test here keeps that page and this code in step.

mod id;
mod overrides;
mod trace;

#[cfg(test)]
pub(crate) mod tests;

use chrono::{DateTime, Utc};
use cloudevents::{AttributesWriter, Event, EventBuilder, EventBuilderV10};
use detector_common::packet::Direction;
use percent_encoding::{AsciiSet, NON_ALPHANUMERIC, utf8_percent_encode};

use crate::detection::Detection;

pub use overrides::{Overrides, OverridesError};
pub use trace::{Sampler, TRACEPARENT, TraceContext};

/// Characters a URI path segment may hold as they are without further thought (RFC 3986 section
/// 2.3, unreserved); all others, `/` first of all, are percent-encoded.
const SEGMENT: &AsciiSet = &NON_ALPHANUMERIC.remove(b'-').remove(b'.').remove(b'_').remove(b'~');

/// Where this agent stands: the first part of every event's `source`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The edge site.
    pub site: String,
    /// The node of the site.
    pub node: String,
}

impl Identity {
    /// The CloudEvents `source` of what one device of this node shows.
    pub fn source(&self, device: &str) -> String {
        let segment = |text| utf8_percent_encode(text, SEGMENT);
        format!("/mec/{}/{}/{}", segment(&self.site), segment(&self.node), segment(device))
    }
}

/// The event of a detection. The same packet gives the same event, `id` included, however often
/// it is built.
pub fn build(
    detection: &Detection,
    identity: &Identity,
    overrides: &Overrides,
    sampler: Sampler,
) -> Event {
    let emit = &detection.rule.emit;
    let source = identity.source(&detection.device);
    let ue = detection.flow.ue_ip.to_string();
    let id = id::id(detection, &source);
    let event = EventBuilderV10::new()
        .id(id.to_string())
        .source(source)
        .ty(emit.event_type.as_str())
        .subject(subject(detection, &ue))
        .time(DateTime::<Utc>::from(detection.time))
        .data("application/json", emit.data.render(detection))
        .extension("partitionkey", ue.as_str())
        .extension("ueip", ue)
        .extension("application", detection.rule.application.name.as_str())
        .extension("rule", detection.rule.name.as_str())
        .extension("direction", direction_name(detection.flow.direction))
        .extension(TRACEPARENT, TraceContext::new(id, sampler).to_string())
        .build();
    // The builder refuses only a missing id, type or source, an empty source, and texts that are
    // no time or URL; none of them can reach it from here.
    let mut event = event.expect("id, type, source and time are set above");
    event.set_dataschema(emit.dataschema.clone());
    if let Some(session) = &detection.session {
        event.set_extension("sessionid", session.id.as_str());
    }
    overrides.apply(&mut event);
    event
}

/// The rule's subject, or the UE's address where it renders to nothing: CloudEvents 1.0 does not
/// allow an empty subject, nor control characters (section "Type System", String).
fn subject(detection: &Detection, ue: &str) -> String {
    let rendered = detection.rule.emit.subject.render(detection);
    if rendered.is_empty() {
        return ue.to_owned();
    }
    rendered.replace(char::is_control, "\u{fffd}")
}

fn direction_name(direction: Direction) -> &'static str {
    match direction {
        Direction::Uplink => "uplink",
        Direction::Downlink => "downlink",
    }
}
