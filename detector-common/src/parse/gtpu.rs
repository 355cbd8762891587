//! GTP-U (TS 29.281): what a datagram on N3 carries.

use super::{ParseFault, TunnelWord};
use crate::{
    packet::{Layer, PacketBytes},
    wire::{Ethernet, Gtpu, GtpuOptions, Ipv6, VlanTag, ethertype, ethertype::is_vlan},
};

/// Extension headers that [`super::parse`] walks. A careless walker loops for ever on one of length zero.
pub const MAX_EXTENSIONS: usize = 4;
/// Message type of a T-PDU, which carries a user's packet.
pub const USER_PACKET: u8 = 255;

/// PDU Session Container (TS 29.281 section 5.2.1, figure 5.2.1-3; content in TS 38.415).
const PDU_SESSION_CONTAINER: u8 = 0x85;

/// What a datagram to GTP-U's port is.
pub enum Message {
    /// Somebody else's UDP.
    Other,
    /// A message that carries no user packet.
    Control(TunnelWord),
    /// A user's packet.
    UserPacket {
        /// The tunnel that it came through.
        tunnel: TunnelWord,
        /// What it begins with.
        layer: Layer,
        /// Where.
        start: usize,
    },
}

/// Reads the message at `start` of a datagram that ends at `end`, with at most `EXTENSIONS` extension
/// headers. Its own length field can lie, and is not looked at.
///
/// # Errors
/// When it is cut off, or its extension headers have no end.
#[inline(always)]
pub fn message<P: PacketBytes + ?Sized, const EXTENSIONS: usize>(
    packet: &P,
    start: usize,
    end: usize,
) -> Result<Message, ParseFault> {
    let header: Gtpu = packet.load(start).ok_or(ParseFault::TruncatedGtpu)?;
    if !header.is_version_1() {
        return Ok(Message::Other);
    }
    let mut tunnel = TunnelWord::new(header.teid.get(), header.message_type);
    if header.message_type != USER_PACKET {
        return Ok(Message::Control(tunnel));
    }
    let mut offset = start + size_of::<Gtpu>();
    if header.has_options() {
        let options: GtpuOptions = packet.load(offset).ok_or(ParseFault::TruncatedGtpu)?;
        offset += size_of::<GtpuOptions>();
        if header.has_extensions() {
            let next = options.next_extension;
            offset = skip_extensions::<P, EXTENSIONS>(packet, offset, next, &mut tunnel)?;
        }
    }
    let start = packet.forget(offset);
    Ok(Message::UserPacket { tunnel, layer: layer(packet, start, end), start })
}

#[inline(always)]
fn skip_extensions<P: PacketBytes + ?Sized, const MAX: usize>(
    packet: &P,
    mut offset: usize,
    mut next: u8,
    tunnel: &mut TunnelWord,
) -> Result<usize, ParseFault> {
    for _ in 0..MAX {
        if next == 0 {
            return Ok(offset);
        }
        let [words, kind, flow, _]: [u8; 4] =
            packet.load(offset).ok_or(ParseFault::TruncatedGtpu)?;
        if words == 0 {
            return Err(ParseFault::BadGtpuExtension);
        }
        // TS 38.415 section 5.5.2: downlink is PDU type 0, uplink 1, and both have the QFI in the
        // lower six bits of the second byte.
        if next == PDU_SESSION_CONTAINER && kind >> 4 <= 1 {
            *tunnel = tunnel.with_qfi(flow & 0x3f);
        }
        offset += usize::from(words) * 4;
        // The last byte of each extension header is the type of the next one.
        let [_, _, _, last]: [u8; 4] = packet.load(offset - 4).ok_or(ParseFault::TruncatedGtpu)?;
        next = last;
    }
    if next == 0 { Ok(offset) } else { Err(ParseFault::TooManyGtpuExtensions) }
}

/// What a user's packet begins with. Only the control plane knows the PDU session's type, so this
/// asks the bytes: Ethernet where they have an EtherType and what it announces, and do not make an
/// IP packet of just this length.
#[inline(always)]
fn layer<P: PacketBytes + ?Sized>(packet: &P, start: usize, end: usize) -> Layer {
    if is_ethernet(packet, start) && ip_length(packet, start) != Some(end.saturating_sub(start)) {
        Layer::Ethernet
    } else {
        Layer::Ip
    }
}

#[inline(always)]
fn is_ethernet<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> bool {
    const ETHERTYPE: usize = size_of::<Ethernet>() - 2;
    let Some([high, low, first, _]) = packet.load::<[u8; 4]>(start + ETHERTYPE) else {
        return false;
    };
    match u16::from_be_bytes([high, low]) {
        ethertype::IPV4 => first >> 4 == 4,
        ethertype::IPV6 => first >> 4 == 6,
        kind if is_vlan(kind) => {
            let Some([high, low, ..]) =
                packet.load::<[u8; 4]>(start + ETHERTYPE + size_of::<VlanTag>())
            else {
                return false;
            };
            let inner = u16::from_be_bytes([high, low]);
            is_vlan(inner) || matches!(inner, ethertype::IPV4 | ethertype::IPV6)
        }
        _ => false,
    }
}

/// How long the packet is if it is IP.
#[inline(always)]
fn ip_length<P: PacketBytes + ?Sized>(packet: &P, start: usize) -> Option<usize> {
    let [first, _, v4_high, v4_low, v6_high, v6_low, _, _]: [u8; 8] = packet.load(start)?;
    match first >> 4 {
        4 => Some(usize::from(u16::from_be_bytes([v4_high, v4_low]))),
        6 => Some(size_of::<Ipv6>() + usize::from(u16::from_be_bytes([v6_high, v6_low]))),
        _ => None,
    }
}
