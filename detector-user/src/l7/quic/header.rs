//! Long headers (RFC 9000 section 17.2, RFC 8999) and the packets that share a datagram.

use super::version::{Scheme, schemes};

/// RFC 9000 section 17.2: longer connection ids are of no version that is known.
pub(super) const MAX_CID: usize = 20;
const LONG: u8 = 0x80;

/// An Initial: the whole packet, still protected.
#[derive(Debug)]
pub(super) struct Initial<'a> {
    pub(super) version: u32,
    pub(super) dcid: &'a [u8],
    /// It carries a token: the server's Retry, or an earlier connection, gave it one.
    pub(super) has_token: bool,
    pub(super) packet: &'a [u8],
    /// Where in the packet its number begins.
    pub(super) number_at: usize,
}

/// A packet of a datagram.
#[derive(Debug)]
pub(super) enum Packet<'a> {
    Initial(Initial<'a>),
    /// A server's Retry: the client shall begin again and send to this id.
    Retry {
        scid: &'a [u8],
    },
    /// 0-RTT or Handshake, of the connection `dcid`.
    Other {
        dcid: &'a [u8],
    },
}

/// Why no packet could be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Unreadable {
    /// Nothing of interest: a short header, Version Negotiation, or no QUIC at all.
    Nothing,
    /// A long header of a version whose Initials cannot be read.
    Version,
    /// A length says more than is there.
    Cut,
}

/// What every version has in front (RFC 8999 section 5.1).
struct Invariant<'a> {
    first: u8,
    version: u32,
    dcid: &'a [u8],
    scid: &'a [u8],
}

fn invariant<'a>(bytes: &mut &'a [u8]) -> Result<Invariant<'a>, Unreadable> {
    let first = *bytes.split_off_first().ok_or(Unreadable::Nothing)?;
    let version = bytes.split_off(..4).ok_or(Unreadable::Nothing)?;
    let version = version.iter().fold(0, |number, byte| number << 8 | u32::from(*byte));
    if first & LONG == 0 || version == 0 {
        return Err(Unreadable::Nothing);
    }
    let dcid = connection_id(bytes)?;
    let scid = connection_id(bytes)?;
    Ok(Invariant { first, version, dcid, scid })
}

fn connection_id<'a>(bytes: &mut &'a [u8]) -> Result<&'a [u8], Unreadable> {
    let length = usize::from(*bytes.split_off_first().ok_or(Unreadable::Nothing)?);
    if length > MAX_CID {
        return Err(Unreadable::Nothing);
    }
    bytes.split_off(..length).ok_or(Unreadable::Nothing)
}

/// Whether a datagram begins with a long header of a version that is known.
pub(super) fn is_known(mut bytes: &[u8]) -> bool {
    invariant(&mut bytes).is_ok_and(|header| !schemes(header.version).is_empty())
}

/// Takes the packet in front of `datagram`.
pub(super) fn next<'a>(datagram: &mut &'a [u8]) -> Result<Packet<'a>, Unreadable> {
    let whole = *datagram;
    let mut rest = whole;
    let Invariant { first, version, dcid, scid } = invariant(&mut rest)?;
    let scheme: &Scheme = schemes(version).first().ok_or(Unreadable::Version)?;
    let kind = first >> 4 & 3;
    if kind == scheme.retry {
        *datagram = &[]; // it says no length, so nothing can follow (RFC 9000 section 12.2)
        return Ok(Packet::Retry { scid });
    }
    let mut has_token = false;
    if kind == scheme.initial {
        let token = varint(&mut rest).ok_or(Unreadable::Cut)?;
        has_token = token > 0;
        take(&mut rest, token).ok_or(Unreadable::Cut)?;
    }
    let length = varint(&mut rest).ok_or(Unreadable::Cut)?;
    let number_at = whole.len() - rest.len();
    take(&mut rest, length).ok_or(Unreadable::Cut)?;
    let (packet, rest) = whole.split_at(whole.len() - rest.len());
    *datagram = rest;
    Ok(if kind == scheme.initial {
        Packet::Initial(Initial { version, dcid, has_token, packet, number_at })
    } else {
        Packet::Other { dcid }
    })
}

/// A variable-length integer (RFC 9000 section 16).
pub(super) fn varint(bytes: &mut &[u8]) -> Option<u64> {
    let first = *bytes.split_off_first()?;
    let more = bytes.split_off(..(1usize << (first >> 6)) - 1)?;
    Some(more.iter().fold(u64::from(first & 0x3f), |number, byte| number << 8 | u64::from(*byte)))
}

/// The next `length` bytes.
pub(super) fn take<'a>(bytes: &mut &'a [u8], length: u64) -> Option<&'a [u8]> {
    bytes.split_off(..usize::try_from(length).ok()?)
}
