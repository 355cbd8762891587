//! From the disk, in the order they came.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::Spool;
use crate::spool::{
    Disk, frame,
    record::{Fate, Given, Lost},
    segment::{Entry, State},
};

impl<D: Disk> Spool<D> {
    /// The oldest events that were not given out yet.
    pub fn give(&mut self, most: usize, now: SystemTime) -> Vec<Given> {
        let mut given = Vec::new();
        while given.len() < most {
            let Some((segment, entry)) = self.next_waiting() else { break };
            given.push(self.give_one(segment, entry, now));
        }
        given
    }

    fn next_waiting(&mut self) -> Option<(usize, Entry)> {
        let after = self.segments.partition_point(|segment| segment.first <= self.cursor);
        for at in after.saturating_sub(1)..self.segments.len() {
            let entries = &self.segments[at].entries;
            let from = entries.partition_point(|entry| entry.number < self.cursor);
            let waiting = entries[from..].iter().find(|entry| entry.state == State::Waiting);
            if let Some(entry) = waiting {
                return Some((at, *entry));
            }
        }
        None
    }

    fn give_one(&mut self, segment: usize, entry: Entry, now: SystemTime) -> Given {
        self.cursor = entry.number + 1;
        self.names.take(entry.rule);
        let rule = self.names.name(entry.rule);
        let fate = if self.too_old(entry.at_ms, now) {
            Fate::TooOld
        } else {
            match self.load(segment, &entry) {
                Some(event) => {
                    self.set_state(segment, entry.number, State::Given);
                    let at = UNIX_EPOCH + Duration::from_millis(entry.at_ms);
                    return Given::Event { number: entry.number, rule, at, event };
                }
                None => Fate::Damaged,
            }
        };
        self.set_state(segment, entry.number, State::Done);
        if let Some(segment) = self.segments.get_mut(segment) {
            segment.live -= 1;
        }
        Given::Lost(Lost { number: entry.number, rule, fate, given: false })
    }

    fn set_state(&mut self, segment: usize, number: u64, state: State) {
        let segment = self.segments.get_mut(segment);
        if let Some(entry) = segment.and_then(|segment| segment.entry_mut(number)) {
            entry.state = state;
        }
    }

    /// Read again, checksum and all: it may have lain there for a day.
    fn load(&mut self, segment: usize, entry: &Entry) -> Option<Vec<u8>> {
        let name = &self.segments.get(segment)?.name;
        let mut bytes = vec![0; entry.length as usize];
        self.disk.read(name, entry.offset.into(), &mut bytes).ok()?;
        let frame = frame::read(&bytes).filter(|frame| frame.number == entry.number)?;
        Some(frame::event_body(frame.body)?.event.to_vec())
    }
}
