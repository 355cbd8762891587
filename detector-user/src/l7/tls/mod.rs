//! TLS over TCP: the ClientHello, wherever it is in clear.
//!
//! [`Records`] reads one direction of a connection. Everything but handshake records is skipped by
//! its length, so that a second hello (after HelloRetryRequest, or in a renegotiation) is found;
//! encrypted handshake records are known by what cannot begin a message.

mod handshake;
mod hello;
mod ja4;
mod vector;

#[cfg(test)]
mod tests;

pub(crate) use handshake::Handshake;
pub(crate) use hello::Carrier;

use self::handshake::Header;
use super::{Fact, Facts, Step, fact::ClientHello};

/// Content type, version and length (RFC 8446 section 5.1).
const RECORD_HEADER: usize = 5;
/// Ciphertext may be this much longer than a plaintext record (RFC 5246 section 6.2.3).
const MAX_RECORD: u16 = (1 << 14) + 2048;
/// A handshake record shorter than this cannot be encrypted: a MAC or tag has 16 bytes.
const MIN_ENCRYPTED: usize = 16;
/// What of a handshake record says whether it is encrypted.
const PEEK: usize = 6;

/// Content types (IANA, "TLS ContentType").
mod content {
    pub(super) const CHANGE_CIPHER_SPEC: u8 = 20;
    pub(super) const ALERT: u8 = 21;
    pub(super) const HANDSHAKE: u8 = 22;
    pub(super) const APPLICATION_DATA: u8 = 23;
    pub(super) const HEARTBEAT: u8 = 24;
    pub(super) const TLS12_CID: u8 = 25;
}

/// Whether a stream, or what follows a gap in it, begins with a TLS record: a few bytes say it,
/// five are enough.
pub fn looks_like(bytes: &[u8]) -> bool {
    let kind = matches!(bytes.first(), Some(&content::HANDSHAKE | &content::APPLICATION_DATA));
    let version = match *bytes {
        [_, major, minor, ..] => is_version(u16::from_be_bytes([major, minor])),
        [_, major] => matches!(major, 1 | 3),
        _ => true,
    };
    let length = match *bytes {
        [_, _, _, high, low, ..] => (1..MAX_RECORD).contains(&u16::from_be_bytes([high, low])),
        _ => true,
    };
    kind && version && length
}

/// SSL 3.0 to TLS 1.2, which TLS 1.3 says too; 1.1 is China's TLCP (GB/T 38636).
fn is_version(version: u16) -> bool {
    matches!(version, 0x0300..=0x0303 | 0x0101)
}

/// Whether the first byte, if there is one, is a content type.
fn begins_record(bytes: &[u8]) -> bool {
    bytes
        .first()
        .is_none_or(|kind| (content::CHANGE_CIPHER_SPEC..=content::TLS12_CID).contains(kind))
}

/// The records of one direction.
#[derive(Debug)]
pub struct Records {
    handshake: Handshake,
    /// What is still to come of the handshake record that is being read.
    left: usize,
    /// What that record said so far; it counts once the record has come whole.
    held: Vec<ClientHello>,
    /// A record was read: this is TLS, whatever later records call their version.
    known: bool,
    /// ChangeCipherSpec passed: what follows is encrypted, but for a second hello of TLS 1.3.
    encrypted: bool,
}

impl Default for Records {
    fn default() -> Self {
        Self {
            handshake: Handshake::new(Carrier::Tcp),
            left: 0,
            held: Vec::new(),
            known: false,
            encrypted: false,
        }
    }
}

impl Records {
    /// Reads on. Hellos are kept inside: `bytes` need never hold more than a record's header and
    /// six bytes.
    pub fn step(&mut self, bytes: &[u8]) -> Step {
        if self.left > 0 {
            return if bytes.is_empty() { Step::More } else { self.fragment(bytes, 0) };
        }
        let Some((header, body)) = bytes.split_first_chunk::<RECORD_HEADER>() else {
            return if begins_record(bytes) { Step::More } else { Step::Not };
        };
        let [kind, major, minor, high, low] = *header;
        if !self.known && !is_version(u16::from_be_bytes([major, minor])) {
            return Step::Not;
        }
        let length = usize::from(u16::from_be_bytes([high, low]));
        let skipped = Step::Took { consumed: (RECORD_HEADER + length) as u64, facts: Facts::new() };
        match kind {
            content::CHANGE_CIPHER_SPEC => {
                self.known = true;
                self.encrypted = true;
                skipped
            }
            content::ALERT
            | content::APPLICATION_DATA
            | content::HEARTBEAT
            | content::TLS12_CID => {
                self.known = true;
                skipped
            }
            content::HANDSHAKE => {
                self.known = true;
                let peek = length.min(PEEK);
                if body.len() < peek {
                    Step::More
                } else if self.is_ciphertext(&body[..peek], length) {
                    skipped
                } else {
                    self.left = length;
                    self.fragment(body, RECORD_HEADER)
                }
            }
            _ => Step::Not,
        }
    }

    /// Bytes of a hello that are kept until more come.
    pub(crate) fn waiting(&self) -> usize {
        self.handshake.waiting()
    }

    /// Ends the stream where bytes were not captured: what a hello that has begun says so far.
    pub fn cut(&mut self) -> Option<Fact> {
        self.left = 0;
        let cut = self.handshake.cut();
        self.held.drain(..).next().or(cut).map(Fact::Tls)
    }

    /// Takes what is there of the handshake record, `before` bytes of header in front of it.
    fn fragment(&mut self, body: &[u8], before: usize) -> Step {
        let taken = self.left.min(body.len());
        self.left -= taken;
        let mut consumed = before + taken;
        if self.handshake.push(&body[..taken], &mut self.held).is_err() {
            // The rest of the record is skipped unread.
            consumed += std::mem::take(&mut self.left);
        }
        let hellos = if self.left == 0 { std::mem::take(&mut self.held) } else { Vec::new() };
        Step::Took { consumed: consumed as u64, facts: hellos.into_iter().map(Fact::Tls).collect() }
    }

    /// Whether a handshake record of `length` bytes that begins with `peek` is encrypted.
    fn is_ciphertext(&self, peek: &[u8], length: usize) -> bool {
        if length < MIN_ENCRYPTED || !self.handshake.is_between_messages() {
            return false;
        }
        let Some(header) = Header::read(peek) else { return false };
        if self.encrypted {
            // TLS 1.3 sends ChangeCipherSpec only for show, and after HelloRetryRequest a second
            // hello (RFC 8446 appendix D.4). Ciphertext hardly says its own length.
            let hello = header.is_hello() && header.whole() == length && peek.get(4) == Some(&3);
            return !hello;
        }
        // An explicit nonce (RFC 5288 section 3) that counts from zero.
        peek.iter().take(5).all(|byte| *byte == 0) || !header.is_plausible()
    }
}
