//! What the agent's process holds, now and then, and whether that stayed flat.

use std::{fs, time::Duration};

use anyhow::{Context as _, Result};
use humantime::format_duration;

/// One look at the process.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Sample {
    /// Resident memory, KiB.
    pub(super) resident: u64,
    /// Bytes on the heap.
    pub(super) allocated: u64,
    /// Events delivered so far.
    pub(super) delivered: u64,
    /// Open file descriptors.
    pub(super) descriptors: u64,
    /// Threads.
    pub(super) threads: u64,
}

impl Sample {
    /// Of a process that runs (proc(5): `VmRSS` and `Threads` in `status`, entries of `fd`).
    pub(super) fn of(pid: u32, allocated: u64, delivered: u64) -> Result<Self> {
        let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
        let field = |name: &str| {
            let line = status.lines().find_map(|line| line.strip_prefix(name));
            let number = line.and_then(|rest| rest.split_whitespace().next()?.parse().ok());
            number.with_context(|| format!("no {name} in /proc/{pid}/status"))
        };
        Ok(Self {
            resident: field("VmRSS:")?,
            allocated,
            delivered,
            descriptors: fs::read_dir(format!("/proc/{pid}/fd"))?.count() as u64,
            threads: field("Threads:")?,
        })
    }
}

/// All looks so far.
pub(super) struct Samples(Vec<Sample>);

impl Samples {
    /// Prints the table's head.
    pub(super) fn begin() -> Self {
        println!(
            "\n{:>8}  {:>9}  {:>10}  {:>11}  {:>7}  {:>9}",
            "time", "RSS KiB", "heap bytes", "descriptors", "threads", "delivered"
        );
        Self(Vec::new())
    }

    /// Adds one and prints its row.
    pub(super) fn take(&mut self, at: Duration, sample: &Sample) {
        let Sample { resident, allocated, delivered, descriptors, threads } = *sample;
        let at = format_duration(Duration::from_secs(at.as_secs())).to_string();
        println!(
            "{at:>8}  {resident:>9}  {allocated:>10}  {descriptors:>11}  {threads:>7}  {delivered:>9}"
        );
        self.0.push(*sample);
    }

    /// Compares the last third with the one before (the first is the warm-up) and says how it is.
    pub(super) fn verdict(&self) -> bool {
        let third = self.0.len() / 3;
        if third == 0 {
            println!("too short to judge memory");
            return true;
        }
        let (first, last) = self.0[self.0.len() - 2 * third..].split_at(third);
        let resident = grown(first, last, |sample| sample.resident);
        let descriptors = grown(first, last, |sample| sample.descriptors);
        println!(
            "memory grew by {resident} KiB, descriptors by {descriptors}, second third to last (medians)"
        );
        let (heap, events) = (
            grown(first, last, |sample| sample.allocated),
            grown(first, last, |sample| sample.delivered),
        );
        let leaks = heap > HEAP + events;
        println!("the heap grew by {heap} bytes in {events} events, of {} allowed", HEAP + events);
        let flat = resident <= MEMORY_KIB && descriptors <= DESCRIPTORS && !leaks;
        println!("{}", if flat { "flat" } else { "NOT flat" });
        flat
    }
}

/// What may come and go: allocator caches, connections of the moment.
const MEMORY_KIB: i64 = 4096;
const DESCRIPTORS: i64 = 8;
/// What the heap swings by itself; beyond it may grow by a byte an event.
const HEAP: i64 = 32 << 10;

fn grown(first: &[Sample], last: &[Sample], of: impl Fn(&Sample) -> u64) -> i64 {
    let median = |samples: &[Sample]| {
        let mut values: Vec<u64> = samples.iter().map(&of).collect();
        values.sort_unstable();
        values[values.len() / 2].cast_signed()
    };
    median(last) - median(first)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(resident: impl Iterator<Item = u64>) -> Samples {
        Samples(
            resident
                .map(|resident| Sample {
                    resident,
                    allocated: 9_000_000,
                    delivered: 0,
                    descriptors: 30,
                    threads: 6,
                })
                .collect(),
        )
    }

    #[test]
    fn a_process_that_grows_is_not_flat_and_one_that_swings_is() {
        assert!(!samples((0..30).map(|row| 20_000 + row * 500)).verdict());
        assert!(samples((0..30).map(|row| 20_000 + (row % 2) * 3_000)).verdict());
    }

    /// 100 events a second for 20 minutes.
    #[test]
    fn two_bytes_lost_with_each_event_are_found_and_a_swing_is_not() {
        let heap = |of: fn(u64) -> u64| {
            Samples(
                (0..120)
                    .map(|row| Sample {
                        resident: 20_000,
                        allocated: 9_000_000 + of(row),
                        delivered: row * 1_000,
                        descriptors: 30,
                        threads: 6,
                    })
                    .collect(),
            )
        };
        assert!(heap(|row| row % 3 * 400_000).verdict());
        assert!(heap(|row| 2_000_000 * row.min(30)).verdict(), "warm-up");
        assert!(!heap(|row| row * 2_000 + row % 3 * 20_000).verdict());
    }

    #[test]
    fn this_very_process_can_be_looked_at() {
        let sample = Sample::of(std::process::id(), 1, 2).expect("a sample");
        assert!(sample.resident > 0 && sample.descriptors > 0 && sample.threads > 0);
    }
}
