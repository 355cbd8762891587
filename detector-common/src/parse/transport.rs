//! TCP (RFC 9293) and UDP (RFC 768): the ports, and where the payload is.

use super::{Facts, ParseFault, TunnelWord, ip::Ip};
use crate::{
    packet::{PacketBytes, Protocol},
    wire::{Tcp, Udp},
};

/// Reads the TCP header that `ip` leads to.
#[inline(always)]
pub(super) fn tcp<P: PacketBytes + ?Sized>(packet: &P, ip: &Ip) -> Result<Facts, ParseFault> {
    let header: Tcp = packet.load(ip.offset).ok_or(ParseFault::TruncatedTransport)?;
    tcp_of(&header, ip)
}

/// What a TCP header says that `ip` leads to.
#[inline(always)]
pub(super) fn tcp_of(header: &Tcp, ip: &Ip) -> Result<Facts, ParseFault> {
    let length = header.header_length().ok_or(ParseFault::BadTcp)?;
    Ok(Facts {
        source_port: header.source.get(),
        destination_port: header.destination.get(),
        tcp_flags: header.flags,
        sequence: header.sequence.get(),
        ..facts(ip, Protocol::Tcp, ip.offset + length)
    })
}

/// Reads the UDP header that `ip` leads to.
#[inline(always)]
pub(super) fn udp<P: PacketBytes + ?Sized>(packet: &P, ip: &Ip) -> Result<Facts, ParseFault> {
    let header: Udp = packet.load(ip.offset).ok_or(ParseFault::TruncatedTransport)?;
    Ok(udp_of(header.source.get(), header.destination.get(), ip))
}

/// What UDP's ports say that `ip` leads to.
#[inline(always)]
pub(super) fn udp_of(source_port: u16, destination_port: u16, ip: &Ip) -> Facts {
    let payload = ip.offset + size_of::<Udp>();
    Facts { source_port, destination_port, ..facts(ip, Protocol::Udp, payload) }
}

/// What is known before the transport header was read.
#[inline(always)]
fn facts(ip: &Ip, protocol: Protocol, payload: usize) -> Facts {
    Facts {
        source: ip.source,
        destination: ip.destination,
        source_port: 0,
        destination_port: 0,
        protocol,
        tcp_flags: 0,
        first_fragment: ip.first_fragment,
        sequence: 0,
        payload_offset: payload as u32,
        // Not `saturating_sub`, of which LLVM makes eleven instructions for BPF.
        payload_length: (ip.end.max(payload) - payload) as u32,
        vlan: [0; super::MAX_VLAN_TAGS],
        tunnel: TunnelWord::NONE,
    }
}
