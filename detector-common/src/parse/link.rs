//! From the first byte of an Ethernet frame to its IP header: VLAN tags (IEEE 802.1Q, 802.1ad),
//! MPLS labels (RFC 3032), PPPoE sessions (RFC 2516).

use super::ParseFault;
use crate::{
    packet::PacketBytes,
    wire::{Ethernet, Pppoe, VLAN_ID, VlanTag, ethertype, ppp},
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
        *id = tag.control.get() & VLAN_ID;
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

/// Whether an EtherType announces a VLAN tag.
#[inline(always)]
pub(super) const fn is_vlan(kind: u16) -> bool {
    matches!(kind, ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_SERVICE_VLAN)
}

#[inline(always)]
fn skip_pppoe<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<usize, ParseFault> {
    let start = packet.forget(start);
    let header: Pppoe = packet.load(start).ok_or(ParseFault::TruncatedLink)?;
    match header.protocol.get() {
        ppp::IPV4 | ppp::IPV6 => Ok(start + size_of::<Pppoe>()),
        _ => Err(ParseFault::NotIp),
    }
}

#[inline(always)]
fn skip_mpls<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<usize, ParseFault> {
    /// S, in an entry's third byte (RFC 3032 section 2.1).
    const BOTTOM_OF_STACK: u8 = 1;
    let mut offset = packet.forget(start);
    for _ in 0..MAX_MPLS_LABELS {
        let [_, _, stack, _]: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedLink)?;
        offset += 4;
        if stack & BOTTOM_OF_STACK != 0 {
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
