//! What became of records that were read: how far the ring may be given back to the kernel.
//!
//! Each record has a [`Receipt`], held by everything that came of it and is in this process's memory
//! only: events that are neither in a spool nor at their end. The ring is released up to the first
//! record whose receipt is held, so that after a SIGKILL the next agent reads that record again and
//! makes the same events of it, under the same ids.

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

/// Held by what would be lost if the process were killed now.
#[derive(Clone, Debug)]
pub struct Receipt(Arc<Hurry>);

/// Shared by all receipts: whether they should be given up soon.
#[derive(Debug, Default)]
struct Hurry(Arc<AtomicBool>);

impl Receipt {
    /// One that nobody waits for.
    pub fn none() -> Self {
        Self(Arc::default())
    }

    /// Whether the ring fills up behind records that are not settled: what holds the receipt should
    /// be put on disk now.
    pub fn is_urgent(&self) -> bool {
        self.0.0.load(Ordering::Relaxed)
    }

    /// Whether somebody else holds it too.
    pub fn is_held(&self) -> bool {
        Arc::strong_count(&self.0) > 1
    }
}

/// The receipts of the records that were read, oldest first.
#[derive(Debug)]
pub struct Receipts {
    /// Where each record ends that is not settled, and what follows it up to the next.
    open: VecDeque<(u64, Receipt)>,
    settled: u64,
    /// Bytes of the ring that unsettled records may keep.
    most: u64,
    urgent: Arc<AtomicBool>,
    given_up: u64,
}

impl Receipts {
    /// Of a ring of this many bytes, read from this position on. Half of it may be kept from the kernel: with more, packets of
    /// now would be lost for the sake of events that are only in danger if the process is killed.
    pub fn new(ring_bytes: u64, position: u64) -> Self {
        Self {
            open: VecDeque::new(),
            settled: position,
            most: ring_bytes / 2,
            urgent: Arc::default(),
            given_up: 0,
        }
    }

    /// A receipt for the record that is being read.
    pub fn issue(&self) -> Receipt {
        Receipt(Arc::new(Hurry(self.urgent.clone())))
    }

    /// The record that ends here was read.
    pub fn read(&mut self, end: u64, receipt: Receipt) {
        match self.open.back_mut() {
            _ if receipt.is_held() => self.open.push_back((end, receipt)),
            Some((last, _)) => *last = end,
            None => self.settled = end,
        }
    }

    /// Up to where the ring may be released, when it was read up to `read_to`.
    pub fn settled(&mut self, read_to: u64) -> u64 {
        while let Some((end, receipt)) = self.open.front() {
            let kept = read_to.saturating_sub(self.settled);
            let held = receipt.is_held();
            if held && kept <= self.most {
                break;
            }
            self.given_up += u64::from(held);
            self.settled = *end;
            self.open.pop_front();
        }
        let kept = read_to.saturating_sub(self.settled);
        self.urgent.store(!self.open.is_empty() && kept > self.most / 2, Ordering::Relaxed);
        self.settled
    }

    /// Records that were given up though what came of them was not settled: a kill may cost it.
    pub fn given_up(&self) -> u64 {
        self.given_up
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_ring_is_released_up_to_the_first_record_that_somebody_holds() {
        let mut receipts = Receipts::new(1 << 20, 0);
        receipts.read(10, receipts.issue());
        assert_eq!(receipts.settled(10), 10, "nothing came of it");
        let (first, second) = (receipts.issue(), receipts.issue());
        let (one, another) = (first.clone(), first.clone());
        let last = second.clone();
        receipts.read(20, first);
        receipts.read(30, receipts.issue());
        receipts.read(40, second);
        drop(last);
        assert_eq!(receipts.settled(40), 10);
        drop(one);
        assert_eq!(receipts.settled(40), 10, "at another sink it is not settled");
        drop(another);
        assert_eq!(receipts.settled(40), 40);
        assert_eq!(receipts.given_up(), 0);
    }

    #[test]
    fn what_is_not_settled_keeps_half_of_the_ring_at_most_and_is_told_to_hurry_before() {
        let mut receipts = Receipts::new(100, 0);
        let held: Vec<Receipt> = (1..=6)
            .map(|number| {
                let receipt = receipts.issue();
                receipts.read(number * 10, receipt.clone());
                receipt
            })
            .collect();
        assert_eq!((receipts.settled(20), held[0].is_urgent()), (0, false));
        assert_eq!((receipts.settled(30), held[0].is_urgent()), (0, true));
        assert_eq!((receipts.settled(60), receipts.given_up()), (10, 1));
        drop(held);
        assert_eq!((receipts.settled(60), receipts.given_up()), (60, 1));
        assert!(!receipts.issue().is_urgent());
    }
}
