//! What outlives the agent: its attachments, its tables and the ring buffer, pinned in a BPF file
//! system, so that an agent that is killed, updated or restarted misses no packet. The next agent
//! takes over what it finds.
//!
//! ```text
//! /sys/fs/bpf/detector/                          root only; locked by the agent that uses it
//!   layout-<hash>-<sessions>-<flows>-<ring>/     maps: EVENTS, SESSIONS, TABLES ...
//!   links/<network namespace>-<device>-<hook>    attachments
//! ```
//!
//! The name of the maps' directory says how their bytes are to be read ([`layout`]). Where only sizes
//! differ, the agent goes on with the maps that have the same size and copies what others hold. Maps
//! of another source are not read, but for the ring buffer, whose records each say their version: the
//! agent makes its own maps, puts its programs in the place of the old ones, link by link and each in
//! one step, reads the old ring to its end, and removes the old maps.

mod carry;
mod directory;
pub mod layout;

pub(crate) use directory::remove_directory;
pub use directory::{DEFAULT_PATH, OtherLayout, PinDirectory, PinError, Removed, remove_all};
