//! Values as events write them.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, SecondsFormat, Utc};
use detector_common::packet::{Direction, Protocol};
use serde_json::Value;

use crate::{
    detection::{Detection, Moment, SessionEnd, SessionEndReason},
    rules::term::FlowEventKind,
};

pub(super) fn text(text: &str) -> Option<Value> {
    Some(text.into())
}

pub(super) fn number(number: impl Into<u64>) -> Option<Value> {
    Some(number.into().into())
}

pub(super) fn ended(seen: &Detection) -> Option<&SessionEnd> {
    seen.session.as_ref()?.ended.as_ref()
}

pub(super) fn milliseconds(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX)
}

pub(super) fn timestamp(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(SecondsFormat::Micros, true)
}

pub(super) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

pub(super) fn flow_event(seen: &Detection) -> Option<&'static str> {
    Some(match seen.evidence.moment {
        Moment::Opened => FlowEventKind::Opened.word(),
        Moment::Closed(_) => FlowEventKind::Closed.word(),
        Moment::Idle(_) => FlowEventKind::Idle.word(),
        Moment::Packet | Moment::Message(_) | Moment::UdpFirst | Moment::Session => return None,
    })
}

/// `tcp`, `udp`: the words of rules files and of events.
pub fn protocol(protocol: Protocol) -> &'static str {
    match protocol {
        Protocol::Tcp => "tcp",
        Protocol::Udp => "udp",
    }
}

/// `uplink`, `downlink`: the words of rules files and of events.
pub fn direction(direction: Direction) -> &'static str {
    match direction {
        Direction::Uplink => "uplink",
        Direction::Downlink => "downlink",
    }
}

pub(super) fn reason(reason: SessionEndReason) -> &'static str {
    match reason {
        SessionEndReason::Idle => "idle",
        SessionEndReason::Closed => "closed",
        SessionEndReason::Evicted => "evicted",
        SessionEndReason::Stopped => "stopped",
    }
}
