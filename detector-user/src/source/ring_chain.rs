//! A ring buffer, and before it those of other layouts that agents left: what they still hold is read
//! first. Positions go on from one to the next.

use std::{
    collections::VecDeque,
    os::fd::{AsFd, BorrowedFd},
};

use super::ring_buffer::{Ring, RingRecord};

/// Rings in the order in which they are read.
pub struct RingChain {
    /// Nobody writes them any more.
    older: VecDeque<Older>,
    ring: Ring,
}

/// What is to be done with a ring that nothing is needed of any longer.
pub type Done = Box<dyn FnOnce() + Send>;

struct Older {
    ring: Ring,
    done: Done,
}

impl From<Ring> for RingChain {
    fn from(ring: Ring) -> Self {
        Self { older: VecDeque::new(), ring }
    }
}

impl RingChain {
    /// These rings, the oldest first, and then the one that the kernel writes. Each older one is done
    /// with when all of it was released.
    pub fn new(older: Vec<(Ring, Done)>, ring: Ring) -> Self {
        let mut chain = Self::from(ring);
        for (ring, done) in older {
            chain.older.push_back(Older { ring, done });
        }
        let mut end = 0;
        for ring in chain.older.iter_mut().map(|older| &mut older.ring).chain([&mut chain.ring]) {
            ring.begin_at(end.max(ring.base()));
            end = ring.end();
        }
        chain
    }

    /// Where the kernel's ring begins: its own positions are counted from there.
    pub fn base(&self) -> u64 {
        self.ring.base()
    }

    /// The next record, if there is one. It stays until it is released.
    pub fn next_held(&mut self) -> Option<RingRecord<'_>> {
        let unread = self.older.iter_mut().position(|older| older.ring.has_next());
        let ring = match unread {
            Some(number) => &mut self.older[number].ring,
            None => &mut self.ring,
        };
        ring.next_held()
    }

    /// Up to where it was read.
    pub fn position(&self) -> u64 {
        let unread = self.older.iter().find(|older| older.ring.unread() > 0);
        unread.map_or(&self.ring, |older| &older.ring).position()
    }

    /// Up to where it was given back; what is behind is read again by the next agent.
    pub fn released(&self) -> u64 {
        self.older.front().map_or(&self.ring, |older| &older.ring).released()
    }

    /// Bytes that the kernel's ring holds.
    pub fn size(&self) -> u64 {
        self.ring.size()
    }

    /// Gives everything before this position back to the kernel; never more than was read.
    pub fn release(&mut self, position: u64) {
        while let Some(older) = self.older.front() {
            older.ring.release(position);
            if older.ring.released() < older.ring.end() {
                return;
            }
            if let Some(older) = self.older.pop_front() {
                drop(older.ring);
                (older.done)();
            }
        }
        self.ring.release(position);
    }
}

impl AsFd for RingChain {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.ring.as_fd()
    }
}
