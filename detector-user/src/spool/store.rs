//! The spool itself. Blocking: to be called where waiting for a disk does no harm.

use std::{
    collections::VecDeque,
    sync::Arc,
    time::{Duration, SystemTime, UNIX_EPOCH},
};

use super::{
    Class, Disk, Fsync, Limits, Recovered, SpoolError, WhenFull,
    frame::{self, Kind},
    recover,
    segment::{Entry, Names, Segment, State},
};

/// An event to be kept.
#[derive(Clone, Copy, Debug)]
pub struct NewRecord<'a> {
    /// The rule it is counted under.
    pub rule: &'a str,
    /// What it gives way to.
    pub class: Class,
    /// Since when it is there.
    pub at: SystemTime,
    /// The event, opaque.
    pub event: &'a [u8],
}

/// What became of a record that was to be kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It is kept, under this number.
    Stored(u64),
    /// There is no room, and the policy says that it gives way.
    Full,
    /// It could not be written. It may be tried again.
    Failed,
}

/// The result of an append.
#[derive(Debug, Default)]
pub struct Appended {
    /// Of each record.
    pub placed: Vec<Placed>,
    /// Older events that gave way.
    pub lost: Vec<Lost>,
    /// Why some of it failed.
    pub error: Option<SpoolError>,
}

/// Why an event is no longer kept.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Fate {
    /// It gave way to newer ones.
    Full,
    /// It was too old.
    TooOld,
    /// It could not be read any more.
    Damaged,
}

/// An event that is no longer kept.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lost {
    /// Its number.
    pub number: u64,
    /// The rule it is counted under.
    pub rule: Arc<str>,
    /// Why.
    pub fate: Fate,
    /// It was given out before, so somebody has it in memory.
    pub given: bool,
}

/// An event given out, or the news that it is lost.
#[derive(Debug, PartialEq, Eq)]
pub enum Given {
    /// It is there.
    Event {
        /// Its number, for [`Spool::done`].
        number: u64,
        /// The rule it is counted under.
        rule: Arc<str>,
        /// Since when it is kept.
        at: SystemTime,
        /// The event, opaque.
        event: Vec<u8>,
    },
    /// It cannot be given out.
    Lost(Lost),
}

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
        let mut pending = Pending { given, ..Pending::default() };
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

    /// The oldest events that were not given out yet.
    pub fn give(&mut self, most: usize, now: SystemTime) -> Vec<Given> {
        let mut given = Vec::new();
        while given.len() < most {
            let Some((segment, entry)) = self.next_waiting() else { break };
            given.push(self.give_one(segment, entry, now));
        }
        given
    }

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

    fn segment_is_full(&self, pending: &Pending, length: u64) -> bool {
        let begun = self.segments.back().filter(|_| self.open).map_or(0, |open| open.bytes);
        let bytes = begun + pending.length();
        bytes > frame::HEADER as u64 && bytes + length > self.limits.segment_bytes()
    }

    /// Writes what is pending, all or nothing.
    fn flush(&mut self, pending: &mut Pending, result: &mut Appended, now: SystemTime) {
        let pending =
            std::mem::replace(pending, Pending { given: pending.given, ..Pending::default() });
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

    fn write_marks(&mut self, numbers: &[u64]) -> Result<(), SpoolError> {
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
    fn remove_finished(&mut self) -> Result<(), SpoolError> {
        let finished = self.segments.iter().take_while(|segment| segment.live == 0).count();
        for _ in 0..finished {
            let Some(segment) = self.segments.pop_front() else { break };
            self.open &= !self.segments.is_empty();
            self.remove(&segment.name)?;
        }
        Ok(())
    }

    fn drop_oldest(&mut self, fate: Fate, lost: &mut Vec<Lost>) {
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

#[cfg(test)]
impl<D> Spool<D> {
    pub(super) fn disk_for_tests(&self) -> &D {
        &self.disk
    }

    pub(super) fn disk_mut_for_tests(&mut self) -> &mut D {
        &mut self.disk
    }
}

/// Frames that are not yet written.
#[derive(Default)]
struct Pending {
    buffer: Vec<u8>,
    entries: Vec<Entry>,
    /// Of each entry in the result.
    places: Vec<usize>,
    given: bool,
}

impl Pending {
    fn length(&self) -> u64 {
        self.buffer.len() as u64
    }

    fn push(&mut self, number: u64, at_ms: u64, rule: u32, encode: impl FnOnce(&mut Vec<u8>)) {
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

fn millis(time: SystemTime) -> u64 {
    // Before 1970 is 1970: a clock that was never set.
    time.duration_since(UNIX_EPOCH).map_or(0, |since| since.as_millis() as u64)
}
