//! What time of day it was when a packet passed. One moment has one time of day, whenever and by
//! whichever agent it is asked for: the ids of events hang on it.

use std::time::{Duration, SystemTime, UNIX_EPOCH};

use super::monotonic_now;
use crate::source::clock_notes::{ClockNotes, ClockSetting, MAX_SETTINGS};

/// Two readings of two clocks never quite agree; what is further apart was set.
const CLOCKS_AGREE_NS: u64 = 1_000_000;

/// This machine's wall clock, as it was set over time.
#[derive(Default)]
pub struct WallClock {
    /// Oldest first.
    settings: Vec<ClockSetting>,
    /// For the next agent, where pins are kept.
    notes: Option<ClockNotes>,
}

impl WallClock {
    /// One that goes on where the agents before left off.
    pub fn noted(notes: ClockNotes) -> Self {
        Self { settings: notes.settings(), notes: Some(notes) }
    }

    /// The time of day at a moment.
    pub(super) fn at(&mut self, monotonic_ns: u64) -> SystemTime {
        let (now_ns, zero_ns) = read_clocks();
        self.look(now_ns, zero_ns);
        self.time_of_day(monotonic_ns)
    }

    /// Remembers if the clock was set.
    fn look(&mut self, now_ns: u64, zero_ns: i64) {
        let agrees = |last: &ClockSetting| last.zero_ns.abs_diff(zero_ns) <= CLOCKS_AGREE_NS;
        if self.settings.last().is_some_and(agrees) {
            return;
        }
        // What passed before there was an agent is told by the first setting.
        let from_ns = if self.settings.is_empty() { 0 } else { now_ns };
        self.settings.push(ClockSetting { from_ns, zero_ns });
        let over = self.settings.len().saturating_sub(MAX_SETTINGS);
        self.settings.drain(..over);
        if let Some(notes) = self.notes.as_mut() {
            notes.keep(&self.settings);
        }
    }

    fn time_of_day(&self, monotonic_ns: u64) -> SystemTime {
        let before = self.settings.iter().rev().find(|it| it.from_ns <= monotonic_ns);
        let setting = before.or(self.settings.first());
        let zero_ns = setting.map_or(0, |setting| setting.zero_ns);
        let zero = Duration::from_nanos(zero_ns.unsigned_abs());
        let zero =
            if zero_ns < 0 { UNIX_EPOCH.checked_sub(zero) } else { UNIX_EPOCH.checked_add(zero) };
        let time = zero.and_then(|zero| zero.checked_add(Duration::from_nanos(monotonic_ns)));
        time.unwrap_or(UNIX_EPOCH)
    }
}

/// CLOCK_MONOTONIC, and what the wall clock would have said at its 0. Read between two readings of
/// the other, again if somebody came between.
fn read_clocks() -> (u64, i64) {
    const CLOSE_NS: u64 = 100_000;
    let mut best = (0, 0, u64::MAX);
    for _ in 0..5 {
        let before = monotonic_now();
        let wall = SystemTime::now();
        let apart = monotonic_now().saturating_sub(before);
        if apart < best.2 {
            let now = before + apart / 2;
            let zero = since_1970(wall) - i128::from(now);
            best = (now, i64::try_from(zero).unwrap_or(0), apart);
        }
        if apart < CLOSE_NS {
            break;
        }
    }
    (best.0, best.1)
}

fn since_1970(time: SystemTime) -> i128 {
    match time.duration_since(UNIX_EPOCH) {
        Ok(after) => after.as_nanos().cast_signed(),
        Err(before) => -before.duration().as_nanos().cast_signed(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn at(clock: &WallClock, seconds: u64) -> i128 {
        since_1970(clock.time_of_day(seconds * SECOND)) / i128::from(SECOND)
    }

    #[test]
    fn one_moment_has_one_time_of_day() {
        let mut clock = WallClock::default();
        let moment = monotonic_now();
        let first = clock.at(moment);
        for _ in 0..1000 {
            assert_eq!(clock.at(moment), first);
        }
        let apart = SystemTime::now().duration_since(first).unwrap();
        assert!(apart < Duration::from_secs(60), "{apart:?}");
    }

    #[test]
    fn a_clock_that_was_set_counts_from_then_on_and_changes_nothing_before() {
        let mut clock = WallClock::default();
        clock.look(10 * SECOND, 1_000 * SECOND as i64);
        assert_eq!([at(&clock, 5), at(&clock, 20)], [1_005, 1_020]);
        clock.look(30 * SECOND, 1_000 * SECOND as i64 + 999_999);
        assert_eq!(clock.settings.len(), 1, "two readings never quite agree");
        // Back by 600 s, then a long way forward.
        clock.look(40 * SECOND, 400 * SECOND as i64);
        assert_eq!([at(&clock, 39), at(&clock, 40)], [1_039, 440]);
        clock.look(50 * SECOND, 9_000 * SECOND as i64);
        assert_eq!([at(&clock, 5), at(&clock, 45), at(&clock, 55)], [1_005, 445, 9_055]);
    }

    #[test]
    fn a_clock_that_is_set_all_the_time_costs_no_more_memory() {
        let mut clock = WallClock::default();
        for setting in 0..1_000u64 {
            clock.look(setting * SECOND, (setting * setting * SECOND) as i64);
        }
        assert_eq!(clock.settings.len(), MAX_SETTINGS);
        assert_eq!(at(&clock, 999), 999 * 999 + 999);
        assert_eq!(at(&clock, 1), 984 * 984 + 1, "the oldest that is known");
    }
}
