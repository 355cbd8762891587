//! IPv4, IPv6 and its extension headers.

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// IPv4 header without options (RFC 791 section 3.1).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv4 {
    /// Version and header length in words of four bytes.
    pub version_ihl: u8,
    /// DSCP and ECN.
    pub traffic_class: u8,
    /// Header and payload, in bytes.
    pub total_length: U16,
    /// Fragment group.
    pub identification: U16,
    /// Flags (3 bits) and offset in units of eight bytes.
    pub fragment: U16,
    /// Time to live.
    pub ttl: u8,
    /// Protocol of the payload.
    pub protocol: u8,
    /// Header checksum; never looked at (offloaded on local senders).
    pub checksum: U16,
    /// Source address.
    pub source: [u8; 4],
    /// Destination address.
    pub destination: [u8; 4],
}

impl Ipv4 {
    /// Whether it is version 4 without options.
    #[inline(always)]
    pub const fn is_plain(&self) -> bool {
        self.version_ihl == 0x45
    }

    /// Version, which IPv6 has in the same place (RFC 8200 section 3).
    #[inline(always)]
    pub const fn version(&self) -> u8 {
        self.version_ihl >> 4
    }

    /// Bytes of the header with its options; [`None`] if it says less than there must be.
    #[inline(always)]
    pub const fn header_length(&self) -> Option<usize> {
        let length = (self.version_ihl & 0x0f) as usize * 4;
        if length < size_of::<Self>() { None } else { Some(length) }
    }

    /// Bytes of the datagram before this fragment's.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        (self.fragment.get() & 0x1fff) as usize * 8
    }

    /// Whether fragments follow.
    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.fragment.get() & 0x2000 != 0
    }
}

/// IPv6 header (RFC 8200 section 3).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6 {
    /// Version, traffic class, flow label.
    pub version_class_flow: U32,
    /// Bytes after this header; 0 in a jumbogram or a BIG TCP super-packet.
    pub payload_length: U16,
    /// Type of the next header.
    pub next_header: u8,
    /// Hop limit.
    pub hop_limit: u8,
    /// Source address.
    pub source: [u8; 16],
    /// Destination address.
    pub destination: [u8; 16],
}

impl Ipv6 {
    /// Version.
    #[inline(always)]
    pub const fn version(&self) -> u32 {
        self.version_class_flow.get() >> 28
    }
}

/// What every IPv6 extension header begins with (RFC 8200 section 4).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Extension {
    /// Type of the next header.
    pub next_header: u8,
    /// How long it is, see [`Self::size`]; in a fragment header always 0.
    pub length: u8,
    /// Its own; in a fragment header the offset in units of eight bytes (13 bits), reserved (2), more
    /// fragments (1): RFC 8200 section 4.5.
    pub fragment: U16,
}

impl Ipv6Extension {
    /// Bytes of this header, if it is the one of this number.
    #[inline(always)]
    pub const fn size(&self, number: u8) -> usize {
        let length = self.length as usize;
        match number {
            ip_protocol::FRAGMENT => size_of::<Ipv6Fragment>(),
            // In words of four bytes, minus two (RFC 4302 section 2.2).
            ip_protocol::AUTHENTICATION => (length + 2) * 4,
            // In words of eight bytes, minus one.
            _ => (length + 1) * 8,
        }
    }

    /// Of a fragment header: bytes of the datagram before this fragment's.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        (self.fragment.get() & 0xfff8) as usize
    }

    /// Of a fragment header: whether fragments follow.
    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.fragment.get() & 1 != 0
    }
}

/// IPv6 fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Fragment {
    /// What it has in common with the others.
    pub start: Ipv6Extension,
    /// Fragment group.
    pub identification: U32,
}

/// IP protocol numbers (IANA) that lead further down.
pub mod ip_protocol {
    /// IPv6 hop-by-hop options.
    pub const HOP_BY_HOP: u8 = 0;
    /// ICMP (RFC 792).
    pub const ICMP: u8 = 1;
    /// IPv4 in IP (RFC 2003, RFC 2473).
    pub const IPV4: u8 = 4;
    /// TCP.
    pub const TCP: u8 = 6;
    /// UDP.
    pub const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub const IPV6: u8 = 41;
    /// IPv6 routing header.
    pub const ROUTING: u8 = 43;
    /// IPv6 fragment header.
    pub const FRAGMENT: u8 = 44;
    /// GRE (RFC 2784).
    pub const GRE: u8 = 47;
    /// Authentication header (RFC 4302).
    pub const AUTHENTICATION: u8 = 51;
    /// ICMPv6 (RFC 4443).
    pub const ICMPV6: u8 = 58;
    /// IPv6 destination options.
    pub const DESTINATION: u8 = 60;
    /// IP in IP of old (KA9Q).
    pub const IPIP: u8 = 94;
    /// Ethernet in IP (RFC 3378).
    pub const ETHERIP: u8 = 97;
    /// Mobility header (RFC 6275).
    pub const MOBILITY: u8 = 135;
    /// MPLS in IP (RFC 4023).
    pub const MPLS: u8 = 137;
    /// Ethernet (RFC 8986).
    pub const ETHERNET: u8 = 143;

    /// Whether an IPv6 extension header has this number (RFC 8200 section 4).
    #[inline(always)]
    pub const fn is_extension(number: u8) -> bool {
        matches!(number, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
    }
}
