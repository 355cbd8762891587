//! IPv4 (RFC 791) and IPv6 (RFC 8200) with its extension headers.

use super::ParseFault;
use crate::{
    packet::{Address, PacketBytes},
    wire::{Ipv4, Ipv6, Ipv6Extension, ip_protocol},
};

/// IPv6 extension headers that are walked.
pub const MAX_EXTENSIONS: usize = 6;

/// An IP header, and where it leads. In this order for the reason that [`super::Facts`] has.
#[repr(C)]
pub(super) struct Ip {
    pub(super) first_fragment: bool,
    pub(super) protocol: u8,
    pub(super) source: Address,
    pub(super) destination: Address,
    /// Where the payload starts.
    pub(super) offset: usize,
    /// Where the packet ends; what follows is padding.
    pub(super) end: usize,
}

/// Reads the IP header at `offset` of a packet that ends at `limit` or before.
#[inline(always)]
pub(super) fn parse<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    limit: usize,
) -> Result<Ip, ParseFault> {
    // No IP header is shorter, and IPv4 needs no second look.
    let Some(header) = packet.load::<Ipv4>(offset) else { return Err(too_short(packet, offset)) };
    match header.version() {
        4 => v4_of(&header, offset, limit),
        6 => parse_v6(packet, offset, limit),
        _ => Err(ParseFault::BadIp),
    }
}

/// What is wrong with what is too short for any IP header.
#[inline(always)]
fn too_short<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> ParseFault {
    match packet.load::<[u8; 4]>(offset) {
        Some([first, ..]) if !matches!(first >> 4, 4 | 6) => ParseFault::BadIp,
        Some(_) | None => ParseFault::TruncatedIp,
    }
}

/// What an IPv4 header at `offset` says.
#[inline(always)]
pub(super) fn v4_of(header: &Ipv4, offset: usize, limit: usize) -> Result<Ip, ParseFault> {
    let length = header.header_length().ok_or(ParseFault::BadIp)?;
    if header.fragment_offset() != 0 {
        return Err(ParseFault::LaterFragment);
    }
    Ok(Ip {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        protocol: header.protocol,
        offset: offset + length,
        end: end(offset, usize::from(header.total_length.get()), limit),
        first_fragment: header.more_fragments(),
    })
}

#[inline(always)]
fn parse_v6<P: PacketBytes + ?Sized>(
    packet: &P,
    offset: usize,
    limit: usize,
) -> Result<Ip, ParseFault> {
    let header: Ipv6 = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    let mut ip = v6_of(&header, offset, limit);
    for _ in 0..MAX_EXTENSIONS {
        if !ip_protocol::is_extension(ip.protocol) {
            return Ok(ip);
        }
        skip_extension(packet, &mut ip)?;
    }
    if ip_protocol::is_extension(ip.protocol) {
        return Err(ParseFault::TooManyIpv6Extensions);
    }
    Ok(ip)
}

/// What an IPv6 header at `offset` says, without its extension headers.
#[inline(always)]
pub(super) fn v6_of(header: &Ipv6, offset: usize, limit: usize) -> Ip {
    let total = match usize::from(header.payload_length.get()) {
        0 => 0,
        length => length + size_of::<Ipv6>(),
    };
    Ip {
        source: Address::v6(header.source),
        destination: Address::v6(header.destination),
        protocol: header.next_header,
        offset: offset + size_of::<Ipv6>(),
        end: end(offset, total, limit),
        first_fragment: false,
    }
}

#[inline(always)]
fn skip_extension<P: PacketBytes + ?Sized>(packet: &P, ip: &mut Ip) -> Result<(), ParseFault> {
    let header: Ipv6Extension = packet.load(ip.offset).ok_or(ParseFault::TruncatedIp)?;
    if ip.protocol == ip_protocol::FRAGMENT {
        if header.fragment_offset() != 0 {
            return Err(ParseFault::LaterFragment);
        }
        // Neither offset nor more: an atomic fragment (RFC 6946), which is whole.
        ip.first_fragment = header.more_fragments();
    }
    ip.offset += header.size(ip.protocol);
    ip.protocol = header.next_header;
    Ok(())
}

/// Where an IP packet of `total` bytes ends. Length 0 means "to the end": BIG TCP super-packets
/// (Linux 5.19) and jumbograms have it. A length beyond the limit is a lie or a capture cut short.
#[inline(always)]
const fn end(offset: usize, total: usize, limit: usize) -> usize {
    if total == 0 || offset + total > limit { limit } else { offset + total }
}
