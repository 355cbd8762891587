//! Resident memory that the agent keeps to, if it is told to.
//!
//! What is known to grow has its share of it from the start: [`events`] that wait, and [`messages`]
//! that are not whole yet. [`MemoryGuard`] is for all else, users above all: while the process holds
//! too much, the reader leaves records in the ring, and what can be forgotten is. What no longer fits
//! in the ring is counted there, as always.

use std::{
    fs::File,
    os::unix::fs::FileExt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use nix::unistd::{SysconfVar, sysconf};

use crate::metrics::{Family, Kind, Sample};

/// An event that waits, with what is known of its attempts.
const EVENT: u64 = 4 << 10;
/// How long records are left where they are before the next look.
const REST: Duration = Duration::from_millis(10);
/// Between two attempts to make room.
const RELIEF: Duration = Duration::from_millis(100);
/// After so long without room, sessions have to give way too.
const SESSIONS_AFTER: Duration = Duration::from_millis(500);
/// After so long a few records are read all the same: what the agent cannot do without may be more
/// than the budget, and then it is to be slow, not dead.
const PATIENCE: Duration = Duration::from_secs(1);
/// Between two warnings.
const WARN: Duration = Duration::from_secs(60);

/// Events that may wait for each of so many sinks: a quarter of the budget.
pub fn events(budget: u64, sinks: usize) -> usize {
    let all = usize::try_from(budget / 4 / EVENT).unwrap_or(usize::MAX);
    (all / sinks.max(1)).max(64)
}

/// Bytes of messages that are not whole, of TCP flows and of UDP flows: an eighth of the budget each.
pub fn messages(budget: u64) -> usize {
    usize::try_from(budget / 8).unwrap_or(usize::MAX)
}

/// What has to make room.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Relief {
    /// Messages that are not whole.
    Messages,
    /// They, and sessions.
    Sessions,
}

/// The reader's look at what the process holds.
pub struct MemoryGuard {
    limit: u64,
    held: Box<dyn FnMut() -> u64 + Send>,
    short_since: Option<Instant>,
    relieved: Option<Instant>,
    read_at: Option<Instant>,
    warned: Option<Instant>,
    rests: Arc<AtomicU64>,
}

impl MemoryGuard {
    /// Of this process. A sixteenth is left for what happens between two looks.
    ///
    /// # Errors
    /// /proc/self/statm cannot be read.
    pub fn of_process(budget: u64) -> std::io::Result<Self> {
        let statm = File::open("/proc/self/statm")?;
        let page = sysconf(SysconfVar::PAGE_SIZE)?.and_then(|size| size.try_into().ok());
        let page: u64 = page.unwrap_or(4 << 10);
        // Not known is not short. The kernel may be off by 64 pages for each processor (Linux 6.2).
        Ok(Self::new(budget - budget / 16, move || pages(&statm).unwrap_or(0) * page))
    }

    fn new(limit: u64, held: impl FnMut() -> u64 + Send + 'static) -> Self {
        Self {
            limit,
            held: Box::new(held),
            short_since: None,
            relieved: None,
            read_at: None,
            warned: None,
            rests: Arc::default(),
        }
    }

    /// How long the reader is to leave records where they are.
    pub fn rest(&mut self, now: Instant) -> Duration {
        let held = (self.held)();
        if held <= self.limit {
            (self.short_since, self.read_at) = (None, None);
            return Duration::ZERO;
        }
        if self.short_since.is_none() {
            self.rests.fetch_add(1, Ordering::Relaxed);
            (self.short_since, self.read_at) = (Some(now), Some(now));
        }
        if !passed(self.read_at, now, PATIENCE) {
            return REST;
        }
        self.read_at = Some(now);
        if passed(self.warned, now, WARN) {
            self.warned = Some(now);
            log::warn!(
                "limits.memory: {} KiB are held, and little more than {} KiB may be: records wait in \
                 the ring; raise it, or lower limits.sessions",
                held >> 10,
                self.limit >> 10,
            );
        }
        Duration::ZERO
    }

