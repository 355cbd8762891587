//! To the disk: frames to the open segment, all or nothing.

use std::time::SystemTime;

use super::Spool;
use crate::spool::{
    Disk, Fsync, SpoolError,
    frame::{self, Kind},
    record::{Appended, Placed},
    segment::{Entry, Segment, State},
};

/// Frames that are not yet written.
#[derive(Default)]
pub(super) struct Pending {
    buffer: Vec<u8>,
    pub(super) entries: Vec<Entry>,
    /// Of each entry in the result.
    pub(super) places: Vec<usize>,
    given: bool,
}

impl Pending {
    pub(super) fn new(given: bool) -> Self {
        Self { given, ..Self::default() }
    }

    pub(super) fn length(&self) -> u64 {
        self.buffer.len() as u64
    }

    pub(super) fn push(
        &mut self,
        number: u64,
        at_ms: u64,
        rule: u32,
        encode: impl FnOnce(&mut Vec<u8>),
    ) {
        let begin = self.buffer.len();
        encode(&mut self.buffer);
        self.entries.push(Entry {
            number,
            at_ms,
            offset: begin as u32,
            length: (self.buffer.len() - begin) as u32,
            rule,
            state: State::Waiting,
        });
    }
}

impl<D: Disk> Spool<D> {
    /// Writes what is pending, all or nothing.
    pub(super) fn flush(&mut self, pending: &mut Pending, result: &mut Appended, now: SystemTime) {
        let pending = std::mem::replace(pending, Pending::new(pending.given));
        if pending.entries.is_empty() {
            return;
        }
        match self.write(&pending.buffer, now) {
            Ok(offset) => self.enter(pending, offset, result),
            Err(error) => result.error = Some(error),
        }
    }

    fn enter(&mut self, pending: Pending, offset: u64, result: &mut Appended) {
        let Some(segment) = self.segments.back_mut() else { return };
        for (mut entry, place) in pending.entries.into_iter().zip(pending.places) {
            // Segments are far below 4 GiB.
            entry.offset += offset as u32;
            if pending.given {
                entry.state = State::Given;
                self.cursor = entry.number + 1;
            } else {
                self.names.add(entry.rule);
            }
            self.next = entry.number + 1;
            result.placed[place] = Placed::Stored(entry.number);
            segment.push(entry);
        }
    }

    /// Adds bytes to the open segment; gives where they begin. After an error the segment is as
    /// before, or closed.
    fn write(&mut self, bytes: &[u8], now: SystemTime) -> Result<u64, SpoolError> {
        self.begin_segment()?;
        let Some(segment) = self.segments.back_mut() else { return Ok(0) };
        let sync = match (self.limits.fsync, self.synced) {
            (Fsync::Always, _) | (Fsync::Every(_), None) => true,
            (Fsync::Every(period), Some(last)) => {
                now.duration_since(last).map_or(true, |passed| passed >= period)
            }
            (Fsync::Never, _) => false,
        };
        let mut written =
            self.disk.append(&segment.name, bytes).map_err(SpoolError::io("write to a segment"));
        if sync && written.is_ok() {
            written = self.disk.sync(&segment.name).map_err(SpoolError::io("sync a segment"));
            self.synced = Some(now);
        }
        let offset = segment.bytes;
        match written {
            Ok(()) => {
                segment.bytes += bytes.len() as u64;
                Ok(offset)
            }
            Err(error) => {
                // After a failed fsync nobody knows what is on the disk: begin anew elsewhere. The
                // numbers of what may be there are not used again.
                let cut = self.disk.truncate(&segment.name, segment.bytes).is_ok();
                let synced = matches!(&error, SpoolError::Io { doing: "sync a segment", .. });
                if !cut || synced {
                    self.open = false;
                    self.next += (bytes.len() / frame::FRAME) as u64;
                }
                Err(error)
            }
        }
    }

    fn begin_segment(&mut self) -> Result<(), SpoolError> {
        if self.open {
            return Ok(());
        }
        let segment = Segment::new(self.next);
        let begun = self
            .disk
            .create(&segment.name)
            .and_then(|()| self.disk.append(&segment.name, &frame::header(segment.first)))
            .and_then(|()| match self.limits.fsync {
                Fsync::Always | Fsync::Every(_) => self.disk.sync_names(),
                Fsync::Never => Ok(()),
            });
        if let Err(error) = begun {
            let _ = self.disk.remove(&segment.name);
            return Err(SpoolError::io("begin a segment")(error));
        }
        // One that is empty has the same name and was just begun anew.
        if self.segments.back().is_some_and(|last| last.first == segment.first) {
            self.segments.pop_back();
        }
        self.segments.push_back(segment);
        self.open = true;
        Ok(())
    }

    pub(super) fn write_marks(&mut self, numbers: &[u64]) -> Result<(), SpoolError> {
        let (mut buffer, mut body) = (Vec::new(), Vec::new());
        numbers.iter().for_each(|number| body.extend_from_slice(&number.to_le_bytes()));
        frame::push(&mut buffer, Kind::Done, self.next.saturating_sub(1), &[&body]);
        let length = buffer.len() as u64;
        if self.bytes() + length + frame::HEADER as u64 > self.limits.max_bytes {
            return Ok(());
        }
        if self.segment_is_full(&Pending::default(), length) {
            self.open = false;
        }
        self.begin_segment()?;
        let Some(segment) = self.segments.back_mut() else { return Ok(()) };
        match self.disk.append(&segment.name, &buffer) {
            Ok(()) => {
                segment.bytes += length;
                Ok(())
            }
            Err(error) => {
                self.open = self.disk.truncate(&segment.name, segment.bytes).is_ok();
                Err(SpoolError::io("mark events as done")(error))
            }
        }
    }

    pub(super) fn segment_is_full(&self, pending: &Pending, length: u64) -> bool {
        let begun = self.segments.back().filter(|_| self.open).map_or(0, |open| open.bytes);
        let bytes = begun + pending.length();
        bytes > frame::HEADER as u64 && bytes + length > self.limits.segment_bytes()
    }
}
