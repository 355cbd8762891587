//! What need not be kept any more: done, given up, too old.

use std::time::SystemTime;

use super::Spool;
use crate::spool::{
    Disk, Fsync, SpoolError,
    record::{Fate, Lost},
    segment::State,
};

impl<D: Disk> Spool<D> {
    /// These need not be delivered any more.
    ///
    /// # Errors
    /// The mark could not be written, or a finished segment not be removed: a restart may deliver
    /// them again.
    pub fn done(&mut self, numbers: &[u64]) -> Result<(), SpoolError> {
        for number in numbers {
            self.mark(*number);
        }
        if self.segments.iter().all(|segment| segment.live == 0) {
            return self.remove_finished();
        }
        let written = self.write_marks(numbers);
        written.and(self.remove_finished())
    }

    /// Drops segments whose newest event is too old.
    pub fn expire(&mut self, now: SystemTime) -> Vec<Lost> {
        let mut lost = Vec::new();
        while let Some(oldest) = self.segments.front()
            && self.too_old(oldest.newest_ms, now)
        {
            self.drop_oldest(Fate::TooOld, &mut lost);
        }
        lost
    }

    fn mark(&mut self, number: u64) {
        let after = self.segments.partition_point(|segment| segment.first <= number);
        let Some(segment) = after.checked_sub(1).and_then(|at| self.segments.get_mut(at)) else {
            return;
        };
        let Some(entry) = segment.entry_mut(number) else { return };
        match std::mem::replace(&mut entry.state, State::Done) {
            State::Done => {}
            State::Given => segment.live -= 1,
            State::Waiting => {
                let rule = entry.rule;
                segment.live -= 1;
                self.names.take(rule);
            }
        }
    }

    /// Removes segments at the beginning in which nothing is left to do. Only there: marks in later
    /// segments speak of earlier ones.
    pub(super) fn remove_finished(&mut self) -> Result<(), SpoolError> {
        let finished = self.segments.iter().take_while(|segment| segment.live == 0).count();
        for _ in 0..finished {
            let Some(segment) = self.segments.pop_front() else { break };
            self.open &= !self.segments.is_empty();
            self.remove(&segment.name)?;
        }
        Ok(())
    }

    pub(super) fn drop_oldest(&mut self, fate: Fate, lost: &mut Vec<Lost>) {
        let Some(segment) = self.segments.pop_front() else { return };
        self.open &= !self.segments.is_empty();
        for entry in segment.entries {
            if entry.state != State::Done {
                let given = entry.state == State::Given;
                if !given {
                    self.names.take(entry.rule);
                }
                let rule = self.names.name(entry.rule);
                lost.push(Lost { number: entry.number, rule, fate, given });
            }
        }
        if let Err(error) = self.remove(&segment.name) {
            tracing::warn!(%error, file = segment.name, "a dropped segment stays");
        }
    }

    fn remove(&mut self, name: &str) -> Result<(), SpoolError> {
        self.disk.remove(name).map_err(SpoolError::io("remove a segment"))?;
        match self.limits.fsync {
            // Should a later segment's removal reach the disk before this one, its marks would be
            // missing.
            Fsync::Always => self.disk.sync_names().map_err(SpoolError::io("sync the directory")),
            Fsync::Every(_) | Fsync::Never => Ok(()),
        }
    }
}
