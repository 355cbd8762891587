//! Control packets (MQTT 5 section 2, MQTT 3.1.1 section 2), each as far as it is whole.

use super::property;
use crate::l7::text;

/// Not MQTT.
#[derive(Debug)]
pub(super) struct Damaged;

/// The fixed header.
pub(super) struct Fixed {
    pub(super) kind: u8,
    pub(super) flags: u8,
    /// Its own length.
    pub(super) head: usize,
    /// The length of what follows.
    pub(super) remaining: u32,
}

impl Fixed {
    /// None if it is not whole yet.
    pub(super) fn read(bytes: &[u8]) -> Result<Option<Fixed>, Damaged> {
        let Some((&first, rest)) = bytes.split_first() else { return Ok(None) };
        Ok(varint(rest)?.map(|(remaining, length)| Fixed {
            kind: first >> 4,
            flags: first & 0xf,
            head: 1 + length,
            remaining,
        }))
    }
}

/// A variable byte integer (MQTT 5 section 1.5.5) of at most four bytes, and how many; none if it
/// goes on behind the end.
pub(super) fn varint(bytes: &[u8]) -> Result<Option<(u32, usize)>, Damaged> {
    let mut value = 0;
    for (i, &byte) in bytes.iter().take(4).enumerate() {
        value |= u32::from(byte & 0x7f) << (7 * i);
        if byte & 0x80 == 0 {
            return Ok(Some((value, i + 1)));
        }
    }
    if bytes.len() < 4 { Ok(None) } else { Err(Damaged) }
}

/// What a CONNECT says about the connection.
pub(super) struct Connect {
    pub(super) level: u8,
    pub(super) client_id: Option<String>,
}

/// Reads a CONNECT as far as its client id; none if that is not whole.
pub(super) fn connect(body: &[u8]) -> Option<Connect> {
    let (_protocol, rest) = string(body)?;
    let (&[level, _flags, _, _], rest) = rest.split_first_chunk()?;
    let rest = match level {
        super::LEVEL_5 => property::split(rest)?.1,
        _ => rest,
    };
    let (id, _) = string(rest)?;
    Some(Connect { level, client_id: (!id.is_empty()).then(|| text::utf8(id)) })
}

/// What a PUBLISH is about.
pub(super) struct Publish {
    /// None if it is empty, or not there.
    pub(super) topic: Option<String>,
    pub(super) alias: Option<u16>,
    /// All that stands before the payload was read.
    pub(super) whole: bool,
}

/// Reads a PUBLISH as far as its payload.
pub(super) fn publish(body: &[u8], flags: u8, properties: bool) -> Publish {
    let Some((topic, rest)) = string(body) else {
        return Publish { topic: None, alias: None, whole: false };
    };
    // The packet identifier is there from QoS 1 on.
    let rest = rest.get(if flags & 0x06 == 0 { 0 } else { 2 }..);
    let split = match properties {
        true => rest.and_then(property::split).map(|(all, _)| all),
        false => rest.map(|_| &[][..]),
    };
    Publish {
        topic: (!topic.is_empty()).then(|| text::utf8(topic)),
        alias: split.and_then(property::topic_alias),
        whole: split.is_some(),
    }
}

/// The topic filters of a SUBSCRIBE or UNSUBSCRIBE, each with so many bytes of `options` behind it.
pub(super) fn filters(body: &[u8], options: usize, properties: bool) -> Vec<String> {
    let mut filters = Vec::new();
    let rest = body.get(2..).unwrap_or_default();
    let mut rest = match properties {
        true => property::split(rest).map_or(&[][..], |(_, rest)| rest),
        false => rest,
    };
    while let Some((filter, more)) = string(rest) {
        if !filter.is_empty() {
            filters.push(text::utf8(filter));
        }
        rest = more.get(options..).unwrap_or_default();
    }
    filters
}

/// A string with two bytes of length before it, and what is behind.
pub(super) fn string(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::from(u16::from_be_bytes(*length)))
}
