//! From the blocks of a capture file to frames: interfaces, clocks, link types.

use pcap_parser::{
    Block, LegacyPcapBlock, PcapHeader,
    pcapng::{InterfaceDescriptionBlock, UnknownBlock},
};

use super::{bytes::array_at, file::Frame, link::LinkType};

/// The largest frame that Wireshark takes from a file; a length beyond it is damage.
const LARGEST_FRAME: usize = 256 << 10;
/// The obsolete Packet Block (draft-ietf-opsawg-pcapng, appendix A), which old tools wrote.
const PACKET_BLOCK: u32 = 2;
const NS: u64 = 1_000_000_000;

/// What the blocks so far say about the frames to come.
#[derive(Default)]
pub(super) struct Section {
    interfaces: Vec<Interface>,
    big_endian: bool,
}

#[derive(Clone, Copy)]
struct Interface {
    link: LinkType,
    /// Units of time in a second.
    resolution: u64,
    offset_s: i64,
    /// Bytes before a frame of a classic capture.
    header: usize,
    /// Longest capture of a frame; 0 is no limit.
    snapshot: u32,
}

/// A frame in the buffer.
pub(super) struct Found {
    start: usize,
    captured: usize,
    length: u32,
    time_ns: u64,
    link: LinkType,
}

impl Found {
    /// The frame itself; `block` begins with the block it was found in.
    pub(super) fn frame<'a>(&self, number: u64, block: &'a [u8]) -> Frame<'a> {
        Frame {
            number,
            time_ns: self.time_ns,
            link: self.link,
            bytes: block.get(self.start..self.start + self.captured).unwrap_or_default(),
            length: self.length,
        }
    }
}

impl Section {
    /// What a classic capture's header says.
    pub(super) fn classic(header: &PcapHeader) -> Self {
        Self { interfaces: vec![Interface::legacy(header)], ..Self::default() }
    }

    pub(super) fn is_big_endian(&self) -> bool {
        self.big_endian
    }

    /// A frame of a classic capture.
    ///
    /// # Errors
    /// What makes the rest of the file unreadable.
    pub(super) fn frame(&self, packet: &LegacyPcapBlock<'_>) -> Result<Found, &'static str> {
        let interface = self.interfaces.first().ok_or("a frame before the file header")?;
        let units = u64::from(packet.ts_usec);
        let fraction = units.saturating_mul(NS / interface.resolution);
        checked(Found {
            start: interface.header,
            captured: packet.data.len(),
            length: packet.origlen,
            time_ns: u64::from(packet.ts_sec) * NS + fraction,
            link: interface.link,
        })
    }

    /// Takes the next block of pcapng in; a frame, if it holds one.
    ///
    /// # Errors
    /// What makes the rest of the file unreadable.
    pub(super) fn block(&mut self, block: &Block<'_>) -> Result<Option<Found>, &'static str> {
        match block {
            Block::SectionHeader(header) => {
                *self = Self { interfaces: Vec::new(), big_endian: header.big_endian() };
                Ok(None)
            }
            Block::InterfaceDescription(description) => {
                self.interfaces.push(Interface::described(description));
                Ok(None)
            }
            Block::EnhancedPacket(packet) => {
                let interface = self.interface(packet.if_id)?;
                let time = u64::from(packet.ts_high) << 32 | u64::from(packet.ts_low);
                let captured = packet.caplen as usize;
                interface.found(28, captured, packet.origlen, time).map(Some)
            }
            Block::SimplePacket(packet) => {
                let interface = self.interface(0)?;
                let limit = if interface.snapshot == 0 { u32::MAX } else { interface.snapshot };
                let captured = (packet.origlen.min(limit) as usize).min(packet.data.len());
                interface.found(12, captured, packet.origlen, 0).map(Some)
            }
            Block::Unknown(block) if block.block_type == PACKET_BLOCK => self.old(block).map(Some),
            // Names, statistics, secrets, comments: no frames.
            _ => Ok(None),
        }
    }

    fn old(&self, block: &UnknownBlock<'_>) -> Result<Found, &'static str> {
        const SHORT: &str = "a packet block that is too short";
        let word = |at| -> Result<u32, &'static str> {
            let bytes = array_at::<4>(block.data, at).ok_or(SHORT)?;
            Ok(if self.big_endian { u32::from_be_bytes(bytes) } else { u32::from_le_bytes(bytes) })
        };
        let [a, b] = array_at::<2>(block.data, 0).ok_or(SHORT)?;
        let number =
            if self.big_endian { u16::from_be_bytes([a, b]) } else { u16::from_le_bytes([a, b]) };
        let time = u64::from(word(4)?) << 32 | u64::from(word(8)?);
        self.interface(number.into())?.found(28, word(12)? as usize, word(16)?, time)
    }

    fn interface(&self, number: u32) -> Result<Interface, &'static str> {
        let found = self.interfaces.get(number as usize).copied();
        found.ok_or("a frame of an interface that no block describes")
    }
}

impl Interface {
    fn legacy(header: &PcapHeader) -> Self {
        Self {
            link: LinkType((header.network.0 & 0xffff) as u16),
            resolution: if header.is_nanosecond_precision() { NS } else { NS / 1_000 },
            offset_s: 0,
            // The modified format of the 1990s has eight more bytes in each header.
            header: if header.is_modified_format() { 24 } else { 16 },
            snapshot: header.snaplen,
        }
    }

    fn described(block: &InterfaceDescriptionBlock<'_>) -> Self {
        Self {
            link: LinkType(block.linktype.0 as u16),
            resolution: block.ts_resolution().filter(|units| *units > 0).unwrap_or(NS / 1_000),
            offset_s: block.if_tsoffset,
            header: 0,
            snapshot: block.snaplen,
        }
    }

    fn found(
        self,
        start: usize,
        captured: usize,
        length: u32,
        time: u64,
    ) -> Result<Found, &'static str> {
        let (seconds, units) = (time / self.resolution, time % self.resolution);
        let fraction = u128::from(units) * u128::from(NS) / u128::from(self.resolution);
        let seconds = seconds.saturating_add_signed(self.offset_s);
        checked(Found {
            start,
            captured,
            length,
            time_ns: seconds.saturating_mul(NS).saturating_add(fraction as u64),
            link: self.link,
        })
    }
}

fn checked(found: Found) -> Result<Found, &'static str> {
    if found.captured > LARGEST_FRAME {
        return Err("a frame of more than 256 KiB");
    }
    Ok(found)
}
