//! Where and when something was seen: what detections and observations take from a record.

use detector_common::state::SessionKey;

use crate::{
    decode::Record,
    deep::Observation,
    detection::{Evidence, Flow, Tunnel},
};

/// Where and when.
#[derive(Clone, Debug)]
pub(super) struct SeenAt {
    /// The session it belongs to.
    pub(super) session: SessionKey,
    /// When that began; `None` before the UE spoke.
    pub(super) session_start_ns: Option<u64>,
    /// Who talked to whom.
    pub(super) flow: Flow,
    /// The device whose hook saw it.
    pub(super) ifindex: u32,
    /// When, on the packet path's clock.
    pub(super) time_ns: u64,
    /// The GTP-U tunnel.
    pub(super) tunnel: Option<Tunnel>,
    /// The outermost VLAN.
    pub(super) vlan: Option<u16>,
    /// TCP sequence number.
    pub(super) sequence: u32,
    /// Which of the messages that the packet completes, from 1; 0 for the packet as such.
    pub(super) number: u32,
    /// Bytes of the packet at the hook.
    pub(super) bytes: u32,
}

impl SeenAt {
    /// The record's own place and time.
    pub(super) fn of(record: &Record<'_>) -> Self {
        Self {
            session: record.session,
            session_start_ns: record.session_start_ns,
            flow: record.flow,
            ifindex: record.ifindex,
            time_ns: record.time_ns,
            tunnel: record.tunnel,
            vlan: record.vlan,
            sequence: record.sequence,
            number: 0,
            bytes: record.packet_length,
        }
    }

    /// As rules are judged on it.
    pub(super) fn observation(&self, evidence: Evidence) -> Observation {
        Observation {
            application: self.session.application,
            flow: self.flow,
            tunnel: self.tunnel,
            in_session: self.session_start_ns.is_some(),
            time_ns: self.time_ns,
            bytes: self.bytes.into(),
            evidence,
        }
    }
}
