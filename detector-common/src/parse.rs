//! The one packet parser: Ethernet or raw IP, two VLAN tags, IPv4, IPv6, TCP, UDP, and GTP-U with
//! the user's packet inside. It says what it saw, never what to do about it.

use crate::{
    counter::Counter,
    gtpu,
    packet::{Address, Layer, PacketBytes, Protocol},
    wire::{Ethernet, Ipv4, Ipv6, Tcp, Udp, VlanTag, ethertype},
};

/// VLAN tags that are walked (QinQ).
pub const MAX_VLAN_TAGS: usize = 2;
/// IPv6 extension headers that are walked.
pub const MAX_IPV6_EXTENSIONS: usize = 6;

/// What one packet says about itself; of a GTP-U packet, what the user's inner packet says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Facts {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// Transport.
    pub protocol: Protocol,
    /// TCP flags, see [`crate::wire::tcp_flag`]; 0 for UDP.
    pub tcp_flags: u8,
    /// The first fragment of several: the payload goes on in packets without ports.
    pub first_fragment: bool,
    /// TCP sequence number; 0 for UDP.
    pub sequence: u32,
    /// Where the transport's payload starts, in bytes from the packet's start.
    pub payload_offset: u32,
    /// Payload bytes in this packet, Ethernet padding excluded.
    pub payload_length: u32,
    /// The GTP-U tunnel, if the packet came in one.
    pub tunnel: Option<Tunnel>,
}

/// A GTP-U tunnel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tunnel {
    /// Tunnel endpoint identifier.
    pub teid: u32,
    /// QoS flow identifier (TS 38.415 section 5.5.3.3), if a PDU Session Container was there.
    pub qfi: Option<u8>,
}

/// Why a packet could not be read to the end. Each is a counter: see [`ParseFault::counter`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum ParseFault {
    /// Shorter than its link-layer header.
    TruncatedLink,
    /// Neither IPv4 nor IPv6 (ARP, LLDP, ...).
    NotIp,
    /// More than [`MAX_VLAN_TAGS`] VLAN tags.
    TooManyVlanTags,
    /// Shorter than its IP header.
    TruncatedIp,
    /// A version or header length that no IP packet has.
    BadIp,
    /// Not the first fragment: it has no ports.
    LaterFragment,
    /// More than [`MAX_IPV6_EXTENSIONS`] extension headers.
    TooManyIpv6Extensions,
    /// Neither TCP nor UDP (ICMP, SCTP, ESP, ...).
    OtherTransport,
    /// Shorter than its transport header.
    TruncatedTransport,
    /// A TCP header length below five words.
    BadTcp,
    /// Shorter than its GTP-U header.
    TruncatedGtpu,
    /// A GTP-U message that carries no user packet (echo, error indication, end marker).
    GtpuControl,
    /// More extension headers than `gtpu::MAX_EXTENSIONS`.
    TooManyGtpuExtensions,
    /// A GTP-U extension header of length zero.
    BadGtpuExtension,
    /// The user's packet is not IP (Ethernet and unstructured PDU sessions).
    GtpuNotIp,
}

impl ParseFault {
    /// Every fault.
    pub const ALL: [Self; 15] = [
        Self::TruncatedLink,
        Self::NotIp,
        Self::TooManyVlanTags,
        Self::TruncatedIp,
        Self::BadIp,
        Self::LaterFragment,
        Self::TooManyIpv6Extensions,
        Self::OtherTransport,
        Self::TruncatedTransport,
        Self::BadTcp,
        Self::TruncatedGtpu,
        Self::GtpuControl,
        Self::TooManyGtpuExtensions,
        Self::BadGtpuExtension,
        Self::GtpuNotIp,
    ];

    /// The counter of this fault.
    #[inline(always)]
    pub const fn counter(self) -> Counter {
        match self {
            Self::TruncatedLink => Counter::TruncatedLink,
            Self::NotIp => Counter::NotIp,
            Self::TooManyVlanTags => Counter::TooManyVlanTags,
            Self::TruncatedIp => Counter::TruncatedIp,
            Self::BadIp => Counter::BadIp,
            Self::LaterFragment => Counter::LaterFragment,
            Self::TooManyIpv6Extensions => Counter::TooManyIpv6Extensions,
            Self::OtherTransport => Counter::OtherTransport,
            Self::TruncatedTransport => Counter::TruncatedTransport,
            Self::BadTcp => Counter::BadTcp,
            Self::TruncatedGtpu => Counter::TruncatedGtpu,
            Self::GtpuControl => Counter::GtpuControl,
            Self::TooManyGtpuExtensions => Counter::TooManyGtpuExtensions,
            Self::BadGtpuExtension => Counter::BadGtpuExtension,
            Self::GtpuNotIp => Counter::GtpuNotIp,
        }
    }
}

