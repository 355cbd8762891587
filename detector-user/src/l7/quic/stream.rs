//! The bytes of CRYPTO frames in order (RFC 9000 section 7.5), whatever order they came in.

use std::collections::BTreeMap;

use crate::l7::{
    fact::ClientHello,
    tls::{Carrier, Handshake},
};

/// How far ahead of what is missing bytes are kept.
const WINDOW: u64 = 16 * 1024;
/// Pieces that wait for what is missing before them. Chromium cuts a hello into a few dozen.
const MAX_PIECES: usize = 1024;

/// The handshake bytes of one client.
#[derive(Debug)]
pub(super) struct CryptoStream {
    handshake: Handshake,
    /// Up to here the bytes are read.
    next: u64,
    /// Pieces beyond, by offset.
    waiting: BTreeMap<u64, Vec<u8>>,
    waiting_bytes: usize,
}

impl CryptoStream {
    pub(super) fn new() -> Self {
        Self {
            handshake: Handshake::new(Carrier::Quic),
            next: 0,
            waiting: BTreeMap::new(),
            waiting_bytes: 0,
        }
    }

    /// Takes a frame's data. Bytes that came before win. `false` if they had to be dropped.
    pub(super) fn add(&mut self, offset: u64, data: &[u8], hellos: &mut Vec<ClientHello>) -> bool {
        if offset > self.next {
            return self.keep(offset, data);
        }
        self.read(offset, data, hellos);
        while let Some(piece) = self.waiting.first_entry()
            && *piece.key() <= self.next
        {
            let (offset, data) = piece.remove_entry();
            self.waiting_bytes -= data.len();
            self.read(offset, &data, hellos);
        }
        true
    }

    /// Bytes that are kept until more come.
    pub(super) fn waiting(&self) -> usize {
        self.waiting_bytes + self.handshake.waiting()
    }

    fn read(&mut self, offset: u64, data: &[u8], hellos: &mut Vec<ClientHello>) {
        let seen = usize::try_from(self.next - offset).unwrap_or(usize::MAX);
        let Some(new) = data.get(seen..) else { return };
        self.next += new.len() as u64;
        // Garbage is for the server to complain about; what follows it may be a hello again.
        let _ = self.handshake.push(new, hellos);
    }

    fn keep(&mut self, offset: u64, data: &[u8]) -> bool {
        let known = self.waiting.get(&offset).map_or(0, Vec::len);
        if data.len() <= known {
            return true;
        }
        let fits = offset - self.next + data.len() as u64 <= WINDOW
            && self.waiting_bytes - known + data.len() <= WINDOW as usize
            && (known > 0 || self.waiting.len() < MAX_PIECES);
        if fits {
            self.waiting_bytes += data.len() - known;
            self.waiting.insert(offset, data.to_vec());
        }
        fits
    }
}
