//! Properties (MQTT 5 section 2.2.2): an identifier says what type of value follows.

use super::packet::{string, varint};

const TOPIC_ALIAS: u8 = 0x23;

/// The properties that begin here, and what is behind them; none if they are not whole.
pub(super) fn split(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, head) = varint(bytes).ok()??;
    bytes.get(head..)?.split_at_checked(length as usize)
}

/// The topic alias among these properties; 0 is not one.
pub(super) fn topic_alias(mut properties: &[u8]) -> Option<u16> {
    while let Some((&id, value)) = properties.split_first() {
        if id == TOPIC_ALIAS {
            let alias = u16::from_be_bytes(*value.first_chunk()?);
            return (alias != 0).then_some(alias);
        }
        properties = behind(id, value)?;
    }
    None
}

/// What follows the value of this property (MQTT 5 table 2-4); none if the property is not known.
fn behind(id: u8, value: &[u8]) -> Option<&[u8]> {
    match id {
        0x01 | 0x17 | 0x19 | 0x24 | 0x25 | 0x28 | 0x29 | 0x2a => value.get(1..),
        0x13 | 0x21 | 0x22 | 0x23 => value.get(2..),
        0x02 | 0x11 | 0x18 | 0x27 => value.get(4..),
        0x0b => value.get(varint(value).ok()??.1..),
        0x03 | 0x08 | 0x09 | 0x12 | 0x15 | 0x16 | 0x1a | 0x1c | 0x1f => {
            string(value).map(|(_, rest)| rest)
        }
        0x26 => string(string(value)?.1).map(|(_, rest)| rest),
        _ => None,
    }
}
