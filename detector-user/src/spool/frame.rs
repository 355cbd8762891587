//! Bytes of segments and frames: encoding, checking, and finding the next good one after damage.

/// Of a segment's header.
pub(super) const HEADER: usize = 24;
/// Of a frame before its body.
pub(super) const FRAME: usize = 24;
const SEGMENT_MAGIC: &[u8; 8] = b"DETSPOOL";
const FRAME_MAGIC: [u8; 4] = [0xD5, b'S', b'P', b'L'];
const VERSION: u32 = 1;
/// No event is near this; a longer length is damage.
pub(super) const BODY_MAX: usize = 4 << 20;

/// What a frame says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Event = 1,
    Done = 2,
}

/// A frame whose checksum is right.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Frame<'a> {
    pub(super) kind: Kind,
    pub(super) number: u64,
    pub(super) body: &'a [u8],
}

impl Frame<'_> {
    /// With its header.
    pub(super) fn length(&self) -> usize {
        FRAME + self.body.len()
    }
}

/// An event's body taken apart.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct EventBody<'a> {
    pub(super) at_ms: u64,
    pub(super) rule: &'a str,
    pub(super) event: &'a [u8],
}

/// What a file's beginning says it is.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Header {
    /// A segment of this version whose first record has this number.
    Segment(u64),
    /// A segment of another version.
    OtherVersion(u32),
    /// Not a whole header.
    Damaged,
}

pub(super) fn header(first: u64) -> [u8; HEADER] {
    let mut bytes = [0; HEADER];
    bytes[..8].copy_from_slice(SEGMENT_MAGIC);
    bytes[8..12].copy_from_slice(&VERSION.to_le_bytes());
    bytes[12..20].copy_from_slice(&first.to_le_bytes());
    let sum = crc32fast::hash(&bytes[..20]);
    bytes[20..].copy_from_slice(&sum.to_le_bytes());
    bytes
}

pub(super) fn read_header(bytes: &[u8]) -> Header {
    let whole = || {
        let (head, sum) = (bytes.get(..20)?, u32_at(bytes, 20)?);
        let version = u32_at(bytes, 8)?;
        let good = head.starts_with(SEGMENT_MAGIC);
        Some((good, version, u64_at(bytes, 12)?, crc32fast::hash(head) == sum))
    };
    match whole() {
        // Only if the checksum is right: every version keeps this header, and a flipped bit here must
        // not cost the whole segment.
        Some((true, version, _, true)) if version != VERSION => Header::OtherVersion(version),
        Some((true, _, first, true)) => Header::Segment(first),
        Some(_) | None => Header::Damaged,
    }
}

/// Adds a frame to the buffer.
pub(super) fn push(buffer: &mut Vec<u8>, kind: Kind, number: u64, body: &[&[u8]]) {
    let begin = buffer.len();
    let length: usize = body.iter().map(|part| part.len()).sum();
    buffer.extend_from_slice(&FRAME_MAGIC);
    buffer.extend_from_slice(&[0; 4]);
    // BODY_MAX fits.
    buffer.extend_from_slice(&(length as u32).to_le_bytes());
    buffer.extend_from_slice(&[kind as u8, 0, 0, 0]);
    buffer.extend_from_slice(&number.to_le_bytes());
    body.iter().for_each(|part| buffer.extend_from_slice(part));
    let sum = crc32fast::hash(&buffer[begin + 8..]);
    buffer[begin + 4..begin + 8].copy_from_slice(&sum.to_le_bytes());
}

/// The frame at the beginning of the bytes, if a whole and good one is there.
pub(super) fn read(bytes: &[u8]) -> Option<Frame<'_>> {
    if !bytes.starts_with(&FRAME_MAGIC) {
        return None;
    }
    let (sum, length) = (u32_at(bytes, 4)?, u32_at(bytes, 8)? as usize);
    if length > BODY_MAX {
        return None;
    }
    let summed = bytes.get(8..FRAME + length)?;
    let kind = match bytes.get(12)? {
        1 => Kind::Event,
        2 => Kind::Done,
        _ => return None,
    };
    if crc32fast::hash(summed) != sum {
        return None;
    }
    Some(Frame { kind, number: u64_at(bytes, 16)?, body: bytes.get(FRAME..FRAME + length)? })
}

