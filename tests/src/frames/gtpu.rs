//! GTP-U (TS 29.281): what carries users' packets on N3. No library builds it.

use std::net::IpAddr;

use super::Packet;

/// UDP port of GTP-U (TS 29.281 section 4.4.2.3).
const PORT: u16 = 2152;
/// Type of a message that carries a user's packet (section 6.1).
const USER_PACKET: u8 = 255;
/// Version 1, protocol type GTP (section 5.1).
const VERSION: u8 = 0x30;
const E: u8 = 0x04;
const S: u8 = 0x02;
const PDU_SESSION_CONTAINER: u8 = 0x85;

/// One extension header (section 5.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Extension {
    /// Its type, e.g. 0x85 (PDU Session Container), 0xc0 (PDCP PDU number).
    pub kind: u8,
    /// The content without length and next type: 2 bytes, or 4 more, or 8 more, ...
    pub content: Vec<u8>,
}

impl Extension {
    /// The uplink PDU Session Container with this QoS flow identifier (TS 38.415 section 5.5.2.2).
    pub fn pdu_session(qfi: u8) -> Self {
        Self { kind: PDU_SESSION_CONTAINER, content: vec![0x10, qfi & 0x3f] }
    }

    /// The downlink one, with paging policy and reflective QoS (section 5.5.2.1).
    pub fn pdu_session_downlink(qfi: u8) -> Self {
        let content = vec![0x00, 0xc0 | (qfi & 0x3f), 0x20, 0, 0, 0];
        Self { kind: PDU_SESSION_CONTAINER, content }
    }
}

/// A tunnel header.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gtpu {
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// With a sequence number, as 3G senders have it (flag S).
    pub sequence: Option<u16>,
    /// Extension headers, in this order (flag E).
    pub extensions: Vec<Extension>,
}

impl Gtpu {
    /// As a 5G radio sends it: this TEID and this QoS flow.
    pub fn with_qfi(teid: u32, qfi: u8) -> Self {
        Self { teid, sequence: None, extensions: vec![Extension::pdu_session(qfi)] }
    }

    /// Header and content of one message.
    pub fn message(&self, message_type: u8, content: &[u8]) -> Vec<u8> {
        let mut flags = VERSION;
        let mut optional = Vec::new();
        if self.sequence.is_some() || !self.extensions.is_empty() {
            // Any of the flags means all four bytes: sequence number, N-PDU number, next type.
            optional.extend(self.sequence.unwrap_or(0).to_be_bytes());
            optional.push(0);
            for extension in &self.extensions {
                let words = (extension.content.len() + 2) / 4;
                optional.push(extension.kind);
                optional.push(u8::try_from(words).expect("an extension below 1 KiB"));
                optional.extend(&extension.content);
            }
            optional.push(0);
            flags |= if self.sequence.is_some() { S } else { 0 };
            flags |= if self.extensions.is_empty() { 0 } else { E };
        }
        let length = u16::try_from(optional.len() + content.len()).expect("below 64 KiB");
        let mut message = vec![flags, message_type];
        message.extend(length.to_be_bytes());
        message.extend(self.teid.to_be_bytes());
        message.extend(optional);
        message.extend(content);
        message
    }
}

impl Packet {
    /// This packet inside a tunnel between two N3 addresses.
    pub fn in_tunnel(&self, from: IpAddr, to: IpAddr, tunnel: &Gtpu) -> Self {
        Self::gtpu(from, to, &tunnel.message(USER_PACKET, &self.bytes()))
    }

    /// This packet's Ethernet frame inside a tunnel: an Ethernet PDU session.
    pub fn bridged_in_tunnel(&self, from: IpAddr, to: IpAddr, tunnel: &Gtpu) -> Self {
        Self::gtpu(from, to, &tunnel.message(USER_PACKET, &self.frame()))
    }

    /// A GTP-U message between two N3 addresses.
    pub fn gtpu(from: IpAddr, to: IpAddr, message: &[u8]) -> Self {
        Self::udp((from, PORT), (to, PORT), message)
    }
}
