//! Packets of a session that came in one kernel tick and on one CPU, counted beside the session.
//!
//! Nearly all packets of a watched application say nothing that a rule asks for: they only add to
//! their session's sums. In a burst (a download, a batch of the network card) they come one after
//! the other, and finding the session is the dearest thing about them: a hash map is a call into the
//! kernel, 25 to 35 ns, an array's entry is not. So the first packet of a tick finds the session; those
//! that follow on this CPU in this tick are summed up here, in an array, until the next tick or another
//! session in the same place. What the agent reads of a session has them added. A request in a burst
//! finds here what it needs of its session.
//!
//! While packets of a session must be looked at whole (a request line was cut), it has no burst on any
//! CPU: see [`crate::state::State::end_bursts`].

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    packet::Direction,
    state::{SessionKey, SessionSnapshot},
};

/// Bursts that one CPU keeps at once. A power of two. No more than follow each other in a batch: a
/// burst that is pushed out costs two look-ups.
pub const BURSTS: u32 = 64;

/// A session's packets that are not in its sums yet.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Burst {
    /// Whose packets.
    pub key: SessionKey,
    /// When that session began: one that the agent ended and that began again is another.
    pub start_ns: u64,
    /// The tick, as [`crate::state::State::now_coarse`] tells it; 0 in a place that was never used.
    pub tick_ns: u64,
    /// The generation of rules under which the session was found, and the UE's row in it: see
    /// [`crate::state::SessionState::ue_word`].
    pub ue: u64,
    /// How often bursts had been ended on all CPUs.
    pub ends: u64,
    /// Packets by [`crate::packet::Direction`].
    pub packets: [u64; 2],
    /// Bytes by [`crate::packet::Direction`].
    pub bytes: [u64; 2],
}

impl Burst {
    /// Begins: the packet that found the session is in its sums already. Word by word, because of a
    /// struct this large LLVM makes a call to a function that goes byte by byte.
    #[inline(always)]
    pub fn begin(
        &mut self,
        key: &SessionKey,
        start_ns: u64,
        tick_ns: u64,
        ue_word: u64,
        ends: u64,
    ) {
        self.key.ue.0[0] = key.ue.0[0];
        self.key.ue.0[1] = key.ue.0[1];
        self.key.application = key.application;
        self.start_ns = start_ns;
        self.tick_ns = tick_ns;
        self.ue = ue_word;
        self.ends = ends;
        for direction in 0..2 {
            self.packets[direction] = 0;
            self.bytes[direction] = 0;
        }
    }

    /// Where on each CPU a session's burst is.
    #[inline(always)]
    pub const fn place(key: &SessionKey) -> u32 {
        key.hash() / (u32::MAX / BURSTS + 1)
    }

    /// Whether a packet of this session and tick is of this burst, unless it was ended.
    #[inline(always)]
    pub fn goes_on(&self, key: &SessionKey, tick_ns: u64, generation: u32, ends: u64) -> bool {
        self.tick_ns == tick_ns
            && self.key.ue.0[1] == key.ue.0[1]
            && self.key.ue.0[0] == key.ue.0[0]
            && self.key.application == key.application
            && (self.ue >> 32) as u32 == generation
            && self.ends == ends
    }

    /// The UE's row under the generation in which the burst goes on.
    #[inline(always)]
    pub const fn ue_row(&self) -> u32 {
        self.ue as u32
    }

    /// Counts a packet.
    #[inline(always)]
    pub fn count(&mut self, direction: Direction, bytes: u32) {
        self.packets[direction as usize] += 1;
        self.bytes[direction as usize] += u64::from(bytes);
    }

    /// Whether it holds packets.
    #[inline(always)]
    pub const fn is_empty(&self) -> bool {
        self.packets[0] | self.packets[1] == 0
    }

    /// Adds what it holds to its session, as far as `session` is that one.
    pub fn add_to(&self, key: &SessionKey, session: &mut SessionSnapshot) {
        if self.key != *key || self.start_ns != session.start_ns {
            return;
        }
        for direction in 0..2 {
            session.packets[direction] += self.packets[direction];
            session.bytes[direction] += self.bytes[direction];
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{packet::Address, state::SessionState};

    fn key(ue: u8) -> SessionKey {
        SessionKey { ue: Address::v4([10, 60, 0, ue]), application: 7, reserved: 0 }
    }

    fn burst() -> Burst {
        let mut begun = Burst { packets: [9; 2], bytes: [9; 2], ..Burst::default() };
        begun.begin(&key(2), 100, 1000, SessionState::ue_word(1, 9), 5);
        assert!(begun.is_empty());
        Burst { packets: [1, 2], bytes: [60, 3000], ..begun }
    }

    #[test]
    fn goes_on_for_the_same_session_tick_and_rules_only() {
        let burst = burst();
        assert!(burst.goes_on(&key(2), 1000, 1, 5));
        assert!(!burst.goes_on(&key(3), 1000, 1, 5));
        assert!(!burst.goes_on(&key(2), 1001, 1, 5));
        assert!(!burst.goes_on(&key(2), 1000, 2, 5));
        assert!(!burst.goes_on(&key(2), 1000, 1, 6), "ended");
        assert_eq!(burst.ue_row(), 9);
    }

    #[test]
    fn is_added_to_its_own_session_only() {
        let session = |start_ns| SessionSnapshot {
            start_ns,
            packets: [10, 20],
            bytes: [1, 2],
            ..SessionSnapshot::default()
        };
        let after = |key: &SessionKey, start_ns| {
            let mut session = session(start_ns);
            burst().add_to(key, &mut session);
            (session.packets, session.bytes)
        };
        assert_eq!(after(&key(2), 100), ([11, 22], [61, 3002]));
        assert_eq!(after(&key(3), 100), ([10, 20], [1, 2]), "another user's");
        assert_eq!(after(&key(2), 200), ([10, 20], [1, 2]), "begun again since");
    }

    #[test]
    fn users_of_one_pool_spread_over_the_places() {
        let mut used = std::collections::HashSet::new();
        for ue in 0..=255 {
            used.insert(Burst::place(&key(ue)));
        }
        assert!(used.len() > 48, "{}", used.len());
    }
}
