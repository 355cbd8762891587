//! Headers between the start of a frame and IP.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, byteorder::network_endian::U16};

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

impl VlanTag {
    /// The VLAN id.
    #[inline(always)]
    pub const fn id(&self) -> u16 {
        self.control.get() & VLAN_ID
    }
}

/// The VLAN id in [`VlanTag::control`].
pub const VLAN_ID: u16 = 0x0fff;

/// One entry of an MPLS label stack (RFC 3032 section 2.1).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct MplsEntry {
    /// The label's upper 16 bits.
    pub label: U16,
    /// Its lower 4 bits, traffic class (3 bits), bottom of stack.
    pub label_class_bottom: u8,
    /// Time to live.
    pub ttl: u8,
}

impl MplsEntry {
    /// Whether it is the last one.
    #[inline(always)]
    pub const fn is_bottom(&self) -> bool {
        self.label_class_bottom & 1 != 0
    }
}

/// PPPoE session header (RFC 2516 section 4). PPP follows.
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
    /// MPLS, multicast or upstream-assigned (RFC 5332).
    pub const MPLS_MULTICAST: u16 = 0x8848;
    /// A PPPoE session's data.
    pub const PPPOE_SESSION: u16 = 0x8864;
    /// Transparent Ethernet bridging: in GRE, a whole frame.
    pub const ETHERNET: u16 = 0x6558;

    /// Whether a VLAN tag follows.
    #[inline(always)]
    pub const fn is_vlan(kind: u16) -> bool {
        matches!(kind, VLAN | SERVICE_VLAN | OLD_SERVICE_VLAN)
    }
}

/// PPP protocols.
pub mod ppp {
    /// IPv4 (RFC 1332).
    pub const IPV4: u16 = 0x0021;
    /// IPv6 (RFC 5072).
    pub const IPV6: u16 = 0x0057;
}