    /// What has to make room now, if anything has.
    pub fn relief(&mut self, now: Instant) -> Option<Relief> {
        let since = self.short_since?;
        if !passed(self.relieved, now, RELIEF) {
            return None;
        }
        self.relieved = Some(now);
        let long = now.duration_since(since) >= SESSIONS_AFTER;
        Some(if long { Relief::Sessions } else { Relief::Messages })
    }

    /// How often the budget was used up, for the metrics.
    pub fn family(&self) -> impl Fn() -> Family + Send + Sync + use<> {
        let rests = self.rests.clone();
        move || Family {
            name: "memory_rests",
            help: "How often the reader began to rest, because limits.memory was used up",
            unit: None,
            kind: Kind::Counter,
            samples: vec![Sample { labels: Vec::new(), value: rests.load(Ordering::Relaxed) }],
        }
    }
}

/// Whether so long has passed, or it never was.
fn passed(since: Option<Instant>, now: Instant, period: Duration) -> bool {
    since.is_none_or(|since| now.duration_since(since) >= period)
}

/// proc_pid_statm(5): the second number is the resident set, in pages.
fn pages(statm: &File) -> Option<u64> {
    let mut text = [0; 128];
    let length = statm.read_at(&mut text, 0).ok()?;
    std::str::from_utf8(&text[..length]).ok()?.split(' ').nth(1)?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A guard of 1,000 bytes, and what is held.
    fn guard() -> (MemoryGuard, Arc<AtomicU64>) {
        let held = Arc::new(AtomicU64::new(0));
        let shown = held.clone();
        (MemoryGuard::new(1_000, move || shown.load(Ordering::Relaxed)), held)
    }

    #[test]
    fn what_is_held_decides_and_each_time_counts_once() {
        let (mut guard, held) = guard();
        let (begun, family) = (Instant::now(), guard.family());
        for (bytes, rest, rests) in [
            (1_000, false, 0),
            (1_001, true, 1),
            (5_000, true, 1),
            (900, false, 1),
            (1_001, true, 2),
        ] {
            held.store(bytes, Ordering::Relaxed);
            assert_eq!(!guard.rest(begun).is_zero(), rest, "{bytes}");
            assert_eq!(family().samples[0].value, rests, "{bytes}");
        }
    }

    #[test]
    fn whoever_never_has_room_reads_a_little_now_and_then() {
        let (mut guard, held) = guard();
        held.store(2_000, Ordering::Relaxed);
        let begun = Instant::now();
        let times = (0..300).map(|step| begun + step * REST);
        let read = times.filter(|now| guard.rest(*now).is_zero()).count();
        assert_eq!(read, 2, "in three seconds, the first of which is waited for");
    }

    #[test]
    fn messages_make_room_at_once_and_sessions_when_that_is_not_enough() {
        let (mut guard, held) = guard();
        let begun = Instant::now();
        assert_eq!(guard.relief(begun), None);
        held.store(2_000, Ordering::Relaxed);
        guard.rest(begun);
        let ms = |ms| begun + Duration::from_millis(ms);
        let reliefs = [0, 50, 100, 499, 599].map(|at| guard.relief(ms(at)));
        let (messages, sessions) = (Some(Relief::Messages), Some(Relief::Sessions));
        assert_eq!(reliefs, [messages, None, messages, messages, sessions]);
        held.store(0, Ordering::Relaxed);
        guard.rest(ms(600));
        assert_eq!(guard.relief(ms(900)), None);
    }

    #[test]
    fn this_process_holds_something() {
        let mut guard = MemoryGuard::of_process(16).expect("/proc");
        assert!(!guard.rest(Instant::now()).is_zero());
        let mut guard = MemoryGuard::of_process(1 << 40).expect("/proc");
        assert!(guard.rest(Instant::now()).is_zero());
    }

    #[test]
    fn shares_are_of_all_sinks_together() {
        assert_eq!((events(64 << 20, 1), events(64 << 20, 4)), (4_096, 1_024));
        assert_eq!((events(0, 0), messages(64 << 20)), (64, 8 << 20));
    }
}
