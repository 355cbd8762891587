//! Options (RFC 7252 section 3.1): each says how much its number is above that of the one before.

use crate::l7::fact::CoapMessage;
use crate::l7::text;

const URI_HOST: u32 = 3;
const OBSERVE: u32 = 6;
const URI_PORT: u32 = 7;
const URI_PATH: u32 = 11;
const URI_QUERY: u32 = 15;

/// What stands between options and payload.
const PAYLOAD_MARKER: u8 = 0xff;

/// The message with these options; none if they are broken.
pub(super) fn read(
    kind: Option<u8>,
    code: u8,
    token: &[u8],
    mut options: &[u8],
) -> Option<CoapMessage> {
    let mut message = CoapMessage {
        kind,
        code,
        token: token.to_vec(),
        path: String::new(),
        query: Vec::new(),
        observe: None,
        uri: String::new(),
    };
    let mut number = 0u32;
    while let Some((&first, rest)) = options.split_first() {
        if first == PAYLOAD_MARKER {
            break;
        }
        let (delta, rest) = extended(first >> 4, rest)?;
        let (length, rest) = extended(first & 0xf, rest)?;
        let (value, rest) = rest.split_at_checked(length as usize)?;
        number = number.saturating_add(delta);
        add(&mut message, number, value);
        options = rest;
    }
    Some(message)
}

fn add(message: &mut CoapMessage, number: u32, value: &[u8]) {
    match number {
        URI_HOST => {
            let host = text::utf8(value);
            message.uri.push_str(&match host.contains(':') {
                true => format!("coap://[{host}]"),
                false => format!("coap://{host}"),
            });
        }
        OBSERVE => message.observe = Some(uint(value)),
        URI_PORT => message.uri.push_str(&format!(":{}", uint(value))),
        URI_PATH => {
            let segment = text::utf8(value);
            message.path.extend(["/", &segment]);
            message.uri.extend(["/", &segment]);
        }
        URI_QUERY => message.query.push(text::utf8(value)),
        _ => {}
    }
}

/// A nibble, or what it says follows: one byte (and 13), or two (and 269); 15 is reserved.
fn extended(nibble: u8, rest: &[u8]) -> Option<(u32, &[u8])> {
    match nibble {
        13 => rest.split_first().map(|(&byte, rest)| (13 + u32::from(byte), rest)),
        14 => rest
            .split_first_chunk()
            .map(|(two, rest)| (269 + u32::from(u16::from_be_bytes(*two)), rest)),
        15 => None,
        nibble => Some((u32::from(nibble), rest)),
    }
}

/// A number in as few bytes as it needs (RFC 7252 section 3.2); longer than any is all ones.
fn uint(value: &[u8]) -> u32 {
    match value.len() {
        0..=4 => value.iter().fold(0, |sum, &byte| sum << 8 | u32::from(byte)),
        _ => u32::MAX,
    }
}
