//! Headers of tunnels.

use zerocopy::{
    FromBytes, Immutable, KnownLayout, Unaligned,
    byteorder::network_endian::{U16, U32},
};

/// The mandatory part of a GRE header (RFC 2784 section 2).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Gre {
    /// Which optional words follow, and the version.
    pub flags: U16,
    /// EtherType of the content.
    pub protocol: U16,
}

impl Gre {
    /// 0, or 1 for what PPTP made of it (RFC 2637 section 4.1).
    #[inline(always)]
    pub const fn version(&self) -> u16 {
        self.flags.get() & 0x0007
    }

    /// Whether source routes follow (RFC 1701).
    #[inline(always)]
    pub const fn has_routing(&self) -> bool {
        self.flags.get() & 0x4000 != 0
    }

    /// Whether there is a sequence number (RFC 2890 section 2).
    #[inline(always)]
    pub const fn has_sequence(&self) -> bool {
        self.flags.get() & 0x1000 != 0
    }

    /// Bytes of the header with its optional words, of source routes only the first.
    #[inline(always)]
    pub const fn header_length(&self) -> usize {
        const CHECKSUM_OR_ROUTING: u16 = 0xc000;
        const KEY: u16 = 0x2000;
        const ACKNOWLEDGEMENT: u16 = 0x0080;
        let flags = self.flags.get();
        let acknowledged = self.version() == 1 && flags & ACKNOWLEDGEMENT != 0;
        size_of::<Self>()
            + word_if(flags & CHECKSUM_OR_ROUTING != 0)
            + word_if(flags & KEY != 0)
            + word_if(self.has_sequence())
            + word_if(acknowledged)
    }
}

#[inline(always)]
const fn word_if(there: bool) -> usize {
    if there { 4 } else { 0 }
}

/// VXLAN header (RFC 7348 section 5).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Vxlan {
    /// Whether the VNI is valid.
    pub flags: u8,
    /// Always 0.
    pub reserved: [u8; 3],
    /// VXLAN network identifier (24 bits) and a reserved byte.
    pub vni: U32,
}

impl Vxlan {
    /// I: whether the VNI is valid. Without it this is no VXLAN.
    #[inline(always)]
    pub const fn is_valid(&self) -> bool {
        self.flags & 0x08 != 0
    }
}

/// The mandatory part of a GTP-U header (TS 29.281 section 5.1).
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct Gtpu {
    /// Version (3 bits), PT, spare, E, S, PN.
    pub flags: u8,
    /// Message type; 255 carries a user packet.
    pub message_type: u8,
    /// Bytes after the mandatory part. It can lie, and is not trusted.
    pub length: U16,
    /// Tunnel endpoint identifier.
    pub teid: U32,
}

impl Gtpu {
    /// Version 1 and PT = GTP (TS 29.281 section 5.1); anything else on the port is somebody else's UDP.
    #[inline(always)]
    pub const fn is_version_1(&self) -> bool {
        self.flags & 0xf0 == 0x30
    }

    /// E, S or PN: any of them adds the four bytes of [`GtpuOptions`].
    #[inline(always)]
    pub const fn has_options(&self) -> bool {
        self.flags & 0x07 != 0
    }

    /// E: extension headers follow.
    #[inline(always)]
    pub const fn has_extensions(&self) -> bool {
        self.flags & 0x04 != 0
    }
}

/// The optional part of a GTP-U header.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
pub struct GtpuOptions {
    /// Sequence number.
    pub sequence: U16,
    /// N-PDU number.
    pub n_pdu: u8,
    /// Type of the first extension header; 0 for none.
    pub next_extension: u8,
}
