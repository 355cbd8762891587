//! Whether a DNS message asks for a name that rules know, so that user space is shown no other.
//!
//! A name is a hash of its text from its end to its beginning, without case: at each dot on the way
//! it is the hash of a suffix, which is looked up among those of `*.suffix` patterns, and at the
//! beginning it is the hash of the whole name. The look-up is in a Bloom filter: what it lets through by
//! chance, user space compares. Whatever is not a plain message with one question for
//! a plain name is for user space to read: here nothing that could match is ever hidden.

use core::hint::black_box;

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    packet::PacketBytes,
    rule::{NAME_WORDS, Tables},
    state::{Draft, State},
    verifier::forget,
};

/// Where a message's first question begins (RFC 1035 section 4.1.1).
const HEADER: usize = 12;
/// Bytes of a message from there on that are looked at: a longer name is for user space to read.
const ROOM: usize = 128;
/// The longest label (RFC 1035 section 2.3.4); what has higher bits is no label but a pointer.
const LONGEST_LABEL: u32 = 63;
/// The most labels of a name that is looked up; the verifier pays for each.
const MAX_LABELS: usize = 8;
/// The most characters of a name as text that fits there, with the dot that is put before it.
const MAX_TEXT: usize = ROOM - 1;

/// Where a name is taken apart: too large for the stack of 512 bytes.
#[derive(Clone, Copy, Debug, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Name {
    /// Hashes of its suffixes, the shortest first, and of itself.
    suffixes: [u64; MAX_LABELS],
    text: [u8; ROOM],
}

/// Which names a hash stands for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Names {
    /// This one.
    Exact,
    /// All below it.
    Below,
}

/// The hash of a name that is yet to be walked.
pub const EMPTY: u64 = 0xcbf2_9ce4_8422_2325;

/// Adds the character before those that were added: FNV-1a. Letters lose their case; that a few signs
/// become others with it (`_` and DEL) makes user space compare, nothing else.
#[inline(always)]
pub const fn add(hash: u64, character: u8) -> u64 {
    (hash ^ (character | 0x20) as u64).wrapping_mul(0x0000_0100_0000_01b3)
}

/// Which word of the filter a name is in, and the three bits of it that are set (a Bloom filter whose
/// bits are in one word, so that a look-up is one load). `application` is a stable id.
#[inline(always)]
pub const fn place(hash: u64, names: Names, application: u32) -> (u32, u64) {
    let mut h = hash ^ ((application as u64) << 32) ^ (names as u64);
    h = (h ^ (h >> 32)).wrapping_mul(0xd6e8_feb8_6659_fd93);
    h ^= h >> 32;
    let bits = 1 << (h >> 58) | 1 << ((h >> 52) & 63) | 1 << ((h >> 46) & 63);
    (h as u32 % NAME_WORDS as u32, bits)
}

/// Whether user space must read this message, which begins at `payload`, for the names that rules of
/// the application (its stable id) ask for.
#[inline(always)]
pub(crate) fn may_match<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    (payload, length): (usize, u32),
    questions: u8,
    application: u32,
    tables: &T,
    state: &mut S,
) -> bool {
    let found = look(packet, (payload, length), questions, application, tables, state);
    // The verifier is to go on in one way, however this was found.
    let Some(Draft { opaque, .. }) = state.draft() else { return true };
    forget(found.into(), opaque) != 0
}

#[inline(always)]
fn look<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    (payload, length): (usize, u32),
    questions: u8,
    application: u32,
    tables: &T,
    state: &mut S,
) -> bool {
    // Hidden from LLVM, which would else drop the bounds below that the verifier needs to see.
    let there = black_box((length as usize).saturating_sub(HEADER).min(ROOM - 1));
    let Some(Draft { name, opaque, .. }) = state.draft() else { return true };
    if questions != 1 || !packet.load_into(payload + HEADER, there, &mut name.text) {
        return true;
    }
    let (end, labels) = write_dots(&mut name.text, there as u32, opaque);
    if labels == 0 || hash_back(name, end, opaque) != labels {
        return true;
    }
    known(name, labels, application, tables, opaque)
}

/// Makes text of a name: puts dots in the places of the labels' lengths, also before the first. Where
/// it ends, and how many labels it has: 0 if there are too many, none, or something else.
#[inline(always)]
fn write_dots(text: &mut [u8; ROOM], there: u32, opaque: &mut u32) -> (u32, u32) {
    let (mut at, mut labels, mut is_plain) = (0u32, 0, false);
    for _ in 0..MAX_LABELS + 1 {
        at = forget(at, opaque);
        let place = at as usize % ROOM;
        let length = u32::from(text[place]);
        is_plain = length == 0;
        if length == 0 || length > LONGEST_LABEL || at >= there {
            break;
        }
        text[place] = b'.';
        at += 1 + length;
        labels = forget(labels + 1, opaque);
    }
    (at, forget(if is_plain && at < there { labels } else { 0 }, opaque))
}

/// Hashes the text from its end, and keeps what the hash is at each dot. Gives the number of dots,
/// which is that of the labels if no label has one; too many if there are characters of other kinds.
///
/// There is no branch in the loop but its end: the verifier would go on along both ways, and meets
/// itself again only every hundred instructions.
#[inline(always)]
fn hash_back(name: &mut Name, end: u32, opaque: &mut u32) -> u32 {
    let (mut at, mut hash, mut dots, mut odd) = (end, EMPTY, 0u32, 0u32);
    for _ in 0..MAX_TEXT {
        at = forget(at.wrapping_sub(1), opaque);
        dots = forget(dots, opaque);
        let character = name.text[at as usize % ROOM];
        let code = u32::from(character);
        name.suffixes[dots as usize % MAX_LABELS] = hash;
        // Negative for what is not printed: blanks, controls, bytes that ASCII has not.
        odd |= code.wrapping_sub(0x21) | 0x7eu32.wrapping_sub(code);
        dots += black_box(code ^ u32::from(b'.')).wrapping_sub(1) >> 31;
        hash = add(hash, character);
        if at == 0 {
            break;
        }
    }
    forget(dots + (odd >> 31) * MAX_TEXT as u32, opaque)
}

/// Whether a rule asks for the name, which the last hash is of, or for all below one of the suffixes.
#[inline(always)]
fn known<T: Tables>(
    name: &Name,
    labels: u32,
    application: u32,
    tables: &T,
    opaque: &mut u32,
) -> bool {
    let missing = |hash, names| {
        let (word, bits) = place(hash, names, application);
        bits & !tables.names(word).copied().unwrap_or(u64::MAX)
    };
    let last = name.suffixes[(labels as usize).wrapping_sub(1) % MAX_LABELS];
    let mut found = u32::from(missing(last, Names::Exact) == 0);
    for index in 0..MAX_LABELS {
        found = forget(found, opaque);
        if index as u32 + 1 >= labels {
            break;
        }
        found |= u32::from(missing(name.suffixes[index], Names::Below) == 0);
    }
    found != 0
}