/// Reads a packet.
///
/// # Errors
/// The reason why it cannot be read to its ports and payload.
#[inline(always)]
pub fn parse<P: PacketBytes + ?Sized>(packet: &P, layer: Layer) -> Result<Facts, ParseFault> {
    let ip = match layer {
        Layer::Ethernet => skip_link(packet)?,
        Layer::Ip => 0,
    };
    let outer = parse_ip(packet, ip)?;
    match gtpu::inner_packet(packet, &outer)? {
        None => Ok(outer),
        Some((inner, tunnel)) => {
            let facts = parse_ip(packet, inner).map_err(|fault| match fault {
                ParseFault::BadIp => ParseFault::GtpuNotIp,
                other => other,
            })?;
            Ok(Facts { tunnel: Some(tunnel), ..facts })
        }
    }
}

/// Skips the Ethernet header and its VLAN tags: where the IP header starts.
#[inline(always)]
fn skip_link<P: PacketBytes + ?Sized>(packet: &P) -> Result<usize, ParseFault> {
    let ethernet: Ethernet = packet.load(0).ok_or(ParseFault::TruncatedLink)?;
    let mut kind = ethernet.ethertype.get();
    let mut offset = size_of::<Ethernet>();
    for _ in 0..MAX_VLAN_TAGS {
        if !is_vlan(kind) {
            break;
        }
        let tag: VlanTag = packet.load(offset).ok_or(ParseFault::TruncatedLink)?;
        kind = tag.ethertype.get();
        offset += size_of::<VlanTag>();
    }
    match kind {
        ethertype::IPV4 | ethertype::IPV6 => Ok(offset),
        kind if is_vlan(kind) => Err(ParseFault::TooManyVlanTags),
        _ => Err(ParseFault::NotIp),
    }
}

#[inline(always)]
const fn is_vlan(kind: u16) -> bool {
    matches!(kind, ethertype::VLAN | ethertype::SERVICE_VLAN | ethertype::OLD_SERVICE_VLAN)
}

/// Where an IP header leads.
struct IpPayload {
    source: Address,
    destination: Address,
    protocol: u8,
    /// Where the transport header starts.
    offset: usize,
    /// Where the IP packet ends; what follows is padding.
    end: usize,
    first_fragment: bool,
}

#[inline(always)]
fn parse_ip<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> Result<Facts, ParseFault> {
    let start: [u8; 4] = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    let ip = match start[0] >> 4 {
        4 => parse_ipv4(packet, offset)?,
        6 => parse_ipv6(packet, offset)?,
        _ => return Err(ParseFault::BadIp),
    };
    const TCP: u8 = Protocol::Tcp as u8;
    const UDP: u8 = Protocol::Udp as u8;
    match ip.protocol {
        TCP => parse_tcp(packet, &ip),
        UDP => parse_udp(packet, &ip),
        _ => Err(ParseFault::OtherTransport),
    }
}

#[inline(always)]
fn parse_ipv4<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> Result<IpPayload, ParseFault> {
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
    Ok(IpPayload {
        source: Address::v4(header.source),
        destination: Address::v4(header.destination),
        protocol: header.protocol,
        offset: offset + length,
        end: ip_end(packet, offset, usize::from(header.total_length.get())),
        first_fragment: fragment & MORE_FRAGMENTS != 0,
    })
}

#[inline(always)]
fn parse_ipv6<P: PacketBytes + ?Sized>(packet: &P, offset: usize) -> Result<IpPayload, ParseFault> {
    let header: Ipv6 = packet.load(offset).ok_or(ParseFault::TruncatedIp)?;
    let total = match usize::from(header.payload_length.get()) {
        0 => 0,
        length => length + size_of::<Ipv6>(),
    };
    let mut ip = IpPayload {
        source: Address::v6(header.source),
        destination: Address::v6(header.destination),
        protocol: header.next_header,
        offset: offset + size_of::<Ipv6>(),
        end: ip_end(packet, offset, total),
        first_fragment: false,
    };
    for _ in 0..MAX_IPV6_EXTENSIONS {
        if !is_ipv6_extension(ip.protocol) {
            return Ok(ip);
        }
        skip_ipv6_extension(packet, &mut ip)?;
    }
    if is_ipv6_extension(ip.protocol) {
        return Err(ParseFault::TooManyIpv6Extensions);
    }
    Ok(ip)
}

