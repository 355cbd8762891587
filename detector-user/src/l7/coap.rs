//! CoAP (RFC 7252) over datagrams, and over TCP (RFC 8323): code, token, and those options that
//! rules can name.

mod exchange;
mod option;

pub use exchange::Exchanges;

use super::fact::CoapMessage;

/// Reads a message that came in one datagram; none if it is not whole.
///
/// A response says nothing about what was asked: [`Exchanges::datagram`] adds that.
pub fn message(bytes: &[u8]) -> Option<CoapMessage> {
    let [first, code, _, _] = *bytes.first_chunk()?;
    let (token, options) = bytes.get(4..)?.split_at_checked(usize::from(first & 0xf))?;
    option::read(Some(first >> 4 & 3), code, token, options)
}

/// Whether a datagram on a port that says nothing may be read as CoAP: version 1, a token of at most
/// eight bytes, a code that is defined, and options that are whole.
pub fn looks_like(bytes: &[u8]) -> bool {
    let Some([first, code, _, _]) = bytes.first_chunk() else { return false };
    let empty = *code == 0 && bytes.len() == 4;
    let request = (1..=7).contains(code);
    let response = matches!(code >> 5, 2 | 4 | 5);
    first >> 6 == 1
        && first & 0xf <= 8
        && (empty || request || response)
        && message(bytes).is_some()
}

/// A message's frame on a stream (RFC 8323 section 3.2).
struct Frame {
    /// Bytes before the code.
    head: usize,
    /// Bytes of token.
    token: usize,
    /// Bytes of options and payload.
    body: u64,
}

impl Frame {
    /// None if the length is not there yet.
    fn read(bytes: &[u8]) -> Option<Frame> {
        let first = *bytes.first()?;
        let (head, body) = match first >> 4 {
            13 => (2, 13 + u64::from(*bytes.get(1)?)),
            14 => (3, 269 + u64::from(u16::from_be_bytes(*bytes.get(1..)?.first_chunk()?))),
            15 => (5, 65805 + u64::from(u32::from_be_bytes(*bytes.get(1..)?.first_chunk()?))),
            length => (1, u64::from(length)),
        };
        Some(Frame { head, token: usize::from(first & 0xf), body })
    }

    fn length(&self) -> u64 {
        (self.head + 1 + self.token) as u64 + self.body
    }
}

#[cfg(test)]
mod tests;
