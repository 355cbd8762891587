//! QUIC: the ClientHello inside a client's Initials (RFC 9000, RFC 9001; version 2: RFC 9369; and
//! drafts from 22 on). Their keys are made from the connection id that the first of them goes to,
//! so whoever sees the packet can read it.
//!
//! [`Initials`] reads the datagrams of one direction of a flow, or of both: a server's Initials
//! do not open with a client's keys. After Version Negotiation or a Retry the client says its hello
//! again, under other keys; it is still the same connection, so the hello counts once. A payload that holds several datagrams (a
//! UDP GSO super-packet) reads like coalesced packets, because every Initial says its length.

mod frame;
mod header;
mod keys;
mod stream;
mod version;

#[cfg(test)]
mod tests;

use std::{collections::VecDeque, ops::AddAssign};

use self::{
    frame::CryptoFrames,
    header::{Initial, Packet, Unreadable},
    keys::{Keys, Opened},
    stream::CryptoStream,
    version::{Frames, Scheme, schemes},
};
use super::{Fact, fact::QuicHello};

/// Connections that one flow is followed for; a client may use its port for many.
const MAX_CONNECTIONS: usize = 4;
/// Initials of one datagram that may fail to open before the rest is left alone.
const MAX_FAILURES: usize = 2;

/// Whether a datagram begins with a long header of a QUIC version whose Initials can be read.
pub fn looks_like(datagram: &[u8]) -> bool {
    header::is_known(datagram)
}

/// Packets that were not read, by reason.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Unread {
    /// A long header of a version that is not known.
    pub version: u64,
    /// The datagram ends before the packet does.
    pub cut: u64,
    /// Not under a client's keys: a server's Initial, or one of a connection whose first packet
    /// was not seen.
    pub keys: u64,
    /// CRYPTO data too far ahead of what is missing.
    pub too_far: u64,
}

impl AddAssign for Unread {
    fn add_assign(&mut self, more: Self) {
        let Self { version, cut, keys, too_far } = more;
        self.version += version;
        self.cut += cut;
        self.keys += keys;
        self.too_far += too_far;
    }
}

/// The Initials of the clients of one flow.
#[derive(Default)]
pub struct Initials {
    /// The latest last.
    connections: VecDeque<Connection>,
    /// Ids that servers gave in Retries, the latest last.
    retries: VecDeque<Vec<u8>>,
    unread: Unread,
}

struct Connection {
    version: u32,
    scheme: &'static Scheme,
    dcid: Vec<u8>,
    keys: Keys,
    largest: Option<u64>,
    stream: CryptoStream,
}

impl Initials {
    /// Reads one datagram; the hellos that it completes come back.
    pub fn datagram(&mut self, datagram: &[u8]) -> Vec<Fact> {
        let mut facts = Vec::new();
        let mut rest = datagram;
        let mut of = None;
        let mut failures = 0;
        while failures < MAX_FAILURES {
            let packet = match header::next(&mut rest) {
                Ok(packet) => packet,
                Err(Unreadable::Nothing) => break,
                Err(Unreadable::Version) => {
                    self.unread.version += 1;
                    break;
                }
                Err(Unreadable::Cut) => {
                    self.unread.cut += 1;
                    break;
                }
            };
            let dcid = match packet {
                Packet::Initial(Initial { dcid, .. }) | Packet::Other { dcid } => dcid,
                Packet::Retry { scid } => {
                    self.remember_retry(scid);
                    break;
                }
            };
            // Packets in one datagram go to one connection (RFC 9000 section 12.2); anything else
            // is padding that looks like a packet.
            if *of.get_or_insert(dcid) != dcid {
                break;
            }
            if let Packet::Initial(initial) = packet
                && !self.initial(&initial, &mut facts)
            {
                self.unread.keys += 1;
                failures += 1;
            }
            // Datagrams in a super-packet may be padded with zeros behind their packets.
            let zeros = rest.iter().take_while(|byte| **byte == 0).count();
            rest = &rest[zeros..];
        }
        facts
    }