/// Next-header numbers of the extension headers that are walked (RFC 8200 section 4).
mod ipv6_extension {
    pub(super) const HOP_BY_HOP: u8 = 0;
    pub(super) const ROUTING: u8 = 43;
    pub(super) const FRAGMENT: u8 = 44;
    pub(super) const AUTHENTICATION: u8 = 51;
    pub(super) const DESTINATION: u8 = 60;
    pub(super) const MOBILITY: u8 = 135;
}

#[inline(always)]
const fn is_ipv6_extension(next_header: u8) -> bool {
    use ipv6_extension::*;
    matches!(next_header, HOP_BY_HOP | ROUTING | FRAGMENT | AUTHENTICATION | DESTINATION | MOBILITY)
}

#[inline(always)]
fn skip_ipv6_extension<P: PacketBytes + ?Sized>(
    packet: &P,
    ip: &mut IpPayload,
) -> Result<(), ParseFault> {
    let [next, length, fragment_high, fragment_low]: [u8; 4] =
        packet.load(ip.offset).ok_or(ParseFault::TruncatedIp)?;
    let size = match ip.protocol {
        ipv6_extension::FRAGMENT => {
            // RFC 8200 section 4.5: offset (13 bits), reserved (2), more fragments (1).
            if (fragment_high != 0) || (fragment_low & 0xf8 != 0) {
                return Err(ParseFault::LaterFragment);
            }
            ip.first_fragment = fragment_low & 1 != 0;
            8
        }
        // RFC 4302 section 2.2: in words of four bytes, minus two.
        ipv6_extension::AUTHENTICATION => (usize::from(length) + 2) * 4,
        _ => (usize::from(length) + 1) * 8,
    };
    ip.protocol = next;
    ip.offset += size;
    Ok(())
}

/// Where an IP packet of `total` bytes ends. Length 0 means "to the end": BIG TCP super-packets
/// (Linux 5.19) and jumbograms have it. A length beyond the packet is a lie or a capture cut short.
#[inline(always)]
fn ip_end<P: PacketBytes + ?Sized>(packet: &P, offset: usize, total: usize) -> usize {
    let size = packet.size();
    if total == 0 || offset + total > size { size } else { offset + total }
}

#[inline(always)]
fn parse_tcp<P: PacketBytes + ?Sized>(packet: &P, ip: &IpPayload) -> Result<Facts, ParseFault> {
    let header: Tcp = packet.load(ip.offset).ok_or(ParseFault::TruncatedTransport)?;
    let length = usize::from(header.data_offset >> 4) * 4;
    if length < size_of::<Tcp>() {
        return Err(ParseFault::BadTcp);
    }
    let payload = ip.offset + length;
    Ok(Facts {
        source: ip.source,
        destination: ip.destination,
        source_port: header.source.get(),
        destination_port: header.destination.get(),
        protocol: Protocol::Tcp,
        tcp_flags: header.flags,
        first_fragment: ip.first_fragment,
        sequence: header.sequence.get(),
        payload_offset: payload as u32,
        payload_length: ip.end.saturating_sub(payload) as u32,
        tunnel: None,
    })
}

#[inline(always)]
fn parse_udp<P: PacketBytes + ?Sized>(packet: &P, ip: &IpPayload) -> Result<Facts, ParseFault> {
    let header: Udp = packet.load(ip.offset).ok_or(ParseFault::TruncatedTransport)?;
    let payload = ip.offset + size_of::<Udp>();
    Ok(Facts {
        source: ip.source,
        destination: ip.destination,
        source_port: header.source.get(),
        destination_port: header.destination.get(),
        protocol: Protocol::Udp,
        tcp_flags: 0,
        first_fragment: ip.first_fragment,
        sequence: 0,
        payload_offset: payload as u32,
        payload_length: ip.end.saturating_sub(payload) as u32,
        tunnel: None,
    })
}
