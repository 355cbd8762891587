//! Labels may hold any byte (RFC 2181 section 11). Here is how they are shown.

use unicode_general_category::{GeneralCategory, get_general_category};

/// Text stays as it is. Controls and what is invisible (a name that reverses the direction of
/// writing, say) become escapes as C has them; what is not UTF-8 becomes U+FFFD.
pub(super) fn printable(mut bytes: &[u8]) -> String {
    let mut out = String::with_capacity(bytes.len());
    while let Some((c, length)) = first_char(bytes) {
        show(c, length > 1, &mut out);
        bytes = bytes.get(length..).unwrap_or_default();
    }
    out
}

fn show(c: char, several_bytes: bool, out: &mut String) {
    let code = u32::from(c);
    match c {
        c if !is_invisible(c) => out.push(c),
        // Several bytes for one of ASCII are no shorter way to hide it.
        c if several_bytes || !c.is_ascii() => out.push_str(&match code {
            0..=0xffff => format!("\\u{code:04X}"),
            _ => format!("\\U{code:08X}"),
        }),
        '\x07' => out.push_str("\\a"),
        '\x08' => out.push_str("\\b"),
        '\x0c' => out.push_str("\\f"),
        '\n' => out.push_str("\\n"),
        '\r' => out.push_str("\\r"),
        '\t' => out.push_str("\\t"),
        '\x0b' => out.push_str("\\v"),
        _ => out.push_str(&format!("\\{code:03o}")),
    }
}

/// Controls, what only formats, and what is no character (yet).
fn is_invisible(c: char) -> bool {
    use GeneralCategory::{Control, Format, Surrogate, Unassigned};
    matches!(get_general_category(c), Control | Format | Surrogate | Unassigned)
}

/// The first character and how many bytes it has. As a dissector reads UTF-8: the lead byte says how
/// many bytes follow (up to five, as once was allowed), a sequence that breaks off counts as one.
fn first_char(bytes: &[u8]) -> Option<(char, usize)> {
    let lead = *bytes.first()?;
    let follow = match lead.leading_ones() {
        0 => return Some((char::from(lead), 1)),
        ones @ 2..=6 => ones as usize - 1,
        _ => return Some((char::REPLACEMENT_CHARACTER, 1)),
    };
    let tail = bytes.iter().skip(1).take(follow).take_while(|&&byte| byte & 0xc0 == 0x80);
    let (mut value, mut length) = (u32::from(lead) & (0x3f >> follow), 1);
    for &byte in tail {
        value = value << 6 | u32::from(byte & 0x3f);
        length += 1;
    }
    let c = if length == follow + 1 { char::from_u32(value) } else { None };
    Some((c.unwrap_or(char::REPLACEMENT_CHARACTER), length))
}
