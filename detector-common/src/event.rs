//! The record that crosses from the packet path to the agent: a fixed header and as many payload
//! bytes as the rules that matched ask for.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::state::FlowKey;

/// Version of this layout; a reader refuses any other.
pub const RECORD_VERSION: u8 = 3;
/// The most payload bytes a rule may ask for.
pub const MAX_CAPTURE: usize = 1024;
/// The most payload bytes of one packet that user space is shown to read itself, see
/// [`FLAG_INSPECT`]: a frame of the usual MTU whole, of a super-packet the start.
pub const MAX_SEGMENT: usize = 4096;
/// The reader is woken at most this often by each CPU, in ns. At 1,000 events/s nearly every event
/// still wakes it; at 1,000,000/s one wake-up is shared by 250 packets.
pub const WAKE_HOLDOFF_NS: u64 = 250_000;
/// Of this many parts of the ring buffer one is kept for records with [`FLAG_IMPORTANT`].
pub const RING_PARTS: u64 = 4;

/// Bytes that each of so many CPUs may send without [`FLAG_IMPORTANT`] between two looks at how full a
/// ring of `ring_bytes` is: together half of the part that is kept.
pub const fn ring_step(ring_bytes: u64, cpus: u64) -> u64 {
    ring_bytes / RING_PARTS / 2 / cpus
}

/// VLAN tags that one record reports: those in the frame, and one that the device took off.
pub const MAX_VLANS: usize = crate::parse::MAX_VLAN_TAGS + 1;
/// The most rules one record reports; more are counted.
pub const MAX_MATCHES: usize = 8;

/// What was recognised at the payload's start.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum PayloadKind {
    /// Nothing that rules ask for.
    Other = 0,
    /// A SYN that opens a TCP connection.
    TcpOpened = 1,
    /// The first packet of a UDP flow.
    UdpFirst = 2,
    /// An HTTP/1 request line.
    HttpRequest = 3,
}

impl PayloadKind {
    /// From the number in a record.
    pub const fn from_number(number: u8) -> Option<Self> {
        match number {
            0 => Some(Self::Other),
            1 => Some(Self::TcpOpened),
            2 => Some(Self::UdpFirst),
            3 => Some(Self::HttpRequest),
            _ => None,
        }
    }
}

/// Bit of [`RecordHeader::flags`]: the packet came in a GTP-U tunnel or is one of GTP-U's own
/// messages; `teid` and `gtpu_message_type` count.
pub const FLAG_TUNNEL: u8 = 1;
/// Bit of [`RecordHeader::flags`]: the tunnel's `qfi` counts.
pub const FLAG_QFI: u8 = 2;
/// Bit of [`RecordHeader::flags`]: this is the UE's first packet to the application.
pub const FLAG_SESSION_STARTED: u8 = 4;
/// Bit of [`RecordHeader::flags`]: the session's last open TCP connection was closed.
pub const FLAG_SESSION_QUIET: u8 = 8;
/// Bit of [`RecordHeader::flags`]: user space is to read this packet as part of its flow, see
/// [`crate::inspect`].
pub const FLAG_INSPECT: u8 = 16;

/// Bit of [`RecordHeader::flags`]: it may use the part of the ring buffer that is kept for rules with a
/// priority.
pub const FLAG_IMPORTANT: u8 = 32;

/// Bit of [`RecordHeader::flags`], with [`FLAG_INSPECT`]: not all was shown of what the flow said in this
/// direction before `late`, and will not be: nobody is to wait for it.
pub const FLAG_BEHIND_GAP: u8 = 64;

/// [`RecordHeader::time_ns`] until the clock is read: it is dear, so it is read only for what needs the time,
/// and once.
pub const NOT_YET: u64 = 0;

/// Head of a record. Numbers are in the machine's byte order: both ends are this machine.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RecordHeader {
    /// [`RECORD_VERSION`].
    pub version: u8,
    /// A [`PayloadKind`].
    pub payload_kind: u8,
    /// `FLAG_*` bits: what there is, and what is told beside the rules.
    pub flags: u8,
    /// GTP-U message type; [`crate::parse::USER_PACKET`] for a packet in a tunnel.
    pub gtpu_message_type: u8,
    /// The device whose hook saw the packet.
    pub ifindex: u32,
    /// When, in ns of CLOCK_MONOTONIC.
    pub time_ns: u64,
    /// When the session began, on the same clock; 0 without a session.
    pub session_start_ns: u64,
    /// Who talked to whom.
    pub flow: FlowKey,
    /// A [`crate::packet::Direction`].
    pub direction: u8,
    /// TCP flags; 0 for UDP.
    pub tcp_flags: u8,
    /// QoS flow identifier.
    pub qfi: u8,
    /// How many of `rules` are used.
    pub rule_count: u8,
    /// The application's stable id.
    pub application: u32,
    /// The generation of rules that judged the packet: `rules` are indices into it.
    pub generation: u32,
    /// The rules that matched and were not suppressed.
    pub rules: [u16; MAX_MATCHES],
    /// TCP sequence number.
    pub sequence: u32,
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// VLAN ids, outermost first, with that of a tag that the device or the kernel took off; 0 where
    /// there is none.
    pub vlan: [u16; MAX_VLANS],
    /// With [`FLAG_BEHIND_GAP`]: so many bytes right before this segment may still come.
    pub late: u16,
    /// Bytes of the packet at the hook.
    pub packet_length: u32,
    /// Payload bytes in the packet.
    pub payload_length: u32,
    /// Payload bytes that follow this header.
    pub captured: u32,
}

impl RecordHeader {
    /// Bytes of the header.
    pub const SIZE: usize = size_of::<Self>();
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn between_two_looks_all_cpus_together_leave_half_of_what_is_kept() {
        for (ring, cpus) in [(256 << 10, 2), (4 << 20, 64), (64 << 20, 256)] {
            assert!(ring_step(ring, cpus) * cpus <= ring / RING_PARTS / 2);
        }
        assert_eq!(ring_step(4096, 1024), 0, "each time");
    }
}
