//! What goes into the spool, and what comes out.

use std::{sync::Arc, time::SystemTime};

use super::{Class, SpoolError};

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
        /// Its number, for [`super::Spool::done`].
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
