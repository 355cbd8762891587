//! Lines that end with CR LF, LF, or a CR alone.

/// A line, and where the next one begins.
pub(super) struct Line<'a> {
    pub(super) text: &'a [u8],
    pub(super) end: usize,
}

impl<'a> Line<'a> {
    /// The first line; `None` if its end is not there yet.
    pub(super) fn first(bytes: &'a [u8]) -> Option<Self> {
        let text = bytes.iter().position(|byte| matches!(byte, b'\r' | b'\n'))?;
        let end = match (bytes[text], bytes.get(text + 1)) {
            (b'\r', Some(b'\n')) => text + 2,
            // Whether a LF follows is not known yet.
            (b'\r', None) => return None,
            _ => text + 1,
        };
        Some(Self { text: &bytes[..text], end })
    }

    /// The first line, even if its end is not there.
    pub(super) fn first_or_rest(bytes: &'a [u8]) -> Self {
        Self::first(bytes).unwrap_or_else(|| {
            let text = bytes.strip_suffix(b"\r").unwrap_or(bytes);
            Self { text, end: bytes.len() }
        })
    }
}

/// Without the empty lines in front (RFC 9112 section 2.2 lets them be ignored).
pub(super) fn without_empty_lines(mut bytes: &[u8]) -> &[u8] {
    while let [b'\r', b'\n', rest @ ..] | [b'\n', rest @ ..] = bytes {
        bytes = rest;
    }
    bytes
}

/// Where the head ends, behind its empty line.
pub(super) fn end_of_head(bytes: &[u8]) -> Option<usize> {
    let mut at = 0;
    loop {
        let rest = bytes.get(at..)?;
        // No LF will follow where lines end with CR alone, as the one before did: the next bytes, which
        // would tell, may never be shown.
        if rest == b"\r" && bytes[..at].ends_with(b"\r") {
            return Some(at + 1);
        }
        let line = Line::first(rest)?;
        at += line.end;
        if line.text.is_empty() {
            return Some(at);
        }
    }
}
