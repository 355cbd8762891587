//! ClientHello (RFC 8446 section 4.1.2, RFC 5246 section 7.4.1.2, RFC 6101 section 5.6.1.2).
//!
//! Of a damaged hello counts what stands before the damage, and a length that says more than is
//! around it is damage: so do the dissectors that operators compare with.

use super::{
    ja4,
    vector::{Rest, Stop},
};
use crate::l7::{fact::ClientHello, text};

/// Extension numbers (IANA, "TLS ExtensionType Values").
pub(super) mod extension {
    pub(in crate::l7::tls) const SERVER_NAME: u16 = 0;
    pub(in crate::l7::tls) const SIGNATURE_ALGORITHMS: u16 = 13;
    pub(in crate::l7::tls) const ALPN: u16 = 16;
    pub(in crate::l7::tls) const SUPPORTED_VERSIONS: u16 = 43;
    /// RFC 9849, and the drafts from 09 on.
    pub(in crate::l7::tls) const ENCRYPTED_CLIENT_HELLO: u16 = 0xfe0d;
}

/// What a hello travels in; the fingerprint says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Carrier {
    /// TLS records over TCP.
    Tcp,
    /// CRYPTO frames of QUIC.
    Quic,
}

/// A hello as it was sent.
#[derive(Debug, Default)]
pub(super) struct Offer<'a> {
    pub(super) legacy_version: u16,
    pub(super) ciphers: Vec<u16>,
    pub(super) extensions: Vec<u16>,
    pub(super) server_name: Option<&'a [u8]>,
    pub(super) alpn: Vec<&'a [u8]>,
    pub(super) versions: Vec<u16>,
    pub(super) signature_algorithms: Vec<u16>,
}

impl Offer<'_> {
    /// The highest version offered; GREASE (RFC 8701) is none.
    pub(super) fn version(&self) -> u16 {
        let offered = self.versions.iter().copied().filter(|number| !is_grease(*number));
        offered.max().unwrap_or(self.legacy_version)
    }
}

/// GREASE (RFC 8701 section 2): a value that stands for nothing, to keep servers tolerant.
pub(super) fn is_grease(number: u16) -> bool {
    number & 0x0f0f == 0x0a0a && number >> 8 == number & 0xff
}

/// Reads the body of a ClientHello of `length` bytes, of which those in `body` are there. `None`
/// if not even a version is.
pub(super) fn read(body: &[u8], length: usize, carrier: Carrier) -> Option<ClientHello> {
    if body.len() < size_of::<u16>() {
        return None;
    }
    let mut offer = Offer::default();
    let whole = match offer.fill(Rest::new(body, length)) {
        Ok(()) => length <= body.len(),
        Err(Stop::Cut | Stop::Damaged) => false,
    };
    Some(ClientHello {
        sni: offer.server_name.map(text::ascii),
        alpn: offer.alpn.iter().copied().map(text::utf8).collect(),
        version: offer.version(),
        ja4: whole.then(|| ja4::fingerprint(&offer, carrier)),
        ech: offer.extensions.contains(&extension::ENCRYPTED_CLIENT_HELLO),
    })
}

impl<'a> Offer<'a> {
    fn fill(&mut self, mut rest: Rest<'a>) -> Result<(), Stop> {
        self.legacy_version = rest.u16()?;
        let _random = rest.take(32)?;
        let _session_id = rest.vector8()?;
        self.ciphers = rest.vector16()?.numbers().collect();
        let _compression_methods = rest.vector8()?;
        // SSL 3.0 knows no extensions, and later clients may send none.
        if rest.is_empty() {
            return Ok(());
        }
        let mut extensions = rest.vector16()?;
        while !extensions.is_empty() {
            let kind = extensions.u16()?;
            let content = extensions.vector16()?;
            self.extensions.push(kind);
            // What is wrong inside one extension leaves those behind it readable.
            let _ = self.extension(kind, content);
        }
        Ok(())
    }

    fn extension(&mut self, kind: u16, mut content: Rest<'a>) -> Result<(), Stop> {
        match kind {
            extension::SERVER_NAME if self.server_name.is_none() => {
                self.server_name = server_name(content)?;
            }
            extension::ALPN if self.alpn.is_empty() => {
                let mut names = content.vector16()?;
                while !names.is_empty() {
                    let name = names.vector8()?;
                    if name.is_cut() {
                        return Err(Stop::Cut);
                    }
                    self.alpn.push(name.bytes());
                }
            }
            extension::SUPPORTED_VERSIONS => {
                self.versions.extend(content.vector8()?.numbers());
            }
            extension::SIGNATURE_ALGORITHMS if self.signature_algorithms.is_empty() => {
                self.signature_algorithms = content.vector16()?.numbers().collect();
            }
            _ => {}
        }
        Ok(())
    }
}

/// RFC 6066 section 3. Only host_name(0) was ever given out as a kind of name.
fn server_name(mut content: Rest<'_>) -> Result<Option<&[u8]>, Stop> {
    // A server's answer is empty; from a client it names nobody.
    if content.is_empty() {
        return Ok(None);
    }
    let mut list = content.vector16()?;
    if list.is_empty() {
        return Ok(None);
    }
    let _kind = list.u8()?;
    let name = list.vector16()?;
    if name.is_cut() { Err(Stop::Cut) } else { Ok(Some(name.bytes())) }
}
