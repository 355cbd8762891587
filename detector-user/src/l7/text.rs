//! Bytes of the wire as text.

use std::borrow::Cow;

/// UTF-8, with U+FFFD for what is not.
pub(crate) fn utf8(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// ASCII, with U+FFFD for each byte that is not.
pub(crate) fn ascii(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&b| if b.is_ascii() { char::from(b) } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

/// The text as dissectors print the value of a field: it ends where C's strings end, at a NUL, and what
/// moves the cursor is an escape as in C.
pub fn field(text: &str) -> Cow<'_, str> {
    let text = text.split('\0').next().unwrap_or_default();
    let moves = |byte: u8| matches!(byte, b'\x08' | b'\t' | b'\n' | b'\x0c' | b'\r');
    if !text.bytes().any(moves) {
        return Cow::Borrowed(text);
    }
    let mut out = String::with_capacity(text.len() + 8);
    for c in text.chars() {
        match c {
            '\x08' => out.push_str("\\b"),
            '\t' => out.push_str("\\t"),
            '\n' => out.push_str("\\n"),
            '\x0c' => out.push_str("\\f"),
            '\r' => out.push_str("\\r"),
            c => out.push(c),
        }
    }
    Cow::Owned(out)
}

/// As [`field`], of a field that dissectors take for ASCII: U+FFFD for each byte that is not.
pub fn ascii_field(text: &str) -> Cow<'_, str> {
    match field(text) {
        text if text.is_ascii() => text,
        text => {
            let mut out = String::with_capacity(text.len() * 2);
            for c in text.chars() {
                let count =
                    if c.is_ascii() || c == char::REPLACEMENT_CHARACTER { 1 } else { c.len_utf8() };
                let shown = if c.is_ascii() { c } else { char::REPLACEMENT_CHARACTER };
                out.extend(std::iter::repeat_n(shown, count));
            }
            Cow::Owned(out)
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_field_is_one_line() {
        assert_eq!(field("a\tb\r\nc\\ü\x1b"), "a\\tb\\r\\nc\\ü\x1b");
    }

    #[test]
    fn a_field_ends_at_nul() {
        assert_eq!(field("shop\0.example"), "shop");
        assert_eq!(field("\0"), "");
    }

    #[test]
    fn of_ascii_each_other_byte_is_replaced() {
        assert_eq!(ascii_field("aü\u{fffd}\tb"), "a\u{fffd}\u{fffd}\u{fffd}\\tb");
        assert_eq!(ascii_field("shop"), "shop");
    }
}
