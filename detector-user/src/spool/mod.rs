//! Events on disk while a sink does not take them: append-only segments with checksums.
//!
//! # Why own code
//!
//! Looked at in November 2026: `yaque` keeps strict first-in-first-out receipts (an event of one
//! UE that is retried would hold all others), has no checksum over records and no bound;
//! `okaywal` (last release 2023) knows checkpoints and not single records that are done;
//! `raft-engine` is a store for thousands of logs with RocksDB's tuning. None drops by age, size
//! or priority with a count. What is left to write is this directory.
//!
//! # Format
//!
//! A directory a sink, one file a segment, named by the number of its first record in 20 digits
//! and `.spool`. Integers are little-endian.
//!
//! ```text
//! segment  magic "DETSPOOL" | version u32 = 1 | first number u64 | CRC-32 of the 20 bytes | frames...
//! frame    magic D5 53 50 4C | CRC-32 of what follows | body length u32 | kind u8 | 0 0 0 | number u64 | body
//! event    kind 1; body: time in ms u64 | length of rule name u16 | rule name | the event (opaque here)
//! done     kind 2; body: numbers of events that need not be delivered any more, u64 each
//! ```
//!
//! # Invariants, each with a test of its name in `tests`
//!
//! 1. *Acknowledged is durable.* With `fsync: always` an event whose append succeeded is there
//!    after a power loss between any two system calls; with `never` after a kill of the process.
//! 2. *Order.* Events come out in the order they went in, over restarts too.
//! 3. *No ghosts.* What comes out went in, byte for byte.
//! 4. *Done is done.* An event marked done is not given out again by the same process; after a
//!    crash it may be, under the same number, if the mark was not yet on disk.
//! 5. *Damage is contained and named.* A torn or corrupt place costs the records it covers; all
//!    others are delivered, and the place is reported with file, offset and length. Records that
//!    are missing are counted by the gaps in their numbers.
//! 6. *Bounded.* Never more than `max_bytes` of segments; records older than `max_age` are dropped.
//! 7. *Nothing dropped uncounted.* What gives way when it is full or too old is reported, by rule.
//! 8. *A failed write changes nothing.* After an error (full disk, read-only) earlier records are
//!    whole, and the next append may succeed.
//! 9. *One owner.* A second process cannot open the same directory.
//! 10. *Another version is left alone,* named and never read.
//!
//! # fsync
//!
//! `always` (the default): each append is one write and one `fdatasync` before it counts; a batch
//! shares both. A period: at most so much is lost with the power. `never`: the kernel writes when it
//! likes; a killed process loses nothing, a power loss does. Marks of done events are never waited
//! for: losing one costs a duplicate with the same id.

mod directory;
mod frame;
mod record;
mod recover;
mod segment;
mod store;

#[cfg(test)]
mod simulated;
#[cfg(test)]
mod tests;

use std::{io, path::PathBuf, time::Duration};

use schemars::JsonSchema;
use serde::Deserialize;
use thiserror::Error;

pub use directory::Directory;
pub use record::{Appended, Fate, Given, Lost, NewRecord, Placed};
pub use recover::{Damage, Recovered};
pub use store::Spool;

/// The disk as the spool uses it: one directory of append-only files. A trait, so that tests can
/// lose power between any two calls.
pub trait Disk: Send + 'static {
    /// Names of the files.
    fn list(&self) -> io::Result<Vec<String>>;
    /// An empty file of this name, whether there was one or not.
    fn create(&mut self, name: &str) -> io::Result<()>;
    /// Adds at the end. After an error a part may have been added.
    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()>;
    /// Cuts the file.
    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()>;
    /// The file's length.
    fn length(&self, name: &str) -> io::Result<u64>;
    /// Fills the buffer from this offset; fewer bytes there are an error.
    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()>;
    /// Returns when the file's bytes are on the disk.
    fn sync(&mut self, name: &str) -> io::Result<()>;
    /// Returns when created and removed names are on the disk.
    fn sync_names(&mut self) -> io::Result<()>;
    /// Removes the file.
    fn remove(&mut self, name: &str) -> io::Result<()>;
}

/// When an append waits for the disk.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Fsync {
    /// Every append.
    #[default]
    Always,
    /// An append that comes this long after the last sync.
    Every(Duration),
    /// None.
    Never,
}

/// What gives way when the spool is full.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum WhenFull {
    /// The oldest segment, a sixteenth of the spool.
    #[default]
    DropOldest,
    /// The event that arrives.
    DropNewest,
    /// The arriving event by its rule's class: low ones above half of the space, normal ones above
    /// four fifths; for high ones the oldest segment.
    Priority,
}

/// How much an event matters when there is no room for all.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub enum Class {
    /// Gives way first.
    Low,
    /// Most rules.
    #[default]
    Normal,
    /// Gives way last.
    High,
}

impl Class {
    /// The share of the spool, in tenths, that events of this class may fill.
    fn tenths(self) -> u64 {
        match self {
            Self::Low => 5,
            Self::Normal => 8,
            Self::High => 10,
        }
    }
}

/// Bounds and policies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Of all segments together.
    pub max_bytes: u64,
    /// Older events are dropped.
    pub max_age: Duration,
    /// When an append waits for the disk.
    pub fsync: Fsync,
    /// What gives way.
    pub when_full: WhenFull,
}

impl Limits {
    /// The least `max_bytes`: 16 segments that each hold a big event.
    pub const LEAST_BYTES: u64 = 1 << 20;

    /// A sixteenth, so that dropping the oldest segment drops little.
    fn segment_bytes(&self) -> u64 {
        (self.max_bytes / 16).max(4_096)
    }
}

/// 64 MiB, as edge nodes are small; a day, as an event of yesterday starts nothing useful.
impl Default for Limits {
    fn default() -> Self {
        Self {
            max_bytes: 64 << 20,
            max_age: Duration::from_secs(86_400),
            fsync: Fsync::default(),
            when_full: WhenFull::default(),
        }
    }
}

/// A spool that cannot be used.
#[derive(Debug, Error)]
pub enum SpoolError {
    /// The directory cannot be made, listed or written.
    #[error("spool {path}: {error}; the agent must be able to write there", path = path.display())]
    Directory {
        /// The directory.
        path: PathBuf,
        /// What the system said.
        error: io::Error,
    },
    /// Another process has it.
    #[error(
        "spool {path} is used by another process; give each agent a directory of its own",
        path = path.display()
    )]
    Taken {
        /// The directory.
        path: PathBuf,
    },
    /// A call failed.
    #[error("spool: cannot {doing}: {error}")]
    Io {
        /// What was tried.
        doing: &'static str,
        /// What the system said.
        error: io::Error,
    },
}

impl SpoolError {
    pub(crate) fn io(doing: &'static str) -> impl FnOnce(io::Error) -> Self {
        move |error| Self::Io { doing, error }
    }

    /// The value of the label `reason`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Directory { error, .. } | Self::Io { error, .. } => match error.kind() {
                io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => "disk_full",
                io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => "read_only",
                _ => "io",
            },
            Self::Taken { .. } => "taken",
        }
    }
}

impl Disk for Box<dyn Disk> {
    fn list(&self) -> io::Result<Vec<String>> {
        (**self).list()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        (**self).create(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        (**self).append(name, bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        (**self).truncate(name, length)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        (**self).length(name)
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        (**self).read(name, offset, buffer)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        (**self).sync(name)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        (**self).sync_names()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        (**self).remove(name)
    }
}