    /// Bytes that are kept until more come.
    pub(crate) fn kept(&self) -> usize {
        let connections = self.connections.iter();
        let connections = connections.map(|it| size_of::<Connection>() + it.stream.waiting());
        connections.sum::<usize>() + self.retries.iter().map(Vec::len).sum::<usize>()
    }

    /// Bytes of messages that are cut over packets.
    pub(crate) fn waiting(&self) -> usize {
        self.connections.iter().map(|it| it.stream.waiting()).sum()
    }

    /// What was not read since the last call.
    pub fn take_unread(&mut self) -> Unread {
        std::mem::take(&mut self.unread)
    }

    /// Reads an Initial; `false` if no key opens it.
    fn initial(&mut self, initial: &Initial<'_>, facts: &mut Vec<Fact>) -> bool {
        let Some((at, opened)) = self.open_known(initial).or_else(|| self.open_new(initial)) else {
            return false;
        };
        let Some(connection) = self.connections.get_mut(at) else { return false };
        connection.largest = connection.largest.max(Some(opened.number));
        let mut hellos = Vec::new();
        let frames = connection.scheme.frames;
        for (offset, data) in CryptoFrames::new(&opened.payload, frames) {
            // Google's hellos fit a packet. One sent again counts again, as dissectors have it, which
            // put no stream together here.
            if frames == Frames::Google && offset == 0 {
                connection.stream = CryptoStream::new();
            }
            if !connection.stream.add(offset, data, &mut hellos) {
                self.unread.too_far += 1;
            }
        }
        let version = initial.version;
        facts.extend(hellos.into_iter().map(|hello| Fact::Quic(QuicHello { version, hello })));
        true
    }

    /// Opens it as one of a connection that is known. Its id may be another by now: the server
    /// chooses one, and the keys stay (RFC 9001 section 5.2).
    fn open_known(&self, initial: &Initial<'_>) -> Option<(usize, Opened)> {
        self.connections.iter().enumerate().rev().find_map(|(at, connection)| {
            let opened = (connection.version == initial.version).then(|| {
                connection.keys.open(initial.packet, initial.number_at, connection.largest)
            })?;
            Some((at, opened?))
        })
    }

    /// Opens it as the first under its keys.
    fn open_new(&mut self, initial: &Initial<'_>) -> Option<(usize, Opened)> {
        let Initial { version, dcid, packet, number_at, .. } = *initial;
        if self.connections.iter().any(|known| known.dcid == dcid && known.version == version) {
            return None;
        }
        let (scheme, keys, opened) = schemes(version).iter().find_map(|scheme| {
            let keys = Keys::of_client(scheme, dcid)?;
            let opened = keys.open(packet, number_at, None)?;
            Some((scheme, keys, opened))
        })?;
        let stream = self.before_again(initial, &opened).unwrap_or_else(CryptoStream::new);
        if self.connections.len() == MAX_CONNECTIONS {
            self.connections.pop_front();
        }
        let dcid = dcid.to_vec();
        let largest = None;
        self.connections.push_back(Connection { version, scheme, dcid, keys, largest, stream });
        Some((self.connections.len() - 1, opened))
    }

    /// What the client of this Initial said before, if it was made to begin again. A client that
    /// opens another connection sends to another id, and counts its packets from the beginning.
    fn before_again(&mut self, initial: &Initial<'_>, opened: &Opened) -> Option<CryptoStream> {
        let told = self.retries.iter().any(|scid| scid == initial.dcid);
        let at = self.connections.iter().rposition(|earlier| {
            // Version Negotiation; ids of connections that differ are random.
            let renegotiated = earlier.dcid == initial.dcid && earlier.version != initial.version;
            // A Retry gives a token, and packet numbers go on (RFC 9000 section 17.2.5.3).
            let goes_on = earlier.largest.is_some_and(|largest| opened.number > largest);
            let retried = told || initial.has_token && goes_on;
            renegotiated || retried && earlier.version == initial.version
        })?;
        Some(self.connections.remove(at)?.stream)
    }

    fn remember_retry(&mut self, scid: &[u8]) {
        if self.retries.len() == MAX_CONNECTIONS {
            self.retries.pop_front();
        }
        self.retries.push_back(scid.to_vec());
    }
}
