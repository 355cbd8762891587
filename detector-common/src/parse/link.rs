//! From the first byte of an Ethernet frame to its IP header: VLAN tags (IEEE 802.1Q, 802.1ad),
//! MPLS labels (RFC 3032), PPPoE sessions (RFC 2516).

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned, byteorder::network_endian::U16};

use super::ParseFault;
use crate::{
    packet::PacketBytes,
    wire::{Ethernet, MplsEntry, Pppoe, VlanTag, ethertype, ethertype::is_vlan, ppp},
};

/// VLAN tags that are walked (QinQ).
pub const MAX_VLAN_TAGS: usize = 2;
/// MPLS labels that are walked.
pub const MAX_MPLS_LABELS: usize = 4;

/// A link-layer header.
#[derive(Clone, Copy)]
pub(super) struct Link {
    /// Where the IP header starts.
    pub(super) end: usize,
    /// VLAN ids, outermost first.
    pub(super) vlan: [u16; MAX_VLAN_TAGS],
}

impl Link {
    /// None at all, at a packet's start.
    pub(super) const NONE: Self = Self { end: 0, vlan: [0; MAX_VLAN_TAGS] };
}

/// Reads the Ethernet header at `start` and what may stand between it and IP.
#[inline(always)]
pub(super) fn skip<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<Link, ParseFault> {
    let ethernet: Ethernet = packet.load(start).ok_or(ParseFault::TruncatedLink)?;
    let mut kind = ethernet.ethertype.get();
    let mut link = Link { end: start + size_of::<Ethernet>(), ..Link::NONE };
    for id in &mut link.vlan {
        if !is_vlan(kind) {
            break;
        }
        let tag: VlanTag = packet.load(link.end).ok_or(ParseFault::TruncatedLink)?;
        *id = tag.id();
        kind = tag.ethertype.get();
        link.end += size_of::<VlanTag>();
    }
    match kind {
        ethertype::IPV4 | ethertype::IPV6 => Ok(link),
        ethertype::PPPOE_SESSION => Ok(Link { end: skip_pppoe(packet, link.end)?, ..link }),
        ethertype::MPLS => Ok(Link { end: skip_mpls(packet, link.end)?, ..link }),
        kind if is_vlan(kind) => Err(ParseFault::TooManyVlanTags),
        _ => Err(ParseFault::NotIp),
    }
}

/// A PPPoE header and the PPP protocol behind it (RFC 1661 section 2), uncompressed as RFC 2516 section 7
/// has it.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct PppoeSession {
    header: Pppoe,
    protocol: U16,
}

#[inline(always)]
fn skip_pppoe<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<usize, ParseFault> {
    let start = packet.forget(start);
    let session: PppoeSession = packet.load(start).ok_or(ParseFault::TruncatedLink)?;
    match session.protocol.get() {
        ppp::IPV4 | ppp::IPV6 => Ok(start + size_of::<PppoeSession>()),
        _ => Err(ParseFault::NotIp),
    }
}

#[inline(always)]
fn skip_mpls<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<usize, ParseFault> {
    let mut offset = packet.forget(start);
    for _ in 0..MAX_MPLS_LABELS {
        let entry: MplsEntry = packet.load(offset).ok_or(ParseFault::TruncatedLink)?;
        offset += size_of::<MplsEntry>();
        if entry.is_bottom() {
            let offset = packet.forget(offset);
            // Nothing says what follows; pseudowires see to it that they are no IP versions
            // (RFC 4385 section 3).
            let [first, ..]: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
            return match first >> 4 {
                4 | 6 => Ok(offset),
                _ => Err(ParseFault::NotIp),
            };
        }
    }
    Err(ParseFault::TooManyMplsLabels)
}
