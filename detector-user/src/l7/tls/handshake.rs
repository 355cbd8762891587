//! Handshake messages (RFC 8446 section 4): put together from records, or from CRYPTO frames.

use super::hello::{self, Carrier};
use crate::l7::fact::ClientHello;

/// Kind and length of a message.
pub(super) const HEADER: usize = 4;
/// Kept of one ClientHello, header included. A post-quantum one has 1.8 KB; of a longer one only
/// this much is read.
const MAX_HELLO: usize = 16 * 1024;
/// Nobody sends longer messages; what says so is encrypted, or no TLS.
const MAX_MESSAGE: usize = 0xffff;
const CLIENT_HELLO: u8 = 1;

/// The header of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Header {
    kind: u8,
    length: usize,
}

impl Header {
    pub(super) fn read(bytes: &[u8]) -> Option<Self> {
        let [kind, high, middle, low, ..] = *bytes else { return None };
        let length = u32::from_be_bytes([0, high, middle, low]) as usize;
        Some(Self { kind, length })
    }

    pub(super) fn is_hello(self) -> bool {
        self.kind == CLIENT_HELLO
    }

    /// Length with the header.
    pub(super) fn whole(self) -> usize {
        HEADER + self.length
    }

    /// Whether a message begins like this (IANA, "TLS HandshakeType"), or only ciphertext does.
    pub(super) fn is_plausible(self) -> bool {
        let known = matches!(self.kind, 0..=6 | 8 | 11..=16 | 20..=25 | 67);
        known && self.length <= MAX_MESSAGE
    }
}

/// The handshake messages of one direction, of which only ClientHellos are kept.
#[derive(Debug)]
pub(crate) struct Handshake {
    carrier: Carrier,
    /// The beginning of the message that is coming.
    message: Vec<u8>,
    /// What is still to come of a message that is of no interest.
    skip: usize,
}

/// What follows is no handshake message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Garbage;

impl Handshake {
    pub(crate) fn new(carrier: Carrier) -> Self {
        Self { carrier, message: Vec::new(), skip: 0 }
    }

    /// Whether the next byte begins a message.
    pub(super) fn is_between_messages(&self) -> bool {
        self.message.is_empty() && self.skip == 0
    }

    /// Bytes that are kept until more come.
    pub(crate) fn waiting(&self) -> usize {
        self.message.len()
    }

    /// Takes the next bytes; the hellos that they complete go to `hellos`.
    pub(crate) fn push(
        &mut self,
        mut bytes: &[u8],
        hellos: &mut Vec<ClientHello>,
    ) -> Result<(), Garbage> {
        while !bytes.is_empty() {
            let skipped = self.skip.min(bytes.len());
            self.skip -= skipped;
            bytes = &bytes[skipped..];
            bytes = self.fill(bytes);
            let Some(header) = Header::read(&self.message) else { continue };
            if !header.is_plausible() {
                self.message.clear();
                return Err(Garbage);
            }
            if !header.is_hello() {
                self.message.clear();
                self.skip = header.length;
            } else if self.message.len() == header.whole().min(MAX_HELLO) {
                hellos.extend(self.cut());
                self.skip = header.whole().saturating_sub(MAX_HELLO);
            }
        }
        Ok(())
    }

    /// Ends the hello that is coming: what it says so far.
    pub(crate) fn cut(&mut self) -> Option<ClientHello> {
        let message = std::mem::take(&mut self.message);
        let header = Header::read(&message).filter(|header| header.is_hello())?;
        hello::read(message.get(HEADER..)?, header.length, self.carrier)
    }

    /// Moves bytes to the message, to its header's or its own end; what is left comes back.
    fn fill<'a>(&mut self, bytes: &'a [u8]) -> &'a [u8] {
        let header = Header::read(&self.message);
        let end = header.map_or(HEADER, |header| header.whole().min(MAX_HELLO));
        let taken = end.saturating_sub(self.message.len()).min(bytes.len());
        let (front, back) = bytes.split_at(taken);
        self.message.extend_from_slice(front);
        back
    }
}
