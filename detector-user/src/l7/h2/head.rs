//! Header blocks: HPACK (RFC 7541) by a library, pseudo-header fields (RFC 9113 section 8.3) by hand.

use std::fmt;

use loona_hpack::Decoder;

use crate::l7::Fact;
use crate::l7::fact::{HttpRequest, HttpResponse, HttpVersion};
use crate::l7::text;

/// The largest dynamic table. A peer may allow more than the 4 KiB of the standard in a SETTINGS
/// frame that flows in the other direction; browsers allow 64 KiB.
const MAX_TABLE: usize = 64 * 1024;
/// Of one block not more than so many bytes of fields are kept: one byte of HPACK can stand for a
/// field as large as the table.
const MAX_FIELDS: usize = 64 * 1024;

/// Not HPACK, or more than is allowed here: what follows cannot be read either.
pub(super) struct Damaged;

/// The header blocks of one direction; each builds on those before it.
pub(super) struct Heads {
    decoder: Decoder<'static>,
    /// What the dynamic table holds at most: the library does not say how much it is.
    kept: usize,
}

impl Default for Heads {
    fn default() -> Self {
        let mut decoder = Decoder::new();
        decoder.set_max_allowed_table_size(MAX_TABLE);
        Heads { decoder, kept: 0 }
    }
}

impl fmt::Debug for Heads {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Heads").finish_non_exhaustive()
    }
}

impl Heads {
    /// Bytes that are kept for blocks to come, or more than that.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// The request or response of a block; none of trailers.
    pub(super) fn read(&mut self, block: &[u8]) -> Result<Option<Fact>, Damaged> {
        let mut head = Head::default();
        let mut room = MAX_FIELDS;
        let decoded = self.decoder.decode_with_cb(block, |name, value| {
            let size = name.len() + value.len() + 32; // counted as RFC 7541 section 4.1 does
            if let Some(left) = room.checked_sub(size) {
                room = left;
                head.field(&name, &value);
            } else {
                room = 0;
            }
        });
        self.kept = (self.kept + MAX_FIELDS - room).min(MAX_TABLE);
        decoded.map_err(|_| Damaged)?;
        Ok(head.fact())
    }
}

/// One block's fields.
#[derive(Default)]
struct Head {
    method: Option<String>,
    path: Option<String>,
    authority: Option<String>,
    status: Option<u16>,
    headers: Vec<(String, String)>,
}

impl Head {
    fn field(&mut self, name: &[u8], value: &[u8]) {
        let text = text::utf8(value);
        match name {
            b":method" => self.method = Some(text),
            b":path" => self.path = Some(text),
            b":authority" => self.authority = Some(text),
            b":status" => self.status = text.parse().ok(),
            b":scheme" | b":protocol" => {}
            name => self.headers.push((text::utf8(name), text)),
        }
    }

    fn fact(self) -> Option<Fact> {
        let version = HttpVersion::Http2;
        if let Some(status) = self.status {
            return Some(Fact::HttpResponse(HttpResponse {
                version,
                status,
                headers: self.headers,
            }));
        }
        let named = |(name, value): &(String, String)| (name == "host").then(|| value.clone());
        let host = self.authority.or_else(|| self.headers.iter().find_map(named));
        // CONNECT has no path: its target is the authority (RFC 9113 section 8.5).
        let target = self.path.or_else(|| host.clone()).unwrap_or_default();
        Some(Fact::HttpRequest(HttpRequest {
            version,
            method: self.method?,
            target,
            host,
            headers: self.headers,
        }))
    }
}
