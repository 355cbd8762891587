//! `detector run` as a process, in namespaces of its own: what users do becomes events at a
//! receiver, and what goes wrong is said, counted, and survived.

mod bed;
mod capture;
mod confined;
mod delivery;
mod faults;
mod flood;
#[allow(dead_code, reason = "other tests use the rest")]
#[path = "../common/frames.rs"]
mod frames;
mod killed;
mod memory;
mod pinned;
mod pressure;
mod read;
mod reload;
mod remembered;
mod schedule;
mod sessions;
mod spool;
mod startup;
mod stop;
mod tun;
mod watching;
