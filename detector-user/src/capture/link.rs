//! Link types of capture files (the tcpdump.org registry): what a frame begins with.

use super::bytes::{u8_at, u16_at, u32_at};

/// A link type number, as in the file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct LinkType(pub u16);

/// What stands behind the link-layer header.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Content<'a> {
    /// An Ethernet frame.
    Ethernet(&'a [u8]),
    /// What an EtherType says.
    EtherType(u16, &'a [u8]),
    /// An IPv4 or IPv6 packet.
    Ip(&'a [u8]),
    /// A PPP frame from its protocol field.
    Ppp(&'a [u8]),
    /// An IEEE 802.2 LLC header.
    Llc(&'a [u8]),
    /// Not IP, or damaged.
    Other,
}

impl LinkType {
    /// Ethernet.
    pub const ETHERNET: Self = Self(1);
    /// An IPv4 or IPv6 packet, as its version says.
    pub const RAW: Self = Self(101);

    /// Whether frames of this type can be read at all.
    pub const fn known(self) -> bool {
        matches!(
            self.0,
            0 | 1
                | 6
                | 7
                | 8
                | 9
                | 10
                | 12
                | 14
                | 50
                | 51
                | 101
                | 104
                | 105
                | 107
                | 108
                | 109
                | 113
                | 117
                | 119
                | 127
                | 129
                | 138
                | 149
                | 163
                | 192
                | 228
                | 229
                | 239
                | 276
        )
    }

    /// Takes the link-layer header off.
    pub fn content(self, frame: &[u8]) -> Content<'_> {
        self.read(frame).unwrap_or(Content::Other)
    }

    fn read(self, frame: &[u8]) -> Option<Content<'_>> {
        Some(match self.0 {
            1 => Content::Ethernet(frame),
            // Raw IP. 12 and 14 are what BSDs call it, 8 SLIP without its direction header.
            12 | 14 | 101 | 228 | 229 => Content::Ip(frame),
            // SLIP: direction, 15 bytes of the compressed header.
            8 => Content::Ip(frame.get(16..)?),
            // BSD loopback: the address family in the byte order of the machine, or (108) big.
            0 | 108 => loopback(frame)?,
            // OpenBSD encapsulation: family, SPI, flags.
            109 => Content::Ip(frame.get(12..)?),
            117 => Content::Ip(frame.get(pflog_header(frame)?..)?),
            // Linux cooked: v1 has the EtherType at the end, v2 at the start.
            113 => cooked(u16_at(frame, 14)?, frame.get(16..)?),
            276 => cooked(u16_at(frame, 0)?, frame.get(20..)?),
            9 | 50 => Content::Ppp(frame),
            51 => Content::Ppp(frame.get(6..)?),
            // Cisco HDLC: address, control, EtherType.
            104 => Content::EtherType(u16_at(frame, 2)?, frame.get(4..)?),
            // Frame Relay with a two byte address, RFC 2427: control 3, NLPID 0xcc is IP.
            107 => frame_relay(frame)?,
            // Token ring (no source route) and FDDI: LLC behind the addresses.
            6 => Content::Llc(frame.get(token_ring_header(frame)?..)?),
            10 => Content::Llc(frame.get(13..)?),
            // ARCNET: both addresses, on Linux two bytes of offset, then the system code.
            7 => arcnet(frame.get(2..)?)?,
            129 => arcnet(frame.get(4..)?)?,
            // IP over IEEE 1394: two EUI-64, EtherType.
            138 => Content::EtherType(u16_at(frame, 16)?, frame.get(18..)?),
            105 => wireless(frame)?,
            // Radiotap: version, pad, length (little-endian) of the whole header.
            127 => {
                let length = usize::from(u16_at(frame, 2)?.swap_bytes());
                wireless(frame.get(length..)?)?
            }
            // Prism: message code, length (little-endian, the usual 144) of the whole header.
            119 => {
                let length = u32_at(frame, 4)?.swap_bytes() as usize;
                wireless(frame.get(if length < frame.len() { length } else { 144 }..)?)?
            }
            // AVS: its length in network order.
            163 => wireless(frame.get(u32_at(frame, 4)? as usize..)?)?,
            // PKTAP (macOS; 149 before it had a number): length and link type, little-endian.
            149 | 258 => {
                let length = u32_at(frame, 0)?.swap_bytes() as usize;
                let inner = Self(u32_at(frame, 8)?.swap_bytes() as u16);
                if matches!(inner.0, 149 | 192 | 258) {
                    return None;
                }
                inner.read(frame.get(length..)?)?
            }
            192 => per_packet_information(frame)?,
            239 => netfilter_log(frame)?,
            _ => Content::Other,
        })
    }
}

/// Linux cooked frames say an EtherType, or one of Linux' own numbers below 0x600.
fn cooked(kind: u16, rest: &[u8]) -> Content<'_> {
    match kind {
        0x0001 | 0x0003 => Content::Ethernet(rest),
        0x0004 => Content::Llc(rest),
        0x0009 => Content::Ppp(rest),
        kind => Content::EtherType(kind, rest),
    }
}

/// BSD loopback. Families differ between systems, so the packet's own version decides.
fn loopback(frame: &[u8]) -> Option<Content<'_>> {
    let rest = frame.get(4..)?;
    // Some writers put PPP or an EtherType where the family belongs.
    if frame.starts_with(&[0xff, 0x03]) {
        return Some(Content::Ppp(frame));
    }
    let family = u32_at(frame, 0)?;
    let family = if family & 0xffff_0000 == 0 { family } else { family.swap_bytes() };
    match family {
        2 | 10 | 23 | 24 | 28 | 30 => Some(Content::Ip(rest)),
        kind if kind >= 0x600 => Some(Content::EtherType(u16::try_from(kind).ok()?, rest)),
        _ => Some(Content::Other),
    }
}

