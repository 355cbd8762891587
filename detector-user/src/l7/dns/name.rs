//! Domain names in messages (RFC 1035 section 4.1.4), compressed, hostile and odd ones, in the
//! presentation that dissectors have made usual: labels as sent with dots between, `<Root>`, and a
//! word in angle brackets for what is no name.

use super::print::printable;

/// The longest name in bytes on the wire, the root's zero included (RFC 1035 section 2.3.4).
const MAX_NAME: usize = 255;
/// More pointers than a name can have labels are a loop.
const MAX_POINTERS: usize = 255;

/// How many bytes of names may be walked in one message. A message of 64 KiB can hold 10,000
/// pointers to one long chain of labels; nothing else comes near.
#[derive(Debug)]
pub(super) struct Budget(usize);

impl Default for Budget {
    fn default() -> Self {
        Budget(1 << 20)
    }
}

impl Budget {
    fn take(&mut self, bytes: usize) -> Option<()> {
        self.0 = self.0.checked_sub(bytes + 1)?;
        Some(())
    }
}

/// The name at `at`, and where what follows it begins; none where it is broken.
pub(super) fn read(bytes: &[u8], at: usize, budget: &mut Budget) -> Option<(String, usize)> {
    let mut text = Text::default();
    let mut here = at;
    let mut end = None;
    let mut pointers = 0;
    loop {
        let length = *bytes.get(here)?;
        here += 1;
        budget.take(usize::from(length & 0x3f))?;
        match (length & 0xc0, length) {
            (_, 0) => break,
            (0x00, length) => {
                let label = bytes.get(here..here + usize::from(length))?;
                text.label(label);
                here += label.len();
            }
            // Bit-string labels (RFC 2673, historic); others of this kind have no known length.
            (0x40, 0x41) => here = text.bits(bytes, here)?,
            (0x40, _) => return odd("<Unknown extended label>", at, here),
            (0xc0, high) => {
                let target = usize::from(high & 0x3f) << 8 | usize::from(*bytes.get(here)?);
                here += 1;
                end.get_or_insert(here);
                pointers += 1;
                // One that goes on just behind itself is how dissectors recognise the plainest loop.
                if target == here + 2 || pointers > MAX_POINTERS {
                    return odd("<Name contains a pointer that loops>", at, end?);
                }
                here = target;
            }
            (_, _) => return None, // 0x80 is reserved
        }
    }
    let end = end.unwrap_or(here);
    Some((text.finish(end - at)?, end))
}

/// Where what follows the name at `at` begins.
pub(super) fn skip(bytes: &[u8], mut at: usize) -> Option<usize> {
    loop {
        let length = *bytes.get(at)?;
        match length & 0xc0 {
            0x00 if length == 0 => return Some(at + 1),
            0x00 => at += 1 + usize::from(length),
            0xc0 => return Some(at + 2),
            _ => return None,
        }
    }
}

/// A word in place of a name that has no end, or none that is known.
fn odd(word: &str, at: usize, end: usize) -> Option<(String, usize)> {
    (end >= at + 2).then(|| (word.to_owned(), end))
}

/// A name on its way from labels to text.
#[derive(Default)]
struct Text {
    bytes: Vec<u8>,
    /// Bytes of labels and dots; what bit strings add is not counted, and cut off at the end.
    length: usize,
    too_long: bool,
}

impl Text {
    fn label(&mut self, label: &[u8]) {
        if !self.bytes.is_empty() {
            self.push(b".");
            self.length += 1;
        }
        self.push(label);
        self.length += label.len();
    }

    /// A bit string of `1` to 256 bits at `at`; gives where it ends.
    fn bits(&mut self, bytes: &[u8], at: usize) -> Option<usize> {
        let count = *bytes.get(at)?;
        let length = usize::from(count).saturating_sub(1) / 8 + 1;
        let bits = bytes.get(at + 1..at + 1 + length)?;
        let hex: String = bits.iter().map(|b| format!("{b:02x}")).collect();
        self.push(format!("\\[x{hex}/{count}]").as_bytes());
        Some(at + 1 + length)
    }

    fn push(&mut self, more: &[u8]) {
        // The text of a name of 255 bytes on the wire has 253.
        self.too_long |= self.bytes.len() + more.len() > MAX_NAME - 2;
        if !self.too_long {
            self.bytes.extend_from_slice(more);
        }
    }

    /// The text of a name that took `size` bytes where it stood.
    fn finish(self, size: usize) -> Option<String> {
        if self.too_long {
            return Some("<Name too long>".to_owned());
        }
        match self.bytes.first() {
            None | Some(0) if size <= 2 => Some("<Root>".to_owned()),
            _ if self.length == 0 => None,
            _ => Some(printable(self.bytes.get(..self.length)?)),
        }
    }
}
