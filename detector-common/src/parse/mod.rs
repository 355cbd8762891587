//! The one packet parser: from the frame's first byte to the transport's payload, through VLAN tags,
//! MPLS, PPPoE and tunnels (GRE, IP in IP, VXLAN, GTP-U). It says what it saw, never what to do
//! about it.
//!
//! Nearly all packets are read by `plain` in one look; the others header after header, those that are not
//! TCP by `tunnel`, so that most do not pay for what is rare.

mod fault;
pub mod gtpu;
mod ip;
mod link;
mod plain;
mod transport;
mod tunnel;

pub use self::{
    fault::ParseFault,
    gtpu::{MAX_EXTENSIONS as MAX_GTPU_EXTENSIONS, USER_PACKET},
    ip::MAX_EXTENSIONS as MAX_IPV6_EXTENSIONS,
    link::{MAX_MPLS_LABELS, MAX_VLAN_TAGS},
    tunnel::MAX_TUNNELS,
};
use crate::{
    packet::{Address, Layer, PacketBytes, Protocol},
    wire::ip_protocol,
};

/// What one packet says about itself; of a packet in a tunnel, what the innermost one says.
///
/// The bytes come first, so that the error of a `Result` lies in one of them: in the place of a word, LLVM
/// writes the word in pieces, and whoever reads it waits for them (5 ns a packet).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[repr(C)]
pub struct Facts {
    /// Transport.
    pub protocol: Protocol,
    /// TCP flags, see [`crate::wire::tcp_flag`]; 0 for UDP.
    pub tcp_flags: u8,
    /// The first fragment of several, or inside one: the payload goes on in packets without ports.
    pub first_fragment: bool,
    /// Source port.
    pub source_port: u16,
    /// Destination port.
    pub destination_port: u16,
    /// VLAN ids of the tags in the frame, outermost first; 0 where there is none. Those inside
    /// tunnels are the tunnel's own, and a tag that the device took off is
    /// [`PacketBytes::vlan_metadata`].
    pub vlan: [u16; MAX_VLAN_TAGS],
    /// TCP sequence number; 0 for UDP.
    pub sequence: u32,
    /// Where the transport's payload starts, in bytes from the packet's start.
    pub payload_offset: u32,
    /// Payload bytes in this packet, Ethernet padding excluded.
    pub payload_length: u32,
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// The GTP-U message that brought the packet, or that it is.
    pub tunnel: TunnelWord,
}

/// A GTP-U message or none, in the bits of one word. An `Option` leaves undefined what is not there; LLVM
/// then copies stack that was never written, which the verifier allows from Linux 6.3 on only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TunnelWord(u64);

impl TunnelWord {
    /// No GTP-U.
    pub const NONE: Self = Self(0);
    const PRESENT: u64 = 1 << 63;
    const HAS_QFI: u64 = 1 << 62;

    /// A message without a QFI.
    #[inline(always)]
    pub const fn new(teid: u32, message_type: u8) -> Self {
        Self(Self::PRESENT | (message_type as u64) << 40 | teid as u64)
    }

    /// The same with this QFI.
    #[inline(always)]
    #[must_use]
    pub const fn with_qfi(self, qfi: u8) -> Self {
        Self(self.0 & !(0xff << 32) | Self::HAS_QFI | (qfi as u64) << 32)
    }

    /// Whether there is one.
    #[inline(always)]
    pub const fn is_some(self) -> bool {
        self.0 & Self::PRESENT != 0
    }

    /// Tunnel endpoint identifier; 0 for none.
    #[inline(always)]
    pub const fn teid(self) -> u32 {
        self.0 as u32
    }

    /// Message type (TS 29.281 table 6.1-1); 0 for none. [`USER_PACKET`]: the facts are those of the
    /// user's packet inside. Any other (echo, error indication, end marker): those of the message's own
    /// datagram.
    #[inline(always)]
    pub const fn message_type(self) -> u8 {
        (self.0 >> 40) as u8
    }

    /// Whether there is a QFI: a PDU Session Container was there.
    #[inline(always)]
    pub const fn has_qfi(self) -> bool {
        self.0 & Self::HAS_QFI != 0
    }

    /// QoS flow identifier (TS 38.415 section 5.5.3.3); 0 for none.
    #[inline(always)]
    pub const fn qfi(self) -> u8 {
        (self.0 >> 32) as u8
    }
}

/// Reads a packet.
///
/// # Errors
/// The reason why it cannot be read to its ports and payload.
#[inline(always)]
pub fn parse<P: PacketBytes + ?Sized>(packet: &P, layer: Layer) -> Result<Facts, ParseFault> {
    match plain::parse(packet, layer) {
        Some(facts) => Ok(facts),
        None => parse_by_header(packet, layer),
    }
}

/// Reads any packet, header after header.
#[inline(always)]
fn parse_by_header<P: PacketBytes + ?Sized>(packet: &P, layer: Layer) -> Result<Facts, ParseFault> {
    let link = match layer {
        Layer::Ethernet => link::skip(packet, 0)?,
        Layer::Ip => link::Link::NONE,
    };
    let outer = ip::parse(packet, link.end, packet.size())?;
    let facts = match outer.protocol {
        ip_protocol::TCP => transport::tcp(packet, &outer)?,
        _ => tunnel::walk(packet, outer)?,
    };
    Ok(Facts { vlan: link.vlan, ..facts })
}
