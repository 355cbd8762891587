//! What is kept in memory of a segment: where each event lies and what became of it.

use super::frame;

/// What became of an event.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum State {
    /// To be given out.
    Waiting,
    /// Given out, and not yet done.
    Given,
    /// Need not be delivered any more.
    Done,
}

/// One event: 32 bytes, so that a full spool of 64 MiB costs some 4 MiB of memory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Entry {
    pub(super) number: u64,
    pub(super) at_ms: u64,
    pub(super) offset: u32,
    pub(super) length: u32,
    /// Index of the rule's name.
    pub(super) rule: u32,
    pub(super) state: State,
}

/// One file.
#[derive(Debug)]
pub(super) struct Segment {
    pub(super) name: String,
    pub(super) first: u64,
    /// Up to here everything is whole.
    pub(super) bytes: u64,
    /// When the newest event was put in.
    pub(super) newest_ms: u64,
    /// Events that are not done.
    pub(super) live: usize,
    /// In the order of their numbers.
    pub(super) entries: Vec<Entry>,
}

impl Segment {
    pub(super) fn new(first: u64) -> Self {
        Self {
            name: name(first),
            first,
            bytes: frame::HEADER as u64,
            newest_ms: 0,
            live: 0,
            entries: Vec::new(),
        }
    }

    pub(super) fn push(&mut self, entry: Entry) {
        self.newest_ms = self.newest_ms.max(entry.at_ms);
        self.live += usize::from(entry.state != State::Done);
        self.entries.push(entry);
    }

    pub(super) fn entry_mut(&mut self, number: u64) -> Option<&mut Entry> {
        let at = self.entries.binary_search_by_key(&number, |entry| entry.number).ok()?;
        self.entries.get_mut(at)
    }
}

const SUFFIX: &str = ".spool";

/// No spool gets there: a million events a second take it 146,000 years. From here numbers can be
/// counted on without an overflow.
const LAST_FIRST: u64 = 1 << 62;
/// More records than a file has room for: what has a number so far from the file's first is damage.
pub(super) const NUMBERS: u64 = 1 << 32;

pub(super) fn name(first: u64) -> String {
    format!("{first:020}{SUFFIX}")
}

/// The number in a segment's name; `None` for files that are none.
pub(super) fn number(name: &str) -> Option<u64> {
    let digits = name.strip_suffix(SUFFIX)?;
    let number = (digits.len() == 20 && digits.bytes().all(|byte| byte.is_ascii_digit()))
        .then(|| digits.parse().ok())?;
    number.filter(|number| *number <= LAST_FIRST)
}

/// Names of rules by index, so that an entry is small.
#[derive(Debug, Default)]
pub(super) struct Names {
    names: Vec<std::sync::Arc<str>>,
    /// Waiting events of each.
    waiting: Vec<u64>,
}

impl Names {
    pub(super) fn index(&mut self, name: &str) -> u32 {
        if let Some(at) = self.names.iter().position(|known| **known == *name) {
            return at as u32;
        }
        self.names.push(name.into());
        self.waiting.push(0);
        (self.names.len() - 1) as u32
    }

    pub(super) fn name(&self, index: u32) -> std::sync::Arc<str> {
        self.names.get(index as usize).cloned().unwrap_or_else(|| "".into())
    }

    pub(super) fn add(&mut self, index: u32) {
        if let Some(waiting) = self.waiting.get_mut(index as usize) {
            *waiting += 1;
        }
    }

    pub(super) fn take(&mut self, index: u32) {
        if let Some(waiting) = self.waiting.get_mut(index as usize) {
            *waiting = waiting.saturating_sub(1);
        }
    }

    pub(super) fn waiting(&self) -> impl Iterator<Item = (&std::sync::Arc<str>, u64)> {
        self.names.iter().zip(self.waiting.iter().copied()).filter(|(_, waiting)| *waiting > 0)
    }

    pub(super) fn total(&self) -> u64 {
        self.waiting.iter().sum()
    }
}
