//! TCP and UDP.

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// TCP header without options (RFC 9293 section 3.1).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Tcp {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// Sequence number of the first payload byte (of the SYN, if set).
    pub sequence: U32,
    /// Acknowledgement number.
    pub acknowledgement: U32,
    /// Header length in words of four bytes (upper half), reserved bits.
    pub data_offset: u8,
    /// CWR ECE URG ACK PSH RST SYN FIN.
    pub flags: u8,
    /// Receive window.
    pub window: U16,
    /// Checksum; partial on local senders.
    pub checksum: U16,
    /// Urgent pointer.
    pub urgent: U16,
}

impl Tcp {
    /// Bytes of the header with its options; [`None`] if it says less than there must be.
    #[inline(always)]
    pub const fn header_length(&self) -> Option<usize> {
        let length = (self.data_offset >> 4) as usize * 4;
        if length < size_of::<Self>() { None } else { Some(length) }
    }
}

/// UDP header (RFC 768).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Udp {
    /// Source port.
    pub source: U16,
    /// Destination port.
    pub destination: U16,
    /// Header and payload, in bytes; of one datagram, where GSO joins several.
    pub length: U16,
    /// Checksum; partial on local senders.
    pub checksum: U16,
}

/// UDP ports of tunnels.
pub mod port {
    /// GTP-U (TS 29.281 section 4.4.2.3).
    pub const GTPU: u16 = 2152;
    /// VXLAN (RFC 7348 section 8).
    pub const VXLAN: u16 = 4789;

    /// Whether tunnels are addressed to this port.
    #[inline(always)]
    pub const fn is_tunnel(destination: u16) -> bool {
        matches!(destination, GTPU | VXLAN)
    }
}

/// TCP flags.
pub mod tcp_flag {
    /// No more data from the sender.
    pub const FIN: u8 = 0x01;
    /// Opens a connection.
    pub const SYN: u8 = 0x02;
    /// Ends a connection at once.
    pub const RST: u8 = 0x04;
    /// The acknowledgement number counts.
    pub const ACK: u8 = 0x10;
}
