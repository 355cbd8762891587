//! JA4 fingerprint of a ClientHello (FoxIO, "JA4: TLS Client Fingerprinting").

use std::fmt::Write;

use ring::digest::{SHA256, digest};

use super::hello::{Carrier, Offer, extension, is_grease};

/// What stands for the hash of nothing.
const NOTHING: &str = "000000000000";
/// Hex digits that are kept of a hash.
const DIGITS: usize = 12;

/// `t13d1516h2_8daaf6152771_b186095e22b6`: carrier, version, name or none, how many ciphers and
/// extensions, ALPN; hash of the ciphers; hash of extensions and signature algorithms.
pub(super) fn fingerprint(offer: &Offer<'_>, carrier: Carrier) -> String {
    let carrier = match carrier {
        Carrier::Tcp => 't',
        Carrier::Quic => 'q',
    };
    let mut ciphers = without_grease(&offer.ciphers);
    let mut extensions = without_grease(&offer.extensions);
    let name = if extensions.contains(&extension::SERVER_NAME) { 'd' } else { 'i' };
    let head = format!(
        "{carrier}{}{name}{:02}{:02}{}",
        version(offer.version()),
        ciphers.len().min(99),
        extensions.len().min(99),
        alpn(offer.alpn.first().copied().unwrap_or_default()),
    );
    ciphers.sort_unstable();
    extensions.retain(|kind| ![extension::SERVER_NAME, extension::ALPN].contains(kind));
    extensions.sort_unstable();
    let mut hello = list(&extensions);
    let algorithms = without_grease(&offer.signature_algorithms);
    if !hello.is_empty() && !algorithms.is_empty() {
        hello.push('_');
        hello.push_str(&list(&algorithms));
    }
    format!("{head}_{}_{}", hash(&list(&ciphers)), hash(&hello))
}

fn version(number: u16) -> &'static str {
    match number {
        0x0304 => "13",
        0x0303 => "12",
        0x0302 => "11",
        0x0301 => "10",
        0x0300 => "s3",
        0x0002 => "s2",
        _ => "00",
    }
}

/// First and last character of the first ALPN name; of its hex digits if either is not
/// alphanumeric.
fn alpn(name: &[u8]) -> String {
    let (Some(first), Some(last)) = (name.first(), name.last()) else { return "00".into() };
    if first.is_ascii_alphanumeric() && last.is_ascii_alphanumeric() {
        [char::from(*first), char::from(*last)].iter().collect()
    } else {
        format!("{:x}{:x}", first >> 4, last & 0x0f)
    }
}

fn without_grease(numbers: &[u16]) -> Vec<u16> {
    numbers.iter().copied().filter(|number| !is_grease(*number)).collect()
}

fn list(numbers: &[u16]) -> String {
    let hex: Vec<_> = numbers.iter().map(|number| format!("{number:04x}")).collect();
    hex.join(",")
}

fn hash(text: &str) -> String {
    if text.is_empty() {
        return NOTHING.into();
    }
    let mut hex = String::with_capacity(DIGITS);
    for byte in digest(&SHA256, text.as_bytes()).as_ref().iter().take(DIGITS / 2) {
        let _ = write!(hex, "{byte:02x}"); // a String takes everything
    }
    hex
}
