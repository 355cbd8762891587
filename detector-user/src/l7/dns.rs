//! DNS messages (RFC 1035): header, questions and the response code, over UDP and TCP. Records are
//! walked only to find EDNS's half of the response code.
//!
//! What is damaged gives what stands before the damage, as a dissector would print it.

mod name;
mod print;

use super::fact::{DnsMessage, DnsQuestion};
use super::{Fact, Step};

/// Header: id, flags, four counts (RFC 1035 section 4.1.1).
pub(crate) const HEADER: usize = 12;
/// The OPT pseudo-record's type (RFC 6891 section 6.1.1).
const OPT: u16 = 41;
/// Of a longer response over TCP (a zone transfer) only so much is read: the questions are in front.
const MAX_RESPONSE: usize = 4096;

/// Reads a message that came in one datagram; none if not even its header is whole.
pub fn message(bytes: &[u8]) -> Option<DnsMessage> {
    let flags = u16_at(bytes, 2)?;
    let counts = [u16_at(bytes, 4)?, u16_at(bytes, 6)?, u16_at(bytes, 8)?, u16_at(bytes, 10)?];
    let response = flags & 0x8000 != 0;
    let (questions, end) = questions(bytes, counts[0]);
    let records = u32::from(counts[1]) + u32::from(counts[2]) + u32::from(counts[3]);
    let extended = match end {
        Some(at) if response => extended_rcode(bytes, at, records).unwrap_or(0),
        Some(_) | None => 0,
    };
    Some(DnsMessage {
        id: u16_at(bytes, 0)?,
        response,
        opcode: (flags >> 11 & 0xf) as u8,
        rcode: u16::from(extended) << 4 | flags & 0xf,
        questions,
    })
}

/// Whether a datagram on a port that says nothing may be read as DNS: a plain query with one
/// question, or a response to one, with counts of records that occur.
pub fn looks_like(bytes: &[u8]) -> bool {
    let field = |at| u16_at(bytes, at).unwrap_or(u16::MAX);
    let (flags, asked, answers, authority, additional) =
        (field(2), field(4), field(6), field(8), field(10));
    let standard = flags & 0x7800 == 0;
    let counted = match flags & 0x8000 {
        0 => asked == 1 && answers == 0 && authority == 0,
        _ => asked <= 1 && answers <= 100 && authority <= 10,
    };
    bytes.len() > HEADER && standard && counted && additional <= 10
}

/// Whether a stream on a port that says nothing may be read as DNS over TCP: a length that fits a
/// message which [`looks_like`] one and whose question, as far as it is there, is whole.
pub fn looks_like_stream(bytes: &[u8]) -> bool {
    let Some(length) = u16_at(bytes, 0).map(usize::from) else { return false };
    let message = bytes.get(2..).unwrap_or_default();
    let message = message.get(..length).unwrap_or(message);
    length > HEADER
        && looks_like(message)
        && questions(message, u16_at(message, 4).unwrap_or(0)).1.is_some()
}

/// One direction of DNS over TCP (RFC 7766): messages with two bytes of length before each.
#[derive(Debug, Default)]
pub struct Stream;

impl Stream {
    /// Reads one message.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        let Some(length) = u16_at(bytes, 0).map(usize::from) else { return Step::More };
        let there = bytes.get(2..).unwrap_or_default();
        let wanted = match there.get(2) {
            None if length > 2 => return Step::More,
            Some(flags) if flags & 0x80 != 0 => length.min(MAX_RESPONSE),
            Some(_) | None => length,
        };
        let Some(read) = there.get(..wanted) else { return Step::More };
        Step::Took {
            consumed: 2 + length as u64,
            facts: message(read).map(Fact::Dns).into_iter().collect(),
        }
    }
}

/// The questions that are whole, and where the records begin if all of them are.
fn questions(bytes: &[u8], count: u16) -> (Vec<DnsQuestion>, Option<usize>) {
    let mut questions = Vec::new();
    let mut at = HEADER;
    let mut budget = name::Budget::default();
    for _ in 0..count {
        let Some((question, end)) = question(bytes, at, &mut budget) else {
            return (questions, None);
        };
        questions.push(question);
        at = end;
    }
    (questions, Some(at))
}

fn question(bytes: &[u8], at: usize, budget: &mut name::Budget) -> Option<(DnsQuestion, usize)> {
    let (name, at) = name::read(bytes, at, budget)?;
    let question = DnsQuestion { name, qtype: u16_at(bytes, at)?, qclass: u16_at(bytes, at + 2)? };
    Some((question, at + 4))
}

/// The upper eight bits of the response code: the first byte of the OPT record's TTL field
/// (RFC 6891 section 6.1.3).
fn extended_rcode(bytes: &[u8], mut at: usize, records: u32) -> Option<u8> {
    for _ in 0..records {
        at = name::skip(bytes, at)?;
        if u16_at(bytes, at)? == OPT {
            return bytes.get(at + 4).copied();
        }
        at += 10 + usize::from(u16_at(bytes, at + 8)?);
    }
    None
}

fn u16_at(bytes: &[u8], at: usize) -> Option<u16> {
    Some(u16::from_be_bytes(bytes.get(at..)?.first_chunk().copied()?))
}

#[cfg(test)]
mod tests;
