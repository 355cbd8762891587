//! The PROXY protocol (HAProxy, "The PROXY protocol", versions 1 and 2): what a load balancer says
//! before the client's own first bytes. It is passed over; whom it names is not asked for.

use super::{Facts, Step};

/// How version 1 begins; the line ends with CR LF.
const LINE: &[u8] = b"PROXY ";
/// Longer lines are not allowed (section 2.1).
const MAX_LINE: usize = 107;
/// How version 2 begins (section 2.2). Version and command, family, and a length follow.
const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";
const FIXED: usize = 16;

/// Whether a stream begins so.
pub fn looks_like(bytes: &[u8]) -> bool {
    may_begin(bytes) && (bytes.starts_with(LINE) || bytes.starts_with(SIGNATURE))
}

/// Whether too few bytes are there to tell.
pub fn may_become(bytes: &[u8]) -> bool {
    may_begin(bytes)
        && !looks_like(bytes)
        && (LINE.starts_with(bytes) || SIGNATURE.starts_with(bytes))
}

/// Whether the first byte does not tell that it is something else, as it nearly always does.
fn may_begin(bytes: &[u8]) -> bool {
    bytes.first().is_none_or(|first| *first == LINE[0] || *first == SIGNATURE[0])
}

/// Reads the header, which stands alone.
#[derive(Debug, Default)]
pub struct Header {
    read: bool,
}

impl Header {
    /// Whether it is read: what follows is what the client sent.
    pub fn is_read(&self) -> bool {
        self.read
    }

    /// Reads the header.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if may_become(bytes) {
            return Step::More;
        }
        match if bytes.starts_with(SIGNATURE) { binary(bytes) } else { line(bytes) } {
            Length::Known(length) => {
                self.read = true;
                Step::Took { consumed: length as u64, facts: Facts::new() }
            }
            Length::Unfinished => Step::More,
            Length::Wrong => Step::Not,
        }
    }
}

/// How long the header is.
enum Length {
    Known(usize),
    /// The bytes end before it is said.
    Unfinished,
    /// It is none.
    Wrong,
}

/// How long version 1 is.
fn line(bytes: &[u8]) -> Length {
    if !bytes.starts_with(LINE) {
        return Length::Wrong;
    }
    let there = bytes.get(..MAX_LINE).unwrap_or(bytes);
    match there.windows(2).position(|pair| pair == b"\r\n") {
        Some(at) => Length::Known(at + 2),
        None if bytes.len() < MAX_LINE => Length::Unfinished,
        None => Length::Wrong,
    }
}

/// How long version 2 is.
fn binary(bytes: &[u8]) -> Length {
    match *bytes.get(SIGNATURE.len()..).unwrap_or_default() {
        [version, ..] if version >> 4 != 2 => Length::Wrong,
        [_, _, high, low, ..] => {
            Length::Known(FIXED + usize::from(u16::from_be_bytes([high, low])))
        }
        _ => Length::Unfinished,
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::l7::drive;

    const V1: &[u8] = b"PROXY TCP4 192.0.2.1 192.0.2.2 40000 443\r\n";
    const V2: &[u8] =
        b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c\xc0\0\x02\x01\xc0\0\x02\x02\x9c\x40\x01\xbb";

    fn length(bytes: &[u8]) -> Option<u64> {
        match Header::default().step(bytes) {
            Step::Took { consumed, .. } => Some(consumed),
            Step::More | Step::Not => None,
        }
    }

    #[test]
    fn both_versions_are_passed_over() {
        for header in [V1, V2] {
            assert!(looks_like(header));
            assert_eq!(
                length(&[header, b"GET / HTTP/1.1\r\n\r\n"].concat()),
                Some(header.len() as u64)
            );
        }
    }

    #[test]
    fn what_only_begins_so_is_refused() {
        assert!(may_become(b"PRO") && may_become(b"\r\n"));
        assert!(!may_become(b"PROPFIND / HTTP/1.1\r\n") && !looks_like(b"PROPFIND / HTTP/1.1\r\n"));
        assert_eq!(Header::default().step(&[&b"PROXY "[..], &[b'x'; 200]].concat()), Step::Not);
        assert_eq!(Header::default().step(b"\r\n\r\n\0\r\nQUIT\n\x31\x11\0\0"), Step::Not);
        assert_eq!(Header::default().step(b"PROXY TCP4"), Step::More);
    }

    proptest! {
        #[test]
        fn any_split_reads_the_same(cuts in drive::cuts(), two in any::<bool>()) {
            let stream = if two { V2 } else { V1 };
            let mut header = Header::default();
            let (facts, whole) = drive::drive(|bytes| header.step(bytes), drive::split(stream, &cuts));
            prop_assert!(facts.is_empty() && whole);
            prop_assert!(header.is_read());
        }
    }
}