/// Where the next good frame begins at or after `from`. Bounded: a checksum is calculated only
/// where the magic stands, and over all candidates for at most `16 * bytes.len()`.
pub(super) fn find(bytes: &[u8], from: usize) -> Option<usize> {
    let mut budget = bytes.len().saturating_mul(16);
    let mut at = from;
    while let Some(rest) = bytes.get(at..) {
        let step = rest.windows(4).position(|window| window == FRAME_MAGIC)?;
        let candidate = &rest[step..];
        let cost = u32_at(candidate, 8).map_or(0, |length| (length as usize).min(candidate.len()));
        budget = budget.checked_sub(cost)?;
        if read(candidate).is_some() {
            return Some(at + step);
        }
        at += step + 1;
    }
    None
}

/// An event's body without the event itself.
pub(super) fn event_head(at_ms: u64, rule: &str) -> Vec<u8> {
    // A rule's name is a DNS label of at most 63 letters.
    let rule = &rule.as_bytes()[..rule.len().min(usize::from(u16::MAX))];
    let mut head = Vec::with_capacity(10 + rule.len());
    head.extend_from_slice(&at_ms.to_le_bytes());
    head.extend_from_slice(&(rule.len() as u16).to_le_bytes());
    head.extend_from_slice(rule);
    head
}

pub(super) fn event_body(body: &[u8]) -> Option<EventBody<'_>> {
    let length = usize::from(u16::from_le_bytes(body.get(8..10)?.try_into().ok()?));
    let rule = std::str::from_utf8(body.get(10..10 + length)?).ok()?;
    Some(EventBody { at_ms: u64_at(body, 0)?, rule, event: body.get(10 + length..)? })
}

pub(super) fn done_numbers(body: &[u8]) -> impl Iterator<Item = u64> + '_ {
    body.chunks_exact(8).filter_map(|chunk| u64_at(chunk, 0))
}

fn u32_at(bytes: &[u8], at: usize) -> Option<u32> {
    Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?))
}

fn u64_at(bytes: &[u8], at: usize) -> Option<u64> {
    Some(u64::from_le_bytes(bytes.get(at..at + 8)?.try_into().ok()?))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_header_says_number_version_or_damage() {
        let mut bytes = header(7);
        assert_eq!(read_header(&bytes), Header::Segment(7));
        assert_eq!(read_header(&bytes[..23]), Header::Damaged);
        bytes[13] ^= 1;
        assert_eq!(read_header(&bytes), Header::Damaged);
        bytes[13] ^= 1;
        bytes[8] = 2;
        assert_eq!(read_header(&bytes), Header::Damaged);
        let sum = crc32fast::hash(&bytes[..20]);
        bytes[20..].copy_from_slice(&sum.to_le_bytes());
        assert_eq!(read_header(&bytes), Header::OtherVersion(2));
    }

    proptest! {
        #[test]
        fn a_flipped_bit_is_found_wherever_it_is(number: u64, body in prop::collection::vec(any::<u8>(), 0..64), bit: prop::sample::Index) {
            let mut bytes = Vec::new();
            push(&mut bytes, Kind::Event, number, &[&body]);
            let good = Frame { kind: Kind::Event, number, body: &body };
            prop_assert_eq!(read(&bytes), Some(good));
            let bit = bit.index(bytes.len() * 8);
            bytes[bit / 8] ^= 1 << (bit % 8);
            prop_assert_eq!(read(&bytes), None);
        }

        #[test]
        fn whatever_the_bytes_are_nothing_panics(bytes in prop::collection::vec(any::<u8>(), 0..256), magic: prop::sample::Index) {
            let mut bytes = bytes;
            if bytes.len() > 4 {
                let at = magic.index(bytes.len() - 4);
                bytes[at..at + 4].copy_from_slice(&FRAME_MAGIC);
            }
            read_header(&bytes);
            read(&bytes);
            find(&bytes, 0);
            event_body(&bytes);
            done_numbers(&bytes).count();
        }
    }
}
