//! Record bytes -> a checked record. The ring buffer is trusted to hold what the kernel programs
//! wrote, but not to be of this version: nothing here is read unchecked.

use std::net::{IpAddr, Ipv6Addr};

use detector_common::{
    event::{
        FLAG_BEHIND_GAP, FLAG_INSPECT, FLAG_QFI, FLAG_SESSION_QUIET, FLAG_SESSION_STARTED,
        FLAG_TUNNEL, MAX_SEGMENT, PayloadKind, RECORD_VERSION, RecordHeader,
    },
    packet::{Address, Direction, Protocol},
    state::{FlowKey, SessionKey},
};
use zerocopy::FromBytes;

use crate::detection::{Flow, Tunnel};

/// A record as the agent uses it.
#[derive(Clone, Debug, PartialEq)]
pub struct Record<'a> {
    /// The device whose hook saw the packet.
    pub ifindex: u32,
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// When its session began; `None` before the UE spoke.
    pub session_start_ns: Option<u64>,
    /// The session it belongs to.
    pub session: SessionKey,
    /// This is the UE's first packet to the application.
    pub session_started: bool,
    /// The session's last open TCP connection was closed.
    pub session_quiet: bool,
    /// It is to be read as part of its flow.
    pub inspect: bool,
    /// What its flow said in this direction before this sequence number was not all shown, nor will be.
    pub behind_gap: Option<u32>,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// Who talked to whom.
    pub flow: Flow,
    /// The same, as the packet path's memory knows it.
    pub flow_key: FlowKey,
    /// The GTP-U tunnel it came in.
    pub tunnel: Option<Tunnel>,
    /// The outermost VLAN.
    pub vlan: Option<u16>,
    /// What was recognised at the payload's start.
    pub payload_kind: PayloadKind,
    /// The generation of rules that judged the packet.
    pub generation: u32,
    /// The rules that matched, as numbers in that generation.
    pub rules: Vec<u16>,
    /// TCP sequence number.
    pub sequence: u32,
    /// Bytes of the packet at the hook.
    pub packet_length: u32,
    /// Payload bytes in the packet; `payload` may be fewer.
    pub payload_length: u32,
    /// The payload's start, as much as the rules asked for.
    pub payload: &'a [u8],
}

/// Bytes that are no record of this version.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, thiserror::Error)]
pub enum DecodeError {
    /// Shorter than a header.
    #[error("shorter than a record header")]
    TooShort,
    /// Another layout.
    #[error(
        "a record of another version: the kernel programs and the agent do not belong together"
    )]
    Version,
    /// A number that stands for nothing.
    #[error("a record with an unknown {0}")]
    Unknown(&'static str),
    /// Lengths that contradict each other.
    #[error("a record whose length does not match what it says")]
    Length,
}

impl<'a> Record<'a> {
    /// Checks and decodes a record.
    ///
    /// # Errors
    /// What is wrong with the bytes.
    pub fn decode(bytes: &'a [u8]) -> Result<Self, DecodeError> {
        let (header, payload) =
            RecordHeader::read_from_prefix(bytes).map_err(|_| DecodeError::TooShort)?;
        if header.version != RECORD_VERSION {
            return Err(DecodeError::Version);
        }
        // The ring has places of few sizes: what lies behind the payload is no part of the record.
        let captured = payload.get(..header.captured as usize);
        let payload = captured.filter(|it| it.len() <= MAX_SEGMENT).ok_or(DecodeError::Length)?;
        let rules = header.rules.get(..usize::from(header.rule_count));
        let has = |flag| header.flags & flag != 0;
        Ok(Self {
            ifindex: header.ifindex,
            time_ns: header.time_ns,
            session_start_ns: (header.session_start_ns != 0).then_some(header.session_start_ns),
            session: SessionKey {
                ue: header.flow.ue,
                application: header.application,
                reserved: 0,
            },
            session_started: has(FLAG_SESSION_STARTED),
            session_quiet: has(FLAG_SESSION_QUIET),
            inspect: has(FLAG_INSPECT),
            behind_gap: has(FLAG_BEHIND_GAP)
                .then(|| header.sequence.wrapping_sub(header.late.into())),
            tcp_flags: header.tcp_flags,
            flow: flow(&header.flow, header.direction)?,
            flow_key: header.flow,
            tunnel: has(FLAG_TUNNEL).then_some(Tunnel {
                teid: header.teid,
                message_type: header.gtpu_message_type,
                qfi: has(FLAG_QFI).then_some(header.qfi),
            }),
            vlan: header.vlan.first().copied().filter(|id| *id != 0),
            payload_kind: PayloadKind::from_number(header.payload_kind)
                .ok_or(DecodeError::Unknown("payload kind"))?,
            generation: header.generation,
            rules: rules.ok_or(DecodeError::Length)?.to_vec(),
            sequence: header.sequence,
            packet_length: header.packet_length,
            payload_length: header.payload_length,
            payload,
        })
    }
}

/// Who talked to whom, which way.
pub(crate) fn flow(flow: &FlowKey, direction: u8) -> Result<Flow, DecodeError> {
    let protocol = match flow.protocol {
        6 => Protocol::Tcp,
        17 => Protocol::Udp,
        _ => return Err(DecodeError::Unknown("transport")),
    };
    let direction = match direction {
        0 => Direction::Uplink,
        1 => Direction::Downlink,
        _ => return Err(DecodeError::Unknown("direction")),
    };
    Ok(Flow {
        ue_ip: ip(flow.ue),
        ue_port: flow.ue_port,
        app_ip: ip(flow.application_address),
        app_port: flow.application_port,
        protocol,
        direction,
    })
}

/// An address of the packet path as the rest of the agent writes it: IPv4 as IPv4.
pub fn ip(address: Address) -> IpAddr {
    Ipv6Addr::from(address.bytes()).to_canonical()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::{FromZeros, IntoBytes};

    use super::*;

    fn header() -> RecordHeader {
        let mut header = RecordHeader::new_zeroed();
        header.version = RECORD_VERSION;
        header.flow.protocol = 6;
        header
    }

    #[test]
    fn a_record_of_another_version_is_refused() {
        let mut header = header();
        header.version += 1;
        assert_eq!(Record::decode(header.as_bytes()), Err(DecodeError::Version));
    }

    #[test]
    fn a_length_that_lies_is_refused() {
        let mut header = header();
        header.captured = 1;
        assert_eq!(Record::decode(header.as_bytes()), Err(DecodeError::Length));
        header.captured = 0;
        header.rule_count = 9;
        assert_eq!(Record::decode(header.as_bytes()), Err(DecodeError::Length));
    }

    #[test]
    fn an_unknown_number_is_refused_and_named() {
        let mut header = header();
        header.payload_kind = 99;
        assert_eq!(Record::decode(header.as_bytes()), Err(DecodeError::Unknown("payload kind")));
    }

    proptest! {
        #[test]
        fn no_bytes_make_it_panic(bytes in prop::collection::vec(any::<u8>(), 0..400)) {
            let _ = Record::decode(&bytes);
        }
    }
}
