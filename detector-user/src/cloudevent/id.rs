//! The `id` of an event: the same for the same packet, so that a receiver can tell a repeated
//! delivery, a restarted agent or a replayed capture from a second action of the user.
//!
//! It is a version 5 UUID (RFC 9562 section 5.5) over what makes a detection itself. Each part
//! is written with its length, so that no two lists of parts can read the same.

use std::{
    net::IpAddr,
    time::{SystemTime, UNIX_EPOCH},
};

use uuid::{Uuid, uuid};

use crate::{
    detection::{Detection, Flow},
    rules::model::SessionEvent,
};

/// The namespace of Detector's event ids. Changing it, or what is hashed below, gives every
/// event a new id: receivers would then see a replayed action as a new one.
const NAMESPACE: Uuid = uuid!("7c5f0f5e-3f5d-5a39-9d0b-5d1ce2f3c0a7");

/// The id of a detection that is reported under `source`.
pub(super) fn id(detection: &Detection, source: &str) -> Uuid {
    let mut name = Name::default();
    name.part(source.as_bytes()).part(detection.rule.name.as_bytes());
    let kind: Option<&[u8]> = match detection.rule.terms.session {
        Some(SessionEvent::Started) => Some(b"session.started"),
        Some(SessionEvent::Ended) => Some(b"session.ended"),
        None => None,
    };
    match (kind, &detection.session) {
        (Some(kind), Some(session)) => {
            // A session begins and ends once: its own id says all.
            name.part(kind).part(session.id.as_bytes());
        }
        (Some(_) | None, None) | (None, Some(_)) => {
            name.part(b"packet")
                .part(&nanoseconds(detection.time).to_be_bytes())
                .flow(&detection.flow)
                .part(&detection.discriminator.to_be_bytes());
        }
    }
    Uuid::new_v5(&NAMESPACE, &name.0)
}

/// Since 1970, negative before it.
fn nanoseconds(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos().cast_signed(),
        Err(before) => -before.duration().as_nanos().cast_signed(),
    }
}

/// The bytes that are hashed.
#[derive(Default)]
struct Name(Vec<u8>);

impl Name {
    fn part(&mut self, bytes: &[u8]) -> &mut Self {
        self.0.extend_from_slice(&(bytes.len() as u64).to_be_bytes());
        self.0.extend_from_slice(bytes);
        self
    }

    fn flow(&mut self, flow: &Flow) -> &mut Self {
        self.address(flow.ue_ip)
            .part(&flow.ue_port.to_be_bytes())
            .address(flow.app_ip)
            .part(&flow.app_port.to_be_bytes())
            .part(&[flow.protocol as u8, flow.direction as u8])
    }

    fn address(&mut self, address: IpAddr) -> &mut Self {
        match address {
            IpAddr::V4(v4) => self.part(&v4.octets()),
            IpAddr::V6(v6) => self.part(&v6.octets()),
        }
    }
}