fn pflog_header(frame: &[u8]) -> Option<usize> {
    // The length stands first, without its padding to four bytes.
    Some((usize::from(u8_at(frame, 0)?) + 3) & !3)
}

fn frame_relay(frame: &[u8]) -> Option<Content<'_>> {
    match (u8_at(frame, 2)?, u8_at(frame, 3)?) {
        (0x03, 0xcc) => Some(Content::Ip(frame.get(4..)?)),
        (0x03, 0x80) => Some(Content::Llc(frame.get(3..)?)),
        // A padding byte before the NLPID, then SNAP.
        (0x03, 0x00) if u8_at(frame, 4)? == 0x80 => {
            Some(Content::EtherType(u16_at(frame, 8)?, frame.get(10..)?))
        }
        // Cisco's own: the EtherType at once.
        _ => Some(Content::EtherType(u16_at(frame, 2)?, frame.get(4..)?)),
    }
}

fn token_ring_header(frame: &[u8]) -> Option<usize> {
    // The source address' first bit: a routing field follows, its length in the low five bits.
    if u8_at(frame, 8)? & 0x80 == 0 {
        return Some(14);
    }
    Some(14 + usize::from(u8_at(frame, 14)? & 0x1f))
}

/// ARCNET from its system code: IP of RFC 1051 at once, or of RFC 1201 behind a split flag and a sequence
/// number. Fragments of its own, and exception packets, are left.
fn arcnet(frame: &[u8]) -> Option<Content<'_>> {
    match (u8_at(frame, 0)?, u8_at(frame, 1)?) {
        (240, _) => Some(Content::Ip(frame.get(1..)?)),
        (212, 0) => Some(Content::Ip(frame.get(4..)?)),
        _ => Some(Content::Other),
    }
}

/// Version 0, type 2 of the frame control field (IEEE 802.11 section 9.2.4.1).
const DATA: u8 = 0x08;

/// An IEEE 802.11 data frame that is not encrypted: LLC behind its header.
pub(super) fn wireless(frame: &[u8]) -> Option<Content<'_>> {
    let [control, flags] = match super::bytes::array_at::<2>(frame, 0)? {
        // Cisco's access points send the two bytes the other way round in CAPWAP and LWAPP.
        [flags, control] if control & 0x0f == DATA && flags & 0x0f != DATA => [control, flags],
        field => field,
    };
    let (kind, subtype) = (control >> 2 & 3, control >> 4);
    const PROTECTED: u8 = 0x40;
    if kind != 2 || subtype & 4 != 0 || flags & PROTECTED != 0 {
        return Some(Content::Other);
    }
    let mut header = if flags & 3 == 3 { 30 } else { 24 };
    if subtype & 8 != 0 {
        header += 2; // QoS control
        if u8_at(frame, header - 2)? & 0x80 != 0 {
            return Some(Content::Other); // an aggregate
        }
        if flags & 0x80 != 0 {
            header += 4; // HT control
        }
    }
    Some(Content::Llc(frame.get(header..)?))
}

/// PPI: a header with its length and the link type of what follows, both little-endian.
fn per_packet_information(frame: &[u8]) -> Option<Content<'_>> {
    let length = usize::from(u16_at(frame, 2)?.swap_bytes());
    let link = LinkType(u32_at(frame, 4)?.swap_bytes() as u16);
    if matches!(link.0, 149 | 192 | 258) {
        return None;
    }
    link.read(frame.get(length..)?)
}

/// NFLOG: type-length-value of the kernel's own byte order; type 9 holds the packet.
fn netfilter_log(frame: &[u8]) -> Option<Content<'_>> {
    const PAYLOAD: u16 = 9;
    let mut at = 4;
    loop {
        let length = usize::from(u16_at(frame, at)?.swap_bytes());
        let kind = u16_at(frame, at + 2)?.swap_bytes();
        if length < 4 {
            return None;
        }
        if kind == PAYLOAD {
            let end = (at + length).min(frame.len());
            return Some(Content::Ip(frame.get(at + 4..end)?));
        }
        at += (length + 3) & !3;
    }
}
