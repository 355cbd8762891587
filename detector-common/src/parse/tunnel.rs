//! From the outer packet of tunnels to the innermost: GRE (RFC 2784, RFC 2890), IP in IP (RFC 2003,
//! RFC 2473, RFC 4213), VXLAN (RFC 7348), GTP-U.
//!
//! A user's own tunnel inside GTP-U stays closed: the user is whoever has the address of the packet
//! that GTP-U carries.

use super::{
    Facts, ParseFault, TunnelWord,
    gtpu::{self, Message},
    ip::{self, Ip},
    link, transport,
};
use crate::{
    packet::{Layer, PacketBytes},
    wire::{Gre, Udp, Vxlan, ethertype, ip_protocol, port},
};

/// Tunnels in each other that are entered.
pub const MAX_TUNNELS: usize = 3;

/// What a packet carries.
enum Content {
    /// Its own payload.
    Payload,
    /// A packet that begins with this, here.
    Packet(Layer, usize),
}

/// Reads what `ip` leads to, which is not TCP: UDP, or a tunnel and what is in it.
#[inline(always)]
pub(super) fn walk<P: PacketBytes + ?Sized>(packet: &P, mut ip: Ip) -> Result<Facts, ParseFault> {
    let mut gtpu = TunnelWord::NONE;
    for level in 0..=MAX_TUNNELS {
        let (layer, start) = match content(packet, &ip, &mut gtpu)? {
            Content::Payload => return innermost(packet, &ip, gtpu),
            Content::Packet(..) if level == MAX_TUNNELS => return Err(ParseFault::TooManyTunnels),
            Content::Packet(layer, start) => (layer, packet.forget(start)),
        };
        let start = match layer {
            Layer::Ethernet => packet.forget(link::skip(packet, start)?.end),
            Layer::Ip => start,
        };
        let inner = ip::parse(packet, start, ip.end).map_err(|fault| match fault {
            ParseFault::BadIp if gtpu.is_some() => ParseFault::GtpuNotIp,
            other => other,
        })?;
        let first_fragment = ip.first_fragment | inner.first_fragment;
        ip = Ip { first_fragment, offset: packet.forget(inner.offset), ..inner };
        if gtpu.is_some() {
            return innermost(packet, &ip, gtpu);
        }
    }
    Err(ParseFault::TooManyTunnels)
}

#[inline(always)]
fn innermost<P: PacketBytes + ?Sized>(
    packet: &P,
    ip: &Ip,
    tunnel: TunnelWord,
) -> Result<Facts, ParseFault> {
    let facts = match ip.protocol {
        ip_protocol::TCP => transport::tcp(packet, ip)?,
        ip_protocol::UDP => transport::udp(packet, ip)?,
        _ => return Err(ParseFault::OtherTransport),
    };
    Ok(Facts { tunnel, ..facts })
}

#[inline(always)]
fn content<P: PacketBytes + ?Sized>(
    packet: &P,
    ip: &Ip,
    gtpu: &mut TunnelWord,
) -> Result<Content, ParseFault> {
    match ip.protocol {
        ip_protocol::UDP => datagram(packet, ip, gtpu),
        ip_protocol::GRE => gre(packet, ip.offset),
        ip_protocol::IPV4 | ip_protocol::IPV6 => Ok(Content::Packet(Layer::Ip, ip.offset)),
        _ => Ok(Content::Payload),
    }
}

#[inline(always)]
fn datagram<P: PacketBytes + ?Sized>(
    packet: &P,
    ip: &Ip,
    gtpu: &mut TunnelWord,
) -> Result<Content, ParseFault> {
    let header: Udp = packet.load(ip.offset).ok_or(ParseFault::TruncatedTransport)?;
    let payload = ip.offset + size_of::<Udp>();
    match header.destination.get() {
        port::VXLAN => vxlan(packet, payload),
        port::GTPU => {
            match gtpu::message::<P, { gtpu::MAX_EXTENSIONS }>(packet, payload, ip.end)? {
                Message::Other => Ok(Content::Payload),
                Message::Control(tunnel) => {
                    *gtpu = tunnel;
                    Ok(Content::Payload)
                }
                Message::UserPacket { tunnel, layer, start } => {
                    *gtpu = tunnel;
                    Ok(Content::Packet(layer, start))
                }
            }
        }
        _ => Ok(Content::Payload),
    }
}

#[inline(always)]
fn vxlan<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<Content, ParseFault> {
    let header: Vxlan = packet.load(start).ok_or(ParseFault::TruncatedTunnel)?;
    if !header.is_valid() {
        return Ok(Content::Payload);
    }
    Ok(Content::Packet(Layer::Ethernet, start + size_of::<Vxlan>()))
}

#[inline(always)]
fn gre<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Result<Content, ParseFault> {
    let header: Gre = packet.load(start).ok_or(ParseFault::TruncatedTunnel)?;
    if header.has_routing() || header.version() != 0 {
        return Err(ParseFault::OtherGre);
    }
    let content = start + header.header_length();
    match header.protocol.get() {
        ethertype::IPV4 | ethertype::IPV6 => Ok(Content::Packet(Layer::Ip, content)),
        ethertype::ETHERNET => Ok(Content::Packet(Layer::Ethernet, content)),
        _ => Err(ParseFault::OtherGre),
    }
}
