//! GTP-U (TS 29.281): from the outer UDP datagram on N3 to the user's packet inside.

use crate::{
    packet::{PacketBytes, Protocol},
    parse::{Facts, ParseFault, Tunnel},
    wire::Gtpu,
};

/// UDP port of GTP-U (TS 29.281 section 4.4.2.3).
pub(crate) const PORT: u16 = 2152;
/// Extension headers that are walked. A careless walker loops for ever on one of length zero.
pub(crate) const MAX_EXTENSIONS: usize = 4;

const TYPE_USER_PACKET: u8 = 255;
/// E, S or PN: any of them adds the optional four bytes.
const ANY_OPTIONAL: u8 = 0x07;
const EXTENSION: u8 = 0x04;
/// PDU Session Container (TS 29.281 section 5.2.1, figure 5.2.1-3; content in TS 38.415).
const PDU_SESSION_CONTAINER: u8 = 0x85;

/// Where the user's packet starts, if this is GTP-U; `None` for any other packet.
#[inline(always)]
pub(crate) fn inner_packet<P: PacketBytes + ?Sized>(
    packet: &P,
    outer: &Facts,
) -> Result<Option<(usize, Tunnel)>, ParseFault> {
    if outer.destination_port != PORT || !matches!(outer.protocol, Protocol::Udp) {
        return Ok(None);
    }
    let start = outer.payload_offset as usize;
    let header: Gtpu = packet.load(start).ok_or(ParseFault::TruncatedGtpu)?;
    // Version 1 and PT = GTP; anything else on the port is somebody else's UDP.
    if header.flags & 0xf0 != 0x30 {
        return Ok(None);
    }
    if header.message_type != TYPE_USER_PACKET {
        return Err(ParseFault::GtpuControl);
    }
    let mut tunnel = Tunnel { teid: header.teid.get(), qfi: None };
    let mut offset = start + size_of::<Gtpu>();
    if header.flags & ANY_OPTIONAL != 0 {
        let [_, _, _, next]: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedGtpu)?;
        offset += 4;
        if header.flags & EXTENSION != 0 {
            offset = skip_extensions(packet, offset, next, &mut tunnel)?;
        }
    }
    Ok(Some((offset, tunnel)))
}

#[inline(always)]
fn skip_extensions<P: PacketBytes + ?Sized>(
    packet: &P,
    mut offset: usize,
    mut next: u8,
    tunnel: &mut Tunnel,
) -> Result<usize, ParseFault> {
    for _ in 0..MAX_EXTENSIONS {
        if next == 0 {
            return Ok(offset);
        }
        let [words, _, flow, _]: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedGtpu)?;
        if words == 0 {
            return Err(ParseFault::BadGtpuExtension);
        }
        if next == PDU_SESSION_CONTAINER {
            tunnel.qfi = Some(flow & 0x3f);
        }
        offset += usize::from(words) * 4;
        // The last byte of each extension header is the type of the next one.
        let [_, _, _, last]: [u8; 4] = packet.load(offset - 4).ok_or(ParseFault::TruncatedGtpu)?;
        next = last;
    }
    if next == 0 { Ok(offset) } else { Err(ParseFault::TooManyGtpuExtensions) }
}
