//! The kernel's ring buffer, read ahead of what it gives up: a record's place is the kernel's again
//! only once [`Ring::release`] says so, so that what a killed agent had read and not finished is read
//! again by the next one. (aya's reader releases each record as soon as it was looked at.)
//!
//! Three mappings of a page or more (`kernel/bpf/ringbuf.c`): the reader's position, which we write;
//! the writers' position; the records, twice in a row, so that none is cut at the end. Positions only
//! grow; a pinned ring keeps them from agent to agent.

use std::{
    ops::Deref,
    os::fd::{AsFd, BorrowedFd},
    sync::atomic::Ordering,
};

use aya::maps::{Map, MapData, MapError};
use nix::sys::mman::ProtFlags;

use super::mapping::{Mapping, page_size};

/// `BPF_RINGBUF_HDR_SZ`: before each record its length and the kernel's own bookkeeping.
const HEADER: usize = 8;
/// `BPF_RINGBUF_BUSY_BIT`: still being written.
const BUSY: u32 = 1 << 31;
/// `BPF_RINGBUF_DISCARD_BIT`: written and taken back.
const DISCARDED: u32 = 1 << 30;

/// A ring buffer and how far it was read.
pub struct Ring {
    map: MapData,
    consumer: Mapping,
    producer: Mapping,
    page: usize,
    size: usize,
    read: usize,
    /// Its first byte's position, see [`super::ring_chain`].
    base: u64,
}

/// One record, and where it stands.
#[derive(Debug)]
pub struct RingRecord<'a> {
    /// Where it begins: grows from record to record, also from agent to agent.
    pub begin: u64,
    /// Where the next one begins.
    pub end: u64,
    bytes: &'a [u8],
}

impl Deref for RingRecord<'_> {
    type Target = [u8];

    fn deref(&self) -> &[u8] {
        self.bytes
    }
}

impl Ring {
    /// Reads from where the reader before has released.
    ///
    /// # Errors
    /// When it is no ring buffer, or the kernel refuses to map it.
    pub fn open(map: Map) -> Result<Self, MapError> {
        let map = match map {
            Map::RingBuf(map) => map,
            other => {
                return Err(aya::maps::RingBuf::<MapData>::try_from(other).err().unwrap_or(
                    // Not a ring buffer, so aya has refused it.
                    MapError::InvalidMapType { map_type: 0 },
                ));
            }
        };
        let size = map.info()?.max_entries() as usize;
        let page = page_size();
        let fd = map.fd().as_fd();
        let both = ProtFlags::PROT_READ | ProtFlags::PROT_WRITE;
        let consumer = Mapping::new(fd, page, both, 0)?;
        let producer = Mapping::new(fd, page + 2 * size, ProtFlags::PROT_READ, page)?;
        let read = consumer.position().load(Ordering::Acquire);
        Ok(Self { map, consumer, producer, page, size, read, base: 0 })
    }

    /// The next record, if there is one. Those before it are released.
    #[expect(clippy::should_implement_trait, reason = "the record borrows the ring")]
    pub fn next(&mut self) -> Option<RingRecord<'_>> {
        self.release(self.position());
        self.next_held()
    }

    /// The next record, if there is one. It stays until it is released.
    pub fn next_held(&mut self) -> Option<RingRecord<'_>> {
        let length = self.next_length()?;
        let (begin, at) = (self.position(), self.page + self.read % self.size);
        self.read += whole(length);
        let end = self.position();
        let bytes = self.producer.bytes(at + HEADER, length)?;
        Some(RingRecord { begin, end, bytes })
    }

    /// Whether there is a next record.
    pub fn has_next(&mut self) -> bool {
        self.next_length().is_some()
    }

    /// How long the next record is, past those that were taken back.
    fn next_length(&mut self) -> Option<usize> {
        loop {
            if self.read == self.producer.position().load(Ordering::Acquire) {
                return None;
            }
            // The kernel commits a record by a full exchange of this word.
            let at = self.page + self.read % self.size;
            let word = self.producer.word(at)?.load(Ordering::Acquire);
            if word & BUSY != 0 {
                return None;
            }
            let length = (word & !DISCARDED) as usize;
            if word & DISCARDED == 0 {
                return Some(length);
            }
            self.read += whole(length);
        }
    }

    /// Up to where it was read.
    pub fn position(&self) -> u64 {
        self.base + self.read as u64
    }

    /// Up to where it was released.
    pub fn released(&self) -> u64 {
        self.base + self.consumer.position().load(Ordering::Acquire) as u64
    }

    /// Up to where it was written.
    pub fn end(&self) -> u64 {
        self.base + self.producer.position().load(Ordering::Acquire) as u64
    }

    /// The position of its first byte ever; 0 unless told otherwise.
    pub fn base(&self) -> u64 {
        self.base
    }

    /// Counts positions from here. To be called before anything is read.
    pub fn begin_at(&mut self, base: u64) {
        self.base = base;
    }

    /// Bytes it holds.
    pub fn size(&self) -> u64 {
        self.size as u64
    }

    /// Bytes that wait to be read.
    pub fn unread(&self) -> u64 {
        let produced = self.producer.position().load(Ordering::Acquire);
        produced.wrapping_sub(self.read) as u64
    }

    /// Gives everything before this position back to the kernel; never more than was read.
    pub fn release(&self, position: u64) {
        let position = usize::try_from(position.saturating_sub(self.base)).unwrap_or(0);
        let position = position.min(self.read);
        let consumer = self.consumer.position();
        if position > consumer.load(Ordering::Relaxed) {
            consumer.store(position, Ordering::Release);
        }
    }
}

impl AsFd for Ring {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.map.fd().as_fd()
    }
}

/// Bytes that a record of this length takes up.
fn whole(length: usize) -> usize {
    (HEADER + length).next_multiple_of(8)
}
