//! Which HTTP requests are kept from user space: those that no rule asks for, told by method and path.
//!
//! A rule that asks for more (a header, a rate, ...) is decided in user space, which follows the stream.
//! There a request can be left out only if nothing else goes with it: it must be whole, alone in its
//! segment, and have no body. Anything else is shown: what is cut, what is pipelined (RFC 9112 section
//! 9.3.2), targets in absolute form, HTTP/2, and every line that does not begin with a method that
//! [`crate::http`] knows, exactly.

use crate::{
    http::HttpMethod,
    packet::PacketBytes,
    parse::Facts,
    rule::{ROW_WORDS, Tables},
    state::Draft,
};

/// Bytes that are looked at in one go. More of them fill the stack, of which the kernel programs' functions
/// share 512 bytes.
const BLOCK: usize = 16;
/// Blocks of the longest request that is looked through: a segment of the usual MTU.
const MAX_BLOCKS: usize = 96;

/// Whether a method's requests have no body (RFC 9110 section 9.3: content has no defined meaning), and
/// what follows is not another protocol.
#[inline(always)]
pub const fn is_bodiless(method: HttpMethod) -> bool {
    match method {
        HttpMethod::Get
        | HttpMethod::Head
        | HttpMethod::Delete
        | HttpMethod::Options
        | HttpMethod::Trace => true,
        HttpMethod::Post | HttpMethod::Put | HttpMethod::Connect | HttpMethod::Patch => false,
    }
}

/// Whether the request that a packet begins with is kept from user space: nothing goes with it, and no
/// rule that user space decides may match it.
#[inline(always)]
pub(crate) fn keeps_out<P: PacketBytes + ?Sized, T: Tables>(
    packet: &P,
    facts: &Facts,
    draft: &Draft,
    tables: &T,
) -> bool {
    !any_rule(draft, tables) && is_one_head(packet, facts)
}

#[inline(always)]
fn any_rule<T: Tables>(draft: &Draft, tables: &T) -> bool {
    let [of_application, _, of_path, of_ue] = draft.rows;
    let (Some(a), Some(b)) = (tables.row(of_application), tables.row(draft.gate_row)) else {
        return true;
    };
    let (Some(c), Some(d)) = (tables.row(of_path), tables.row(of_ue)) else { return true };
    let (mut word, last) = (draft.first_word as usize, draft.last_word as usize);
    for _ in 0..ROW_WORDS {
        if word > last {
            break;
        }
        let at = word % ROW_WORDS;
        if a.0[at] & b.0[at] & c.0[at] & d.0[at] != 0 {
            return true;
        }
        word += 1;
    }
    false
}

/// Whether the payload is one head and nothing else: it ends with an empty line and has none before.
///
/// A function of its own in the kernel programs: what it needs of registers and stack would be taken from
/// all packets that match, a tenth of their time.
#[inline(never)]
fn is_one_head<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> bool {
    let start = facts.payload_offset as usize;
    let length = facts.payload_length as usize;
    // The last line end, CR LF, is what an empty line is told by.
    let Some(body) = length.checked_sub(2).filter(|body| *body >= BLOCK) else { return false };
    if body > MAX_BLOCKS * BLOCK || packet.load_payload(start + length - 4) != Some(*b"\r\n\r\n") {
        return false;
    }
    let mut ends = LineEnds::default();
    for block in 0..MAX_BLOCKS {
        let at = block * BLOCK;
        if at + BLOCK > body {
            break;
        }
        let Some(words) = packet.load_payload::<[u64; BLOCK / 8]>(start + at) else { return false };
        if ends.empty_line(words) {
            return false;
        }
    }
    // The rest, and some of what was looked at before.
    let rest = packet.load_payload::<[u64; BLOCK / 8]>(start + body - BLOCK);
    rest.is_some_and(|words| !LineEnds::default().empty_line(words))
}

/// Line ends in bytes that are looked at eight at a time: CR and LF, each a bit in its byte.
#[derive(Clone, Copy, Default)]
struct LineEnds {
    /// Of the byte before, in the lowest byte.
    cr: u64,
    any: u64,
}

impl LineEnds {
    /// Whether a line end follows another, other than as CR LF: readers take CR, LF or both for one.
    #[inline(always)]
    fn empty_line(&mut self, words: [u64; BLOCK / 8]) -> bool {
        let mut found = 0;
        for word in words {
            let word = u64::from_le(word);
            let (cr, lf) = (bytes_that_are(word, b'\r'), bytes_that_are(word, b'\n'));
            let any = cr | lf;
            let before = (any << 8) | self.any;
            let cr_before = (cr << 8) | self.cr;
            found |= before & any & !(cr_before & lf);
            (self.cr, self.any) = (cr >> 56, any >> 56);
        }
        found != 0
    }
}

/// The highest bit of each byte that is this one.
#[inline(always)]
const fn bytes_that_are(word: u64, byte: u8) -> u64 {
    const LOW: u64 = u64::from_ne_bytes([0x7f; 8]);
    let difference = word ^ u64::from_ne_bytes([byte; 8]);
    !(((difference & LOW) + LOW) | difference | LOW)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn blocks(text: &[u8; BLOCK]) -> [u64; BLOCK / 8] {
        zerocopy::transmute!(*text)
    }

    #[test]
    fn an_empty_line_is_two_line_ends_of_any_kind_wherever_they_stand() {
        for ends in ["\n\n", "\r\r", "\n\r", "\r\n\r\n"] {
            for at in 0..=BLOCK - ends.len() {
                let mut text = [b'x'; BLOCK];
                text[at..at + ends.len()].copy_from_slice(ends.as_bytes());
                assert!(LineEnds::default().empty_line(blocks(&text)), "{ends:?} at {at}");
            }
        }
        let mut text = [b'x'; BLOCK];
        (text[6..10]).copy_from_slice(b"\nx\r\n");
        assert!(!LineEnds::default().empty_line(blocks(&text)));
        // Bytes that differ from them in one bit.
        assert!(!LineEnds::default().empty_line(blocks(&[0x8d; BLOCK])));
        assert!(!LineEnds::default().empty_line(blocks(&[0x0c; BLOCK])));
    }

    #[test]
    fn a_line_end_that_began_a_block_before_counts() {
        let (mut first, mut second) = ([b'x'; BLOCK], [b'x'; BLOCK]);
        (first[BLOCK - 1], second[0]) = (b'\n', b'\r');
        let mut ends = LineEnds::default();
        assert!(!ends.empty_line(blocks(&first)) && ends.empty_line(blocks(&second)));
        (first[BLOCK - 1], second[0]) = (b'\r', b'\n');
        let mut ends = LineEnds::default();
        assert!(!ends.empty_line(blocks(&first)) && !ends.empty_line(blocks(&second)));
    }
}
