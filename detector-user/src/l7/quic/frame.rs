//! Frames of an Initial (RFC 9000 sections 12.4 and 19).

use super::{
    header::{take, varint},
    version::Frames,
};

mod kind {
    pub(super) const PADDING: u64 = 0x00;
    pub(super) const PING: u64 = 0x01;
    pub(super) const ACK: u64 = 0x02;
    pub(super) const ACK_ECN: u64 = 0x03;
    pub(super) const CRYPTO: u64 = 0x06;
    pub(super) const CONNECTION_CLOSE: u64 = 0x1c;
    pub(super) const GOOGLE_PING: u64 = 0x07;
    pub(super) const GOOGLE_CRYPTO: u64 = 0x08;
}

/// The CRYPTO frames of a packet, as offset and data, up to the first frame that cannot be read.
pub(super) struct CryptoFrames<'a> {
    rest: &'a [u8],
    frames: Frames,
}

impl<'a> CryptoFrames<'a> {
    pub(super) fn new(payload: &'a [u8], frames: Frames) -> Self {
        Self { rest: payload, frames }
    }

    /// The next frame, if it is a CRYPTO frame; else it is passed over.
    fn frame(&mut self) -> Option<Option<(u64, &'a [u8])>> {
        let kind = varint(&mut self.rest)?;
        match (self.frames, kind) {
            (Frames::Ietf, kind::PADDING | kind::PING) => {}
            (Frames::Ietf, kind::ACK) => self.acknowledgement(0)?,
            (Frames::Ietf, kind::ACK_ECN) => self.acknowledgement(3)?,
            (Frames::Ietf, kind::CONNECTION_CLOSE) => {
                let (_code, _frame) = (varint(&mut self.rest)?, varint(&mut self.rest)?);
                let reason = varint(&mut self.rest)?;
                take(&mut self.rest, reason)?;
            }
            (Frames::Ietf, kind::CRYPTO) | (Frames::Google, kind::GOOGLE_CRYPTO) => {
                let offset = varint(&mut self.rest)?;
                let length = varint(&mut self.rest)?;
                return Some(Some((offset, take(&mut self.rest, length)?)));
            }
            (Frames::Google, kind::GOOGLE_PING) => {}
            // Google's padding takes the rest of the packet; other frames have no place in an
            // Initial, and no length that would lead over them.
            (Frames::Google | Frames::Ietf, _) => return None,
        }
        Some(None)
    }

    /// Passes over an ACK (section 19.3) that has `counts` numbers behind its ranges.
    fn acknowledgement(&mut self, counts: u64) -> Option<()> {
        let (_largest, _delay) = (varint(&mut self.rest)?, varint(&mut self.rest)?);
        let ranges = varint(&mut self.rest)?;
        let _first_range = varint(&mut self.rest)?;
        // A lying count ends where the packet ends.
        for _ in 0..ranges.saturating_mul(2).saturating_add(counts) {
            varint(&mut self.rest)?;
        }
        Some(())
    }
}

impl<'a> Iterator for CryptoFrames<'a> {
    type Item = (u64, &'a [u8]);

    fn next(&mut self) -> Option<Self::Item> {
        loop {
            if let Some(crypto) = self.frame()? {
                return Some(crypto);
            }
        }
    }
}
