//! How an event ends at a sink, and who is told.

use std::{
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use cloudevents::{AttributesReader, Event};

use super::Failure;

/// How an event has ended at a sink.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The sink has taken it.
    Delivered,
    /// The sink will never take it.
    Rejected(Failure),
    /// The sink may have taken it later, but the retries are used up.
    Exhausted(Failure),
    /// The agent stopped first. The sink may have got it nevertheless.
    Dropped,
    /// The queue was full, the sink down, and other sinks must not wait for it.
    QueueFull,
    /// The spool was full, and it gave way.
    SpoolFull,
    /// It lay in the spool for too long.
    TooOld,
    /// It could not be read from the spool any more.
    Damaged,
}

/// What the ledger makes of an outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum End {
    Delivered,
    DeadLettered,
    Lost { stage: &'static str, reason: &'static str },
}

impl Outcome {
    /// As in the label `outcome`.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Delivered => "delivered",
            Self::Rejected(_) => "rejected",
            Self::Exhausted(_) => "exhausted",
            Self::Dropped => "dropped",
            Self::QueueFull => "queue_full",
            Self::SpoolFull => "spool_full",
            Self::TooOld => "too_old",
            Self::Damaged => "damaged",
        }
    }

    /// What the sink answered, if it did not take the event.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Rejected(failure) | Self::Exhausted(failure) => Some(failure),
            Self::Delivered
            | Self::Dropped
            | Self::QueueFull
            | Self::SpoolFull
            | Self::TooOld
            | Self::Damaged => None,
        }
    }

    pub(super) fn end(&self, dead_lettered: bool) -> End {
        let lost = |stage, reason| End::Lost { stage, reason };
        match self {
            Self::Delivered => End::Delivered,
            Self::Rejected(_) | Self::Exhausted(_) if dead_lettered => End::DeadLettered,
            Self::Rejected(_) => lost("delivery", "rejected"),
            Self::Exhausted(_) => lost("delivery", "exhausted"),
            Self::Dropped => lost("delivery", "stopped"),
            Self::QueueFull => lost("delivery", "queue_full"),
            Self::SpoolFull => lost("spool", "full"),
            Self::TooOld => lost("spool", "too_old"),
            Self::Damaged => lost("spool", "damaged"),
        }
    }
}

/// An event that has ended.
#[derive(Clone, Copy, Debug)]
pub struct Settled<'a> {
    /// The event.
    pub event: &'a Event,
    /// The rule that made it.
    pub rule: &'a str,
    /// The sink it ended at.
    pub sink: &'a str,
    /// How.
    pub outcome: &'a Outcome,
    /// Whether it is in the dead letter file.
    pub dead_lettered: bool,
    /// Since the agent read the record.
    pub after: Duration,
}

/// Is told, once per event and sink, how it ended. Called on a worker: must not block.
pub trait Observer: Send + Sync + 'static {
    /// The event has ended.
    fn settled(&self, settled: Settled<'_>);
}

impl<F: Fn(Settled<'_>) + Send + Sync + 'static> Observer for F {
    fn settled(&self, settled: Settled<'_>) {
        self(settled);
    }
}

/// A line for an event that was not delivered; `held_back` are lines the limit has swallowed.
pub(super) fn log_loss(settled: &Settled<'_>, held_back: u64) {
    let (id, rule, sink) = (settled.event.id(), settled.rule, settled.sink);
    let outcome = settled.outcome.label();
    match settled.outcome {
        Outcome::Delivered => {}
        Outcome::Dropped
        | Outcome::QueueFull
        | Outcome::SpoolFull
        | Outcome::TooOld
        | Outcome::Damaged => {
            tracing::warn!(%id, rule, sink, outcome, held_back, "event not delivered");
        }
        Outcome::Rejected(failure) | Outcome::Exhausted(failure) => {
            let dead_lettered = settled.dead_lettered;
            tracing::warn!(
                %id, rule, sink, outcome, %failure, dead_lettered, held_back, "event not delivered"
            );
        }
    }
}

/// Lets only so many lines through in each window of time.
pub(super) struct LogLimit {
    lines: u32,
    window: Duration,
    state: Mutex<State>,
}

#[derive(Default)]
struct State {
    began: Option<Instant>,
    let_through: u32,
    held_back: u64,
}

impl LogLimit {
    pub(super) fn new(lines: u32, window: Duration) -> Self {
        Self { lines, window, state: Mutex::default() }
    }

    /// Whether a line may be written, and how many were not since the last one.
    pub(super) fn admit(&self, now: Instant) -> Option<u64> {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        let over = state.began.is_none_or(|began| now.duration_since(began) >= self.window);
        if over {
            state.began = Some(now);
            state.let_through = 0;
        }
        if state.let_through >= self.lines {
            state.held_back += 1;
            return None;
        }
        state.let_through += 1;
        Some(std::mem::take(&mut state.held_back))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_flood_of_losses_is_a_few_lines_that_say_how_many_were_held_back() {
        let (limit, start) = (LogLimit::new(2, Duration::from_secs(10)), Instant::now());
        let at = |seconds| limit.admit(start + Duration::from_secs(seconds));
        assert_eq!([at(0), at(1), at(2), at(3)], [Some(0), Some(0), None, None]);
        assert_eq!([at(10), at(10), at(10)], [Some(2), Some(0), None]);
    }
}
