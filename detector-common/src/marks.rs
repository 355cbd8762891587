//! Segments that matched, to know them when they are sent again (TCP's retransmissions).
//!
//! In an array beside the sessions, so that a packet whose session need not be looked up
//! ([`crate::burst`]) finds them without a call into the kernel. Sessions that share a place displace
//! each other's marks, and nothing else: a mark holds the user and both ends of the flow.

use core::{cell::Cell, hint::black_box};

use crate::state::SessionKey;

/// Segments of a session whose detection is remembered, to know them when they are sent again.
pub const RECENT_SEGMENTS: usize = 7;
/// Places for [`Marks`]; a power of two.
pub const MARK_PLACES: u32 = 16_384;

/// Marks of the last segments that matched, of the sessions that share a place; a cache line. Written by
/// several CPUs, as [`crate::state::SessionState`].
#[derive(Debug, Default)]
#[repr(C)]
pub struct Marks {
    recent: [Cell<u64>; RECENT_SEGMENTS],
    /// Where the next goes.
    next: Cell<u64>,
}

/// [`Marks`] as plain words: how they lie in the kernel's map.
pub type MarkWords = [u64; RECENT_SEGMENTS + 1];

const _: () = assert!(size_of::<Marks>() == size_of::<MarkWords>());

impl Marks {
    /// Where a session's are.
    #[inline(always)]
    pub const fn place(key: &SessionKey) -> u32 {
        key.hash() / (u32::MAX / MARK_PLACES + 1)
    }

    /// Whether a segment matched before; if not, it is remembered. A mark is never 0, which a free
    /// place has.
    #[inline(always)]
    pub fn seen_before(&self, mark: u64) -> bool {
        for recent in &self.recent {
            if recent.get() == mark {
                return true;
            }
        }
        let next = self.next.get();
        let at = if next < RECENT_SEGMENTS as u64 { next as usize } else { 0 };
        self.next.set(at as u64 + 1);
        self.recent[at].set(mark);
        false
    }

    /// Forgets: a session begins in this place. Others in it, of whom there are few, may lose a mark.
    #[inline(always)]
    pub fn clear(&self) {
        for recent in &self.recent {
            // Of a loop that it sees through, LLVM makes a call to a function that goes byte by byte.
            black_box(recent).set(0);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::packet::Address;

    #[test]
    fn the_last_segments_that_matched_are_known_when_they_are_sent_again() {
        let marks = Marks::default();
        let last = RECENT_SEGMENTS as u64;
        for mark in 1..=2 * last {
            assert!(!marks.seen_before(mark), "{mark} is new");
        }
        for mark in last + 1..=2 * last {
            assert!(marks.seen_before(mark), "{mark}");
        }
        assert!(!marks.seen_before(last), "longer ago");
        marks.clear();
        assert!(!marks.seen_before(2 * last), "of another session");
    }

    #[test]
    fn users_of_one_pool_have_their_marks_in_places_of_their_own() {
        let place = |ue: u16| {
            let [high, low] = ue.to_be_bytes();
            let ue = Address::v4([10, 60, high, low]);
            Marks::place(&SessionKey { ue, application: 7, reserved: 0 })
        };
        let used: std::collections::HashSet<u32> = (0..4096).map(place).collect();
        assert!(used.len() > 2400, "{}", used.len());
        assert!(used.iter().all(|place| *place < MARK_PLACES));
    }
}
