//! Bytes of the wire as text, lossless where they are text.

use std::borrow::Cow;

/// UTF-8, with U+FFFD for what is not, and `\0` for NUL, which a log or a terminal would swallow.
pub(crate) fn utf8(bytes: &[u8]) -> String {
    without_nul(String::from_utf8_lossy(bytes))
}

/// ASCII, with U+FFFD for each byte that is not.
pub(crate) fn ascii(bytes: &[u8]) -> String {
    bytes
        .iter()
        .map(|&b| if b.is_ascii() { char::from(b) } else { char::REPLACEMENT_CHARACTER })
        .collect()
}

fn without_nul(text: Cow<'_, str>) -> String {
    match text.contains('\0') {
        true => text.replace('\0', "\\0"),
        false => text.into_owned(),
    }
}
