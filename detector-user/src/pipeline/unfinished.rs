//! Messages that more packets must complete: where in the ring their first record stands. As long as
//! it is not given back to the kernel, the next agent reads all of it, should this one be killed.

use std::collections::{BTreeMap, HashMap};

use detector_common::state::FlowKey;

/// A message that takes longer than this is not waited for: its rest may never come, and whatever is
/// read again is told again.
const PATIENCE_NS: u64 = 2_000_000_000;

/// Flows in the middle of a message.
#[derive(Debug, Default)]
pub(super) struct Unfinished {
    /// Flow and time, by the position of the record that the message begins in.
    begins: BTreeMap<u64, (FlowKey, u64)>,
    positions: HashMap<FlowKey, u64>,
}

/// A record of a flow, and what it did.
#[derive(Clone, Copy, Debug)]
pub(super) struct Part {
    pub(super) flow: FlowKey,
    /// Where it stands in the ring.
    pub(super) position: u64,
    /// When it passed.
    pub(super) time_ns: u64,
    /// Whether it completed a message.
    pub(super) completes: bool,
    /// Whether more is needed.
    pub(super) goes_on: bool,
}

impl Unfinished {
    /// The record was read.
    pub(super) fn read(&mut self, part: Part) {
        let known = self.positions.get(&part.flow).copied();
        if let Some(position) = known
            && (part.completes || !part.goes_on)
        {
            self.positions.remove(&part.flow);
            self.begins.remove(&position);
        }
        if part.goes_on && (known.is_none() || part.completes) {
            self.positions.insert(part.flow, part.position);
            self.begins.insert(part.position, (part.flow, part.time_ns));
        }
    }

    /// Where the oldest message begins that is worth waiting for.
    pub(super) fn since(&mut self, now_ns: u64) -> Option<u64> {
        while let Some(first) = self.begins.first_entry() {
            let (flow, time_ns) = *first.get();
            if now_ns.saturating_sub(time_ns) < PATIENCE_NS {
                return Some(*first.key());
            }
            first.remove();
            self.positions.remove(&flow);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use detector_common::packet::Address;

    use super::*;

    fn flow(ue_port: u16) -> FlowKey {
        let address = Address::v4([10, 60, 0, 2]);
        FlowKey {
            ue: address,
            application_address: address,
            ue_port,
            application_port: 443,
            protocol: 6,
        }
    }

    fn part(port: u16, position: u64, completes: bool, goes_on: bool) -> Part {
        Part { flow: flow(port), position, time_ns: position, completes, goes_on }
    }

    #[test]
    fn the_ring_is_kept_from_where_the_oldest_unfinished_message_begins() {
        let mut all = Unfinished::default();
        all.read(part(1, 100, true, false));
        assert_eq!(all.since(0), None, "whole in one record");
        all.read(part(1, 200, false, true));
        all.read(part(2, 300, false, true));
        all.read(part(1, 400, false, true));
        assert_eq!(all.since(400), Some(200));
        all.read(part(1, 500, true, true));
        assert_eq!(
            all.since(500),
            Some(300),
            "the next one begins in the record that ends the first"
        );
        all.read(part(2, 600, true, false));
        assert_eq!(all.since(600), Some(500));
        all.read(part(1, 700, false, false));
        assert_eq!(all.since(700), None, "given up");
    }

    #[test]
    fn a_message_whose_rest_never_comes_is_not_waited_for() {
        let mut all = Unfinished::default();
        all.read(part(1, 100, false, true));
        all.read(part(2, 200, false, true));
        assert_eq!(all.since(99 + PATIENCE_NS), Some(100));
        assert_eq!(all.since(100 + PATIENCE_NS), Some(200));
        assert_eq!(all.since(200 + PATIENCE_NS), None);
        assert!(all.begins.is_empty() && all.positions.is_empty());
    }
}
