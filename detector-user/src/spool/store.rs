//! The spool itself: what comes in, and what gives way to it. Blocking: to be called where waiting for a
//! disk does no harm.

mod give;
mod retire;
mod write;

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{SystemTime, UNIX_EPOCH},
};

use super::{
    Class, Disk, Limits, Recovered, SpoolError, WhenFull,
    frame::{self, Kind},
    record::{Appended, Fate, NewRecord, Placed},
    recover,
    segment::{Names, Segment},
};
use write::Pending;

/// Events on disk, given out in the order they came.
#[derive(Debug)]
pub struct Spool<D> {
    disk: D,
    limits: Limits,
    segments: VecDeque<Segment>,
    /// The last segment takes frames.
    open: bool,
    next: u64,
    /// All events before it were given out or are gone.
    cursor: u64,
    names: Names,
    synced: Option<SystemTime>,
}

impl<D: Disk> Spool<D> {
    /// Reads what is there. New events go to a new segment, never behind an end that may be torn.
    ///
    /// # Errors
    /// The directory cannot be listed.
    pub fn open(mut disk: D, limits: Limits) -> Result<(Self, Recovered), SpoolError> {
        let mut names = Names::default();
        let found = recover::recover(&mut disk, &mut names)?;
        let mut spool = Self {
            disk,
            limits,
            segments: found.segments,
            open: false,
            next: found.next,
            cursor: 0,
            names,
            synced: None,
        };
        spool.remove_finished()?;
        Ok((spool, found.report))
    }

    /// Events that were not given out yet.
    pub fn waiting(&self) -> u64 {
        self.names.total()
    }

    /// The same by rule.
    pub fn waiting_by_rule(&self) -> Vec<(Arc<str>, u64)> {
        self.names.waiting().map(|(name, count)| (name.clone(), count)).collect()
    }

    /// Bytes of all segments.
    pub fn bytes(&self) -> u64 {
        self.segments.iter().map(|segment| segment.bytes).sum()
    }

    /// Keeps events. With `given` they count as given out: the caller has them in memory, and must
    /// have been given all older ones.
    pub fn append(&mut self, batch: &[NewRecord<'_>], given: bool, now: SystemTime) -> Appended {
        debug_assert!(!given || self.waiting() == 0, "order");
        let mut result = Appended::default();
        let mut pending = Pending::new(given);
        for record in batch {
            let head = frame::event_head(millis(record.at), record.rule);
            let length = (frame::FRAME + head.len() + record.event.len()) as u64;
            if head.len() + record.event.len() > frame::BODY_MAX
                || !self.make_room(length, record.class, &mut pending, &mut result, now)
            {
                result.placed.push(Placed::Full);
                continue;
            }
            if result.error.is_some() {
                // What comes later must not get in front of what failed.
                result.placed.push(Placed::Failed);
                continue;
            }
            // Room is made segment by segment, so the number follows from what is pending.
            let number = self.next + pending.entries.len() as u64;
            pending.places.push(result.placed.len());
            result.placed.push(Placed::Failed);
            pending.push(number, millis(record.at), self.names.index(record.rule), |buffer| {
                frame::push(buffer, Kind::Event, number, &[&head, record.event]);
            });
        }
        self.flush(&mut pending, &mut result, now);
        result
    }

    /// Waits for the disk, whatever the policy says.
    ///
    /// # Errors
    /// The disk's.
    pub fn sync(&mut self) -> Result<(), SpoolError> {
        match self.segments.back() {
            Some(segment) if self.open => {
                self.disk.sync(&segment.name).map_err(SpoolError::io("sync a segment"))
            }
            Some(_) | None => Ok(()),
        }
    }

    fn too_old(&self, at_ms: u64, now: SystemTime) -> bool {
        // A clock that was set back makes nothing old.
        u128::from(millis(now).saturating_sub(at_ms)) > self.limits.max_age.as_millis()
    }

    /// Marks fit even when events fill all they may.
    fn event_bytes(&self) -> u64 {
        self.limits.max_bytes - self.limits.segment_bytes() / 2
    }

    /// Whether an event of this length may be kept; drops older ones if the policy says so.
    fn make_room(
        &mut self,
        length: u64,
        class: Class,
        pending: &mut Pending,
        result: &mut Appended,
        now: SystemTime,
    ) -> bool {
        if self.segment_is_full(pending, length) {
            self.flush(pending, result, now);
            self.open = false;
        }
        let (needed, all) = (length + frame::HEADER as u64, self.event_bytes());
        let drop_oldest = match self.limits.when_full {
            WhenFull::DropOldest => true,
            WhenFull::DropNewest => false,
            WhenFull::Priority if class == Class::High => true,
            WhenFull::Priority => {
                let share = all / 10 * class.tenths();
                return self.bytes() + pending.length() + needed <= share;
            }
        };
        while self.bytes() + pending.length() + needed > all {
            if !drop_oldest || self.segments.len() < 2 {
                return false;
            }
            self.drop_oldest(Fate::Full, &mut result.lost);
        }
        true
    }
}

#[cfg(test)]
impl<D> Spool<D> {
    pub(super) fn disk_for_tests(&self) -> &D {
        &self.disk
    }

    pub(super) fn disk_mut_for_tests(&mut self) -> &mut D {
        &mut self.disk
    }
}

fn millis(time: SystemTime) -> u64 {
    // Before 1970 is 1970: a clock that was never set.
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
