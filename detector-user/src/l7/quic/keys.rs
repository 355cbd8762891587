//! Keys of client Initials, which anybody can make from what the packet says (RFC 9001 section
//! 5.2), and taking the protection off (sections 5.3 and 5.4).

use ring::{
    aead::{AES_128_GCM, Aad, LessSafeKey, NONCE_LEN, Nonce, UnboundKey, quic},
    hkdf::{self, HKDF_SHA256, KeyType, Prk, Salt},
};

use super::version::Scheme;

const KEY: usize = 16;
const SECRET: usize = 32;
/// A packet number is taken to have four bytes when the sample is chosen (section 5.4.2).
const SAMPLE_BEHIND: usize = 4;
const SAMPLE: usize = 16;

/// What protects the Initials of one client.
pub(super) struct Keys {
    header: quic::HeaderProtectionKey,
    payload: LessSafeKey,
    iv: [u8; NONCE_LEN],
}

/// A packet without its protection.
pub(super) struct Opened {
    pub(super) number: u64,
    pub(super) payload: Vec<u8>,
}

struct Length(usize);

impl KeyType for Length {
    fn len(&self) -> usize {
        self.0
    }
}

/// HKDF-Expand-Label (RFC 8446 section 7.1) without a context.
fn expand<const N: usize>(secret: &Prk, label: &str) -> Option<[u8; N]> {
    const PREFIX: &str = "tls13 ";
    let length = u16::try_from(N).ok()?.to_be_bytes();
    let label_length = [u8::try_from(PREFIX.len() + label.len()).ok()?];
    let info = [&length[..], &label_length, PREFIX.as_bytes(), label.as_bytes(), &[0]];
    let mut key = [0; N];
    let okm: hkdf::Okm<'_, Length> = secret.expand(&info, Length(N)).ok()?;
    okm.fill(&mut key).ok()?;
    Some(key)
}

impl Keys {
    /// Keys of the client whose first Initial goes to `dcid`.
    pub(super) fn of_client(scheme: &Scheme, dcid: &[u8]) -> Option<Self> {
        let initial = Salt::new(HKDF_SHA256, &scheme.salt).extract(dcid);
        let client: [u8; SECRET] = expand(&initial, "client in")?;
        let client = Prk::new_less_safe(HKDF_SHA256, &client);
        let key: [u8; KEY] = expand(&client, scheme.key)?;
        let hp: [u8; KEY] = expand(&client, scheme.hp)?;
        Some(Self {
            header: quic::HeaderProtectionKey::new(&quic::AES_128, &hp).ok()?,
            payload: LessSafeKey::new(UnboundKey::new(&AES_128_GCM, &key).ok()?),
            iv: expand(&client, scheme.iv)?,
        })
    }

    /// Opens a packet whose number begins at `number_at`; `None` if it is not under these keys.
    /// Numbers are sent without the upper bits, which `largest`, the largest so far, gives.
    pub(super) fn open(
        &self,
        packet: &[u8],
        number_at: usize,
        largest: Option<u64>,
    ) -> Option<Opened> {
        let sample_at = number_at + SAMPLE_BEHIND;
        let mask = self.header.new_mask(packet.get(sample_at..sample_at + SAMPLE)?).ok()?;
        let mut packet = packet.to_vec();
        let first = packet.first_mut()?;
        *first ^= mask[0] & 0x0f;
        let number_length = usize::from(*first & 3) + 1;
        let mut truncated = 0;
        let bytes = packet.get_mut(number_at..number_at + number_length)?;
        for (byte, mask) in bytes.iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
            truncated = truncated << 8 | u64::from(*byte);
        }
        let number = full_number(truncated, number_length, largest);
        let (header, body) = packet.split_at_mut(number_at + number_length);
        let opened = self.payload.open_in_place(self.nonce(number), Aad::from(&*header), body);
        let payload = opened.ok()?.to_vec();
        Some(Opened { number, payload })
    }

    /// RFC 9001 section 5.3.
    fn nonce(&self, number: u64) -> Nonce {
        let mut nonce = self.iv;
        let end = nonce.last_chunk_mut::<8>().expect("a nonce has twelve bytes");
        *end = (u64::from_be_bytes(*end) ^ number).to_be_bytes();
        Nonce::assume_unique_for_key(nonce)
    }
}

/// RFC 9000 appendix A.3: the number nearest to the one expected that ends in `truncated`.
fn full_number(truncated: u64, length: usize, largest: Option<u64>) -> u64 {
    let window = 1u64 << (8 * length);
    let expected = largest.map_or(0, |largest| largest.saturating_add(1));
    let candidate = expected & !(window - 1) | truncated;
    if candidate.saturating_add(window / 2) <= expected {
        candidate.saturating_add(window)
    } else if candidate > expected.saturating_add(window / 2) && candidate >= window {
        candidate - window
    } else {
        candidate
    }
}

#[cfg(test)]
impl Keys {
    /// Protects an Initial: `header` is all before the packet number, which is sent in four bytes.
    pub(super) fn seal(&self, header: &[u8], number: u64, payload: &[u8]) -> Vec<u8> {
        let mut packet = [header, &(number as u32).to_be_bytes()].concat();
        packet[0] = packet[0] & 0xf0 | 3;
        let mut body = payload.to_vec();
        let sealed = self.payload.seal_in_place_append_tag(
            self.nonce(number),
            Aad::from(&packet),
            &mut body,
        );
        sealed.expect("sealed");
        packet.extend(&body);
        let number_at = header.len();
        let sample = &packet[number_at + SAMPLE_BEHIND..][..SAMPLE];
        let mask = self.header.new_mask(sample).expect("a sample of sixteen bytes");
        packet[0] ^= mask[0] & 0x0f;
        for (byte, mask) in packet[number_at..].iter_mut().zip(&mask[1..]) {
            *byte ^= mask;
        }
        packet
    }
}

#[cfg(test)]
mod tests {
    use super::full_number;

    /// RFC 9000 appendix A.3, and where the nearest number lies on the other side of a window.
    #[test]
    fn numbers_without_their_upper_bits() {
        assert_eq!(full_number(0x9b32, 2, Some(0xa82f_30ea)), 0xa82f_9b32);
        assert_eq!(full_number(0, 1, None), 0);
        assert_eq!(full_number(200, 1, None), 200);
        assert_eq!(full_number(3, 1, Some(254)), 259);
        assert_eq!(full_number(254, 1, Some(258)), 254);
    }
}
