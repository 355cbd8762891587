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

#[cfg(test)]
mod tests {
    use super::*;

    /// The example of FoxIO's text, with GREASE where Chrome puts it.
    #[test]
    fn the_example_of_the_specification() {
        let offer = Offer {
            legacy_version: 0x0303,
            ciphers: vec![
                0x3a3a, 0x1301, 0x1302, 0x1303, 0xc02b, 0xc02f, 0xc02c, 0xc030, 0xcca9, 0xcca8,
                0xc013, 0xc014, 0x009c, 0x009d, 0x002f, 0x0035,
            ],
            extensions: vec![
                0x9a9a, 0x001b, 0x0000, 0x0033, 0x0010, 0x4469, 0x0017, 0x002d, 0x000d, 0x0005,
                0x0023, 0x0012, 0x002b, 0xff01, 0x000b, 0x000a, 0x0015, 0x4a4a,
            ],
            server_name: Some(b"example.com"),
            alpn: vec![b"h2", b"http/1.1"],
            versions: vec![0xdada, 0x0304, 0x0303],
            signature_algorithms: vec![
                0x0403, 0x0804, 0x0401, 0x0503, 0x0805, 0x0501, 0x0806, 0x0601,
            ],
        };
        let said = fingerprint(&offer, Carrier::Tcp);
        assert_eq!(said, "t13d1516h2_8daaf6152771_e5627efa2ab1");
        let without = Offer { signature_algorithms: vec![], ..offer };
        let said = fingerprint(&without, Carrier::Quic);
        assert_eq!(said, "q13d1516h2_8daaf6152771_6d807ffa2a79");
    }

    /// The table in the section "ALPN Extension Value".
    #[test]
    fn protocols_that_are_not_alphanumeric() {
        let table: [(&[u8], &str); 12] = [
            (b"h2", "h2"),
            (b"http/1.1", "h1"),
            (b"", "00"),
            (b"x", "xx"),
            (&[0xab], "ab"),
            (&[0x20], "20"),
            (&[0xab, 0xcd], "ad"),
            (&[0x20, 0x61], "21"),
            (&[0x30, 0xab], "3b"),
            (&[0x61, 0x20], "60"),
            (&[0x30, 0x31, 0xab, 0xcd], "3d"),
            (&[0x30, 0xab, 0xcd, 0x31], "01"),
        ];
        for (name, said) in table {
            assert_eq!(alpn(name), said, "{name:x?}");
        }
    }

    #[test]
    fn nothing_offered() {
        let said = fingerprint(&Offer::default(), Carrier::Tcp);
        assert_eq!(said, "t00i000000_000000000000_000000000000");
        let many = Offer { ciphers: vec![1; 200], ..Offer::default() };
        assert!(fingerprint(&many, Carrier::Tcp).starts_with("t00i9900"));
    }
}
