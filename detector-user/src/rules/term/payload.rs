//! The `payload` term: bytes of protocols that Detector does not know.

use detector_common::event::MAX_CAPTURE;
use schemars::Schema;

use crate::yaml::{Scalar, scalar};

/// The most pieces one rule may have.
pub const MAX_PIECES: usize = 16;

/// What the payload's start must be: one of these.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadTerm {
    /// Any of these; never empty.
    pub any: Vec<PayloadPattern>,
}

/// Pieces that must all be there; never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadPattern {
    /// The pieces.
    pub all: Vec<PayloadPiece>,
}

/// Some bytes at some place.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PayloadPiece {
    /// The bytes, those bits 0 that the mask leaves out; never empty.
    pub bytes: Vec<u8>,
    /// Which bits count; as long as `bytes`.
    pub mask: Vec<u8>,
    /// Where.
    pub place: PiecePlace,
}

/// Where bytes must be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PiecePlace {
    /// This many bytes from the payload's start.
    At(u16),
    /// Anywhere within this many bytes from the payload's start.
    Within(u16),
}

impl PayloadTerm {
    /// Whether the payload is such. Bytes beyond its end are never there.
    pub fn matches(&self, payload: &[u8]) -> bool {
        self.any.iter().any(|pattern| pattern.all.iter().all(|piece| piece.matches(payload)))
    }

    /// Bytes from the payload's start that decide.
    pub fn reach(&self) -> usize {
        self.any.iter().flat_map(|pattern| &pattern.all).map(PayloadPiece::reach).max().unwrap_or(0)
    }
}

impl PayloadPiece {
    /// Bytes from the payload's start that decide.
    pub fn reach(&self) -> usize {
        match self.place {
            PiecePlace::At(offset) => usize::from(offset) + self.bytes.len(),
            PiecePlace::Within(length) => usize::from(length),
        }
    }

    fn matches(&self, payload: &[u8]) -> bool {
        match self.place {
            PiecePlace::At(offset) => {
                let start = payload.get(usize::from(offset)..);
                start.and_then(|rest| rest.get(..self.bytes.len())).is_some_and(|b| self.is(b))
            }
            PiecePlace::Within(length) => {
                let start = payload.get(..usize::from(length)).unwrap_or(payload);
                start.windows(self.bytes.len()).any(|window| self.is(window))
            }
        }
    }

    fn is(&self, found: &[u8]) -> bool {
        let masked = found.iter().zip(&self.mask).map(|(byte, mask)| byte & mask);
        masked.eq(self.bytes.iter().copied())
    }
}

/// Bytes in hexadecimal; `?` is a digit that does not count.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HexBytes {
    /// The bytes, 0 where a digit does not count.
    pub bytes: Vec<u8>,
    /// Which bits count.
    pub mask: Vec<u8>,
}
scalar!(HexBytes);

impl Scalar for HexBytes {
    const EXPECTED: &'static str = "hexadecimal bytes such as \"de ad be ef\" (?? is any byte)";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: String| Err(format!("\"{text}\" {why}; expected {}", Self::EXPECTED));
        let digits: Vec<char> = text.chars().filter(|c| !matches!(c, ' ' | ':' | '_')).collect();
        if let Some(bad) = digits.iter().find(|c| !c.is_ascii_hexdigit() && **c != '?') {
            return refuse(format!("has \"{bad}\", which is no hexadecimal digit"));
        }
        if digits.is_empty() || !digits.len().is_multiple_of(2) {
            return refuse(format!("has {} digits, not two for each byte", digits.len()));
        }
        let nibble = |digit: char| digit.to_digit(16).map_or((0, 0), |value| (value as u8, 0xf));
        let (mut bytes, mut mask) = (Vec::new(), Vec::new());
        for pair in digits.chunks_exact(2) {
            let ((high, high_mask), (low, low_mask)) = (nibble(pair[0]), nibble(pair[1]));
            bytes.push(high << 4 | low);
            mask.push(high_mask << 4 | low_mask);
        }
        if bytes.len() > MAX_CAPTURE {
            return refuse(format!("is longer than the {MAX_CAPTURE} bytes that are looked at"));
        }
        Ok(Self { bytes, mask })
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "description": "Bytes in hexadecimal; ? is a digit that does not count.",
            "anyOf": [
                {"type": "string", "pattern": "^[0-9a-fA-F?][0-9a-fA-F? :_]+$"},
                {"type": "integer", "minimum": 10},
            ],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn piece(hex: &str, place: PiecePlace) -> PayloadTerm {
        let HexBytes { bytes, mask } = HexBytes::parse(hex).unwrap();
        PayloadTerm { any: vec![PayloadPattern { all: vec![PayloadPiece { bytes, mask, place }] }] }
    }

    #[test]
    fn bytes_are_compared_under_the_mask_and_never_beyond_the_end() {
        let at = piece("de ?? b?", PiecePlace::At(1));
        assert!(at.matches(&[0, 0xde, 7, 0xb9]) && !at.matches(&[0, 0xde, 7, 0xc9]));
        assert!(!at.matches(&[0, 0xde, 7]) && !at.matches(&[]));
        let within = piece("425559", PiecePlace::Within(5));
        assert!(
            within.matches(b"..BUY..") && !within.matches(b"...BUY.") && !within.matches(b"BU")
        );
        assert_eq!((at.reach(), within.reach()), (4, 5));
    }

    #[test]
    fn pieces_are_anded_and_patterns_ored() {
        let both = PayloadPattern {
            all: [piece("01", PiecePlace::At(0)), piece("02", PiecePlace::At(1))]
                .into_iter()
                .flat_map(|term| term.any)
                .flat_map(|pattern| pattern.all)
                .collect(),
        };
        let other = piece("ff", PiecePlace::At(0)).any.remove(0);
        let term = PayloadTerm { any: vec![both, other] };
        assert!(term.matches(&[1, 2]) && term.matches(&[0xff]));
        assert!(!term.matches(&[1, 3]) && !term.matches(&[2, 2]));
    }

    #[test]
    fn bad_hexadecimal_says_why() {
        assert!(HexBytes::parse("abc").unwrap_err().contains("3 digits"));
        assert!(HexBytes::parse("0x01").unwrap_err().contains("\"x\""));
        assert!(HexBytes::parse("").is_err());
    }

    proptest! {
        #[test]
        fn a_piece_matches_as_the_loop_over_offsets_does(
            payload in prop::collection::vec(0u8..3, 0..12),
            wanted in prop::collection::vec((0u8..3, prop::sample::select(vec![0u8, 1, 255])), 1..4),
            place in 0u16..14,
            within: bool,
        ) {
            let there = |offset: usize| {
                wanted.iter().enumerate().all(|(i, (byte, mask))| {
                    payload.get(offset + i).is_some_and(|found| found & mask == byte & mask)
                })
            };
            let naive = match within {
                true => (0..usize::from(place)).any(|o| o + wanted.len() <= usize::from(place) && there(o)),
                false => there(usize::from(place)),
            };
            let piece = PayloadPiece {
                bytes: wanted.iter().map(|(byte, mask)| byte & mask).collect(),
                mask: wanted.iter().map(|(_, mask)| *mask).collect(),
                place: if within { PiecePlace::Within(place) } else { PiecePlace::At(place) },
            };
            prop_assert_eq!(piece.matches(&payload), naive);
        }
    }
}
