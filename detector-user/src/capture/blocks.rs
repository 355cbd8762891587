//! The two formats of capture files: where a block ends, and what kind it is.

use pcap_parser::{
    Block, LegacyPcapBlock, PcapError, PcapHeader,
    nom::{self, IResult},
    parse_block_be, parse_block_le, parse_pcap_frame, parse_pcap_frame_be,
    parse_pcap_frame_modified, parse_pcap_header, parse_sectionheaderblock,
};

use super::{
    bytes::array_at,
    section::{Found, Section},
};

type Parsed<'a, T> = IResult<&'a [u8], T, PcapError<&'a [u8]>>;

/// Why there is no block at the front.
pub(super) enum Halt {
    /// Its end is not there yet.
    More,
    /// What is there is no block.
    Damage(&'static str),
}

/// The format of a file, and what it said so far.
pub(super) enum Blocks {
    /// pcap: a frame behind each header.
    Classic { section: Section, parse: for<'a> fn(&'a [u8]) -> Parsed<'a, LegacyPcapBlock<'a>> },
    /// pcapng.
    NextGeneration { section: Section },
}

const UNREADABLE: &str = "no block or frame that can be read";

impl Blocks {
    /// What a file is that begins so, and how many of the bytes are its header; `None` if it is no capture.
    ///
    /// # Errors
    /// When these are too few bytes to tell.
    pub(super) fn of(front: &[u8]) -> Result<Option<(Self, usize)>, Halt> {
        const SECTION_HEADER: &[u8] = &[0x0a, 0x0d, 0x0d, 0x0a];
        match parse_sectionheaderblock(front) {
            // Itself the first block.
            Ok(_) => return Ok(Some((Self::NextGeneration { section: Section::default() }, 0))),
            Err(nom::Err::Incomplete(_)) if front.starts_with(SECTION_HEADER) => {
                return Err(Halt::More);
            }
            Err(_) => {}
        }
        match parse_pcap_header(front) {
            Ok((_, header)) => {
                let section = Section::classic(&header);
                Ok(Some((Self::Classic { section, parse: frame_of(&header) }, header.size())))
            }
            Err(nom::Err::Incomplete(_)) => Err(Halt::More),
            Err(_) => Ok(None),
        }
    }

    /// The block at the front: its length, and where a frame is in it.
    #[inline]
    pub(super) fn next(&mut self, front: &[u8]) -> Result<(usize, Option<Found>), Halt> {
        match self {
            Self::Classic { section, parse } => {
                let (rest, frame) = parse(front).map_err(halt)?;
                let found = section.frame(&frame).map_err(Halt::Damage)?;
                Ok((front.len() - rest.len(), Some(found)))
            }
            Self::NextGeneration { section } => {
                if is_impossible(front, section.is_big_endian()) {
                    return Err(Halt::Damage(UNREADABLE));
                }
                let parse = if section.is_big_endian() { parse_block_be } else { parse_block_le };
                let (rest, block): (_, Block<'_>) = parse(front).map_err(halt)?;
                let found = section.block(&block).map_err(Halt::Damage)?;
                Ok((front.len() - rest.len(), found))
            }
        }
    }
}

fn frame_of(header: &PcapHeader) -> for<'a> fn(&'a [u8]) -> Parsed<'a, LegacyPcapBlock<'a>> {
    match (header.is_modified_format(), header.is_bigendian()) {
        (true, _) => parse_pcap_frame_modified,
        (false, true) => parse_pcap_frame_be,
        (false, false) => parse_pcap_frame,
    }
}

fn halt<E>(error: nom::Err<E>) -> Halt {
    match error {
        nom::Err::Incomplete(_) => Halt::More,
        nom::Err::Error(_) | nom::Err::Failure(_) => Halt::Damage(UNREADABLE),
    }
}

/// Whether the block of pcapng at the front says that it is shorter than its type and its two lengths (12
/// bytes, draft-ietf-opsawg-pcapng section 3.1): pcap-parser 0.17 subtracts them unseen.
fn is_impossible(front: &[u8], big_endian: bool) -> bool {
    let Some(length) = array_at::<4>(front, 4) else { return false };
    let length = if big_endian { u32::from_be_bytes(length) } else { u32::from_le_bytes(length) };
    length < 12
}
