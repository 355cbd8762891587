//! Header layouts as they stand on the wire.

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// IEEE 802.3 header.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ethernet {
    /// Destination MAC.
    pub destination: [u8; 6],
    /// Source MAC.
    pub source: [u8; 6],
    /// EtherType.
    pub ethertype: U16,
}

/// One IEEE 802.1Q tag, after the EtherType that announced it.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct VlanTag {
    /// Priority, drop eligibility, VLAN id.
    pub control: U16,
    /// EtherType of what follows.
    pub ethertype: U16,
}

/// The VLAN id in [`VlanTag::control`].
pub const VLAN_ID: u16 = 0x0fff;

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

/// IPv6 fragment header (RFC 8200 section 4.5).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Ipv6Fragment {
    /// Type of the next header.
    pub next_header: u8,
    /// Always 0.
    pub reserved: u8,
    /// Offset in units of eight bytes (13 bits), reserved (2), more fragments (1).
    pub fragment: U16,
    /// Fragment group.
    pub identification: U32,
}

impl Ipv6Fragment {
    /// Bytes of the datagram before this fragment's.
    #[inline(always)]
    pub const fn fragment_offset(&self) -> usize {
        (self.fragment.get() & 0xfff8) as usize
    }

    /// Whether fragments follow.
    #[inline(always)]
    pub const fn more_fragments(&self) -> bool {
        self.fragment.get() & 1 != 0
    }
}

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

/// PPPoE session header (RFC 2516 section 4) and the PPP protocol behind it (RFC 1661 section 2).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Pppoe {
    /// Version and type, both 1.
    pub version_type: u8,
    /// 0 for session data.
    pub code: u8,
    /// The session.
    pub session: U16,
    /// Bytes after this field.
    pub length: U16,
    /// PPP protocol, see [`ppp`].
    pub protocol: U16,
}

/// The mandatory part of a GRE header (RFC 2784 section 2).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Gre {
    /// Which optional words follow, and the version.
    pub flags: U16,
    /// EtherType of the content.
    pub protocol: U16,
}

/// VXLAN header (RFC 7348 section 5).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Vxlan {
    /// Whether the VNI is valid.
    pub flags: u8,
    /// Always 0.
    pub reserved: [u8; 3],
    /// VXLAN network identifier (24 bits) and a reserved byte.
    pub vni: U32,
}

/// The mandatory part of a GTP-U header (TS 29.281 section 5.1).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Gtpu {
    /// Version (3 bits), PT, spare, E, S, PN.
    pub flags: u8,
    /// Message type; 255 carries a user packet.
    pub message_type: u8,
    /// Bytes after the mandatory part. It can lie, and is not trusted.
    pub length: U16,
    /// Tunnel endpoint identifier.
    pub teid: U32,
}

/// EtherTypes.
pub mod ethertype {
    /// IPv4.
    pub const IPV4: u16 = 0x0800;
    /// IPv6.
    pub const IPV6: u16 = 0x86dd;
    /// IEEE 802.1Q customer tag.
    pub const VLAN: u16 = 0x8100;
    /// IEEE 802.1ad service tag.
    pub const SERVICE_VLAN: u16 = 0x88a8;
    /// The service tag used before 802.1ad.
    pub const OLD_SERVICE_VLAN: u16 = 0x9100;
    /// MPLS, unicast.
    pub const MPLS: u16 = 0x8847;
    /// A PPPoE session's data.
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Transparent Ethernet bridging: in GRE, a whole frame.
    pub const ETHERNET: u16 = 0x6558;
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

    /// Bytes of the extension header of this number whose second byte says `length`.
    #[inline(always)]
    pub const fn extension_length(number: u8, length: u8) -> usize {
        match number {
            FRAGMENT => size_of::<super::Ipv6Fragment>(),
            AUTHENTICATION => authentication_length(length),
            _ => options_length(length),
        }
    }

    /// Bytes of an authentication header: in words of four bytes, minus two (RFC 4302 section 2.2).
    #[inline(always)]
    pub const fn authentication_length(length: u8) -> usize {
        (length as usize + 2) * 4
    }

    /// Bytes of any other extension header: in words of eight bytes, minus one (RFC 8200 section 4).
    #[inline(always)]
    pub const fn options_length(length: u8) -> usize {
        (length as usize + 1) * 8
    }
}

/// PPP protocols.
pub mod ppp {
    /// IPv4 (RFC 1332).
    pub const IPV4: u16 = 0x0021;
    /// IPv6 (RFC 5072).
    pub const IPV6: u16 = 0x0057;
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
