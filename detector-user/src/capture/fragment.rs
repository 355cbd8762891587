//! IP fragments put together (RFC 815), bounded in number and size. Where fragments overlap, the
//! bytes that came first stay.

use std::collections::{HashMap, VecDeque};

use detector_common::packet::Address;

/// Datagrams that are waiting for fragments at once; the oldest gives way.
const MAX_WAITING: usize = 1_024;
/// No IP datagram is longer.
const MAX_DATAGRAM: usize = 65_535;

/// Which datagram a fragment belongs to.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Group {
    /// Source address.
    pub source: Address,
    /// Destination address.
    pub destination: Address,
    /// Identification field.
    pub id: u32,
    /// Protocol of the payload (IPv4 only: RFC 791 section 3.2).
    pub protocol: u8,
}

/// Fragments that wait for their others.
#[derive(Default)]
pub struct Fragments {
    waiting: HashMap<Group, Datagram>,
    order: VecDeque<Group>,
    /// Datagrams given up because too many waited.
    pub evicted: u64,
}

#[derive(Default)]
struct Datagram {
    bytes: Vec<u8>,
    /// Ranges that are there, sorted, not touching each other.
    ranges: Vec<(usize, usize)>,
    total: Option<usize>,
}

impl Fragments {
    /// Takes a fragment in. The whole datagram's payload once its last fragment has come.
    pub fn add(
        &mut self,
        group: Group,
        offset: usize,
        more: bool,
        bytes: &[u8],
    ) -> Option<Vec<u8>> {
        if offset + bytes.len() > MAX_DATAGRAM {
            return None;
        }
        if !self.waiting.contains_key(&group) {
            self.make_room();
            self.order.push_back(group);
        }
        let datagram = self.waiting.entry(group).or_default();
        datagram.add(offset, more, bytes);
        if !datagram.complete() {
            return None;
        }
        let datagram = self.waiting.remove(&group)?;
        Some(datagram.bytes)
    }

    fn make_room(&mut self) {
        // Those that became whole are still in the order.
        if self.order.len() >= 2 * MAX_WAITING {
            self.order.retain(|group| self.waiting.contains_key(group));
        }
        while self.waiting.len() >= MAX_WAITING {
            let Some(oldest) = self.order.pop_front() else { return };
            if self.waiting.remove(&oldest).is_some() {
                self.evicted += 1;
            }
        }
    }
}

impl Datagram {
    fn add(&mut self, offset: usize, more: bool, bytes: &[u8]) {
        let end = offset + bytes.len();
        if !more && self.total.is_none() {
            self.total = Some(end);
        }
        if self.bytes.len() < end {
            self.bytes.resize(end, 0);
        }
        let mut at = offset;
        for (from, to) in self.ranges.clone() {
            if at < from && at < end {
                let stop = from.min(end);
                self.bytes[at..stop].copy_from_slice(&bytes[at - offset..stop - offset]);
            }
            at = at.max(to.min(end)).max(at);
        }
        if at < end {
            self.bytes[at..end].copy_from_slice(&bytes[at - offset..]);
        }
        self.insert(offset, end);
    }

    fn insert(&mut self, from: usize, to: usize) {
        let mut merged = (from, to);
        self.ranges.retain(|&(start, end)| {
            let apart = end < merged.0 || merged.1 < start;
            if !apart {
                merged = (merged.0.min(start), merged.1.max(end));
            }
            apart
        });
        let place = self.ranges.partition_point(|range| range.0 < merged.0);
        self.ranges.insert(place, merged);
    }

    fn complete(&mut self) -> bool {
        let Some(total) = self.total else { return false };
        let whole = matches!(self.ranges.as_slice(), [(0, end), ..] if *end >= total);
        if whole {
            self.bytes.truncate(total);
        }
        whole
    }
}
