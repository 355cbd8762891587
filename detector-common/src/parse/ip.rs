//! IPv4 (RFC 791) and IPv6 (RFC 8200) with its extension headers.

use super::ParseFault;
use crate::{
    packet::{Address, PacketBytes},
    wire::{Ipv4, Ipv6},
};

/// IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 6;

/// Protocol numbers that lead on.
pub(super) mod protocol {
    /// IPv4 in IP (RFC 2003, RFC 2473).
    pub(crate) const IPV4: u8 = 4;
    /// TCP.
    pub(crate) const TCP: u8 = 6;
    /// UDP.
    pub(crate) const UDP: u8 = 17;
    /// IPv6 in IP (RFC 4213, RFC 2473).
    pub(crate) const IPV6: u8 = 41;
    /// GRE (RFC 2784).
    pub(crate) const GRE: u8 = 47;
}

/// An IP header, and where it leads.
pub(super) struct Ip {
    pub(super) source: Address,
    pub(super) destination: Address,
    pub(super) protocol: u8,
    /// Where the payload starts.
    pub(super) offset: usize,
    /// Where the packet ends; what follows is padding.
    pub(super) end: usize,
    pub(super) first_fragment: bool,
}

/// Reads the IP header at `offset` of a packet that ends at `limit` or before.
#[inline(always)]
pub(super) fn parse<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    limit: usize,
) -> Result<Ip, ParseFault> {
    let start: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    match start[0] >> 4 {
        4 => parse_v4(packet, offset, limit),
        6 => parse_v6(packet, offset, limit),
        _ => Err(ParseFault::BadIp),
    }
}

#[inline(always)]
fn parse_v4<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    limit: usize,
) -> Result<Ip, ParseFault> {
    const OFFSET_BITS: u16 = 0x1fff;
    const MORE_FRAGMENTS: u16 = 0x2000;
    let header: Ipv4 = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    let length = usize::from(header.version_ihl & 0x0f) * 4;
    if length < size_of::<Ipv4>() {
        return Err(ParseFault::BadIp);
    }
    let fragment = header.fragment.get();
    if fragment & OFFSET_BITS != 0 {
        return Err(ParseFault::LaterFragment);
    }
    Ok(Ip {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        protocol: header.protocol,
        offset: offset + length,
        end: end(offset, usize::from(header.total_length.get()), limit),
        first_fragment: fragment & MORE_FRAGMENTS != 0,
    })
}

#[inline(always)]
fn parse_v6<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    limit: usize,
) -> Result<Ip, ParseFault> {
    let header: Ipv6 = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    let total = match usize::from(header.payload_length.get()) {
        0 => 0,
        length => length + size_of::<Ipv6>(),
    };
    let mut ip = Ip {
        source: Address::v6(header.source),
        destination: Address::v6(header.destination),
        protocol: header.next_header,
        offset: offset + size_of::<Ipv6>(),
        end: end(offset, total, limit),
        first_fragment: false,
    };
    for _ in 0..MAX_EXTENSIONS {
        if !is_extension(ip.protocol) {
            return Ok(ip);
        }
        skip_extension(packet, &mut ip)?;
    }
    if is_extension(ip.protocol) {
        return Err(ParseFault::TooManyIpv6Extensions);
    }
    Ok(ip)
}

/// Next-header numbers of the extension headers that are walked (RFC 8200 section 4).
mod extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
}

#[inline(always)]
const fn is_extension(next_header: u8) -> bool {
    use extension::*;
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
}

#[inline(always)]
fn skip_extension<P: PacketBytes + ?Sized>(packet: &P, ip: &mut Ip) -> Result<(), ParseFault> {
    let [next, length, fragment_high, fragment_low]: [u8; 4] =
        packet.load(ip.offset).ok_or(ParseFault::TruncatedIp)?;
    let size = match ip.protocol {
        extension::FRAGMENT => {
            // RFC 8200 section 4.5: offset (13 bits), reserved (2), more fragments (1). Neither
            // offset nor more: an atomic fragment (RFC 6946), which is whole.
            if (fragment_high != 0) || (fragment_low & 0xf8 != 0) {
                return Err(ParseFault::LaterFragment);
            }
            ip.first_fragment = fragment_low & 1 != 0;
            8
        }
        // RFC 4302 section 2.2: in words of four bytes, minus two.
        extension::AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    ip.protocol = next;
    ip.offset += size;
    Ok(())
}

/// Where an IP packet of `total` bytes ends. Length 0 means "to the end": BIG TCP super-packets
/// (Linux 5.19) and jumbograms have it. A length beyond the limit is a lie or a capture cut short.
#[inline(always)]
const fn end(offset: usize, total: usize, limit: usize) -> usize {
    if total == 0 || offset + total > limit { limit } else { offset + total }
}
