//! Reading what an earlier process left: everything that is whole, and a name for what is not.

use std::{
    collections::{HashSet, VecDeque},
    fmt,
};

use super::{
    Disk, SpoolError,
    frame::{self, Header, Kind},
    segment::{self, Entry, Names, Segment, State},
};

/// A place that could not be read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Damage {
    /// The segment's file name.
    pub file: String,
    /// Where it begins.
    pub offset: u64,
    /// How many bytes.
    pub length: u64,
    /// What is wrong.
    pub why: &'static str,
}

impl fmt::Display for Damage {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {} bytes at {}: {}", self.file, self.length, self.offset, self.why)
    }
}

/// What was found when the spool was opened.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Recovered {
    /// Events to deliver.
    pub waiting: u64,
    /// Places that could not be read.
    pub damage: Vec<Damage>,
    /// Events that were put in, are not done, and are not there: gaps in the numbers.
    pub missing: u64,
}

/// All segments of a disk.
pub(super) struct Found {
    pub(super) segments: VecDeque<Segment>,
    pub(super) next: u64,
    pub(super) report: Recovered,
}

/// Bigger files are none of ours: a segment is at most a sixteenth of the spool and one batch.
const FILE_MAX: u64 = 1 << 30;

pub(super) fn recover<D: Disk>(disk: &mut D, names: &mut Names) -> Result<Found, SpoolError> {
    let mut files: Vec<(u64, String)> = disk
        .list()
        .map_err(SpoolError::io("list the directory"))?
        .into_iter()
        .filter_map(|name| Some((segment::number(&name)?, name)))
        .collect();
    files.sort();
    let mut scan = Scan {
        names,
        done: HashSet::new(),
        next: 1,
        reserved: 1,
        end: 0,
        report: Recovered::default(),
    };
    let mut segments = VecDeque::new();
    let newest = files.last().map(|(_, name)| name.clone());
    let later: Vec<u64> = files.iter().skip(1).map(|(first, _)| *first).chain([u64::MAX]).collect();
    for ((first, name), later) in files.into_iter().zip(later) {
        scan.end = later.min(first + segment::NUMBERS);
        let bytes = match load(disk, &name) {
            Ok(bytes) => bytes,
            Err(why) => {
                scan.damage(&name, 0, 0, why);
                scan.reserve(first);
                continue;
            }
        };
        let Some(segment) = scan.segment(first, &name, &bytes) else { continue };
        // A torn end is what a power loss leaves; cut off, it is not reported again.
        if newest.as_deref() == Some(&name) && segment.bytes < bytes.len() as u64 {
            let _ = disk.truncate(&name, segment.bytes);
        }
        segments.push_back(segment);
    }
    Ok(scan.finish(segments))
}

fn load<D: Disk>(disk: &mut D, name: &str) -> Result<Vec<u8>, &'static str> {
    let length = disk.length(name).map_err(|_| "cannot be read")?;
    if length > FILE_MAX {
        return Err("is too big for a segment");
    }
    // Fits: just compared.
    let mut bytes = vec![0; length as usize];
    disk.read(name, 0, &mut bytes).map_err(|_| "cannot be read")?;
    Ok(bytes)
}

struct Scan<'n> {
    names: &'n mut Names,
    done: HashSet<u64>,
    /// Above all numbers of records that were seen.
    next: u64,
    /// Above what segments that cannot be read may hold.
    reserved: u64,
    /// Above what a record of the file that is read can know of: the next file's first number.
    end: u64,
    report: Recovered,
}

impl Scan<'_> {
    fn damage(&mut self, file: &str, offset: usize, length: usize, why: &'static str) {
        let (offset, length) = (offset as u64, length as u64);
        self.report.damage.push(Damage { file: file.to_owned(), offset, length, why });
    }

    /// New segments must neither have the name nor the numbers of one that cannot be read.
    fn reserve(&mut self, first: u64) {
        self.reserved = self.reserved.max(first.saturating_add(1 << 32));
    }

    /// `None` for a file that is left alone.
    fn segment(&mut self, first: u64, name: &str, bytes: &[u8]) -> Option<Segment> {
        // Also if its records are gone: their numbers must not be used again.
        self.next = self.next.max(first);
        let mut segment = Segment { name: name.to_owned(), ..Segment::new(first) };
        match frame::read_header(bytes) {
            Header::Segment(number) if number == first => {}
            Header::OtherVersion(_) => {
                self.damage(name, 0, bytes.len(), "is of another version and left alone");
                self.reserve(first);
                return None;
            }
            Header::Segment(_) | Header::Damaged => {
                self.damage(name, 0, bytes.len().min(frame::HEADER), "is no segment's header");
            }
        }
        let mut at = frame::HEADER.min(bytes.len());
        // Up to here all is whole.
        segment.bytes = at as u64;
        while at < bytes.len() {
            let rest = &bytes[at..];
            if let Some(frame) = frame::read(rest) {
                self.frame(&frame, at, &mut segment);
                at += frame.length();
                segment.bytes = at as u64;
                continue;
            }
            let end = frame::find(bytes, at + 1);
            let length = end.unwrap_or(bytes.len()) - at;
            self.damage(name, at, length, "is no whole record");
            at += length;
        }
        Some(segment)
    }

    fn frame(&mut self, frame: &frame::Frame<'_>, at: usize, segment: &mut Segment) {
        if frame.number >= self.end {
            return self.damage(&segment.name, at, frame.length(), "has a number that none has");
        }
        self.next = self.next.max(frame.number + 1);
        match frame.kind {
            Kind::Done => {
                let numbers = frame::done_numbers(frame.body);
                let end = self.end;
                for number in numbers.filter(|number| *number < end) {
                    self.next = self.next.max(number + 1);
                    self.done.insert(number);
                }
            }
            Kind::Event => {
                let last = segment.entries.last().map_or(segment.first, |last| last.number + 1);
                let Some(body) = frame::event_body(frame.body) else { return };
                // Numbers grow; one that does not is a copy that a repair tool left.
                let (true, Ok(offset)) = (frame.number >= last, u32::try_from(at)) else {
                    return self.damage(&segment.name, at, frame.length(), "is out of order");
                };
                segment.push(Entry {
                    number: frame.number,
                    at_ms: body.at_ms,
                    offset,
                    length: frame.length() as u32,
                    rule: self.names.index(body.rule),
                    state: State::Waiting,
                });
            }
        }
    }

    fn finish(mut self, mut segments: VecDeque<Segment>) -> Found {
        let mut expected = segments.front().map_or(self.next, |segment| segment.first);
        for segment in &mut segments {
            for entry in &mut segment.entries {
                self.report.missing += missing(expected..entry.number, &self.done);
                expected = entry.number + 1;
                if self.done.contains(&entry.number) {
                    entry.state = State::Done;
                    segment.live -= 1;
                } else {
                    self.names.add(entry.rule);
                }
            }
        }
        self.report.missing += missing(expected..self.next, &self.done);
        self.report.waiting = self.names.total();
        Found { segments, next: self.next.max(self.reserved), report: self.report }
    }
}

/// Numbers that are neither there nor done. A damaged number can claim a gap of any size: what is
/// counted by looking is bounded, beyond it marks are not subtracted.
fn missing(gap: std::ops::Range<u64>, done: &HashSet<u64>) -> u64 {
    const LOOKED_AT: u64 = 1 << 20;
    let length = gap.end.saturating_sub(gap.start);
    if length > LOOKED_AT {
        return length;
    }
    gap.filter(|number| !done.contains(number)).count() as u64
}
