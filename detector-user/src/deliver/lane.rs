//! One sink's task: it alone decides which event is tried when, what goes to disk, and how each ends.
//!
//! Events are in memory while the sink is well. They go to the spool, in the order they came, when
//! the breaker opens, when memory is short, when they have waited for [`KEEP_AFTER`], and at the end.
//! As long as events wait on disk only, those that arrive line up behind them. So what is on disk is
//! always older than what is in memory only, and each UE's order holds from memory over the spool to
//! the sink, over restarts too.

mod keep;

use std::{
    collections::VecDeque,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use chrono::{DateTime, Utc};
use cloudevents::AttributesReader;
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    time::{Instant, Interval, MissedTickBehavior},
};
use tokio_util::sync::CancellationToken;

use super::{
    DrainReport, Failure, Outcome, RuleHandle,
    attempts::{Attempts, Ended},
    breaker::{Allowance, Breaker},
    concurrency::Concurrency,
    dead::{DeadLetter, DeadLetters},
    item::{Item, Shared},
    kept::Kept,
    retry::Step,
    window::Window,
};
use crate::trace::Attempted;

/// An event that has waited in memory for so long goes to disk: what a kill can cost without pins.
const KEEP_AFTER: Duration = Duration::from_secs(1);
/// Marks of done events are written, and books checked, this often.
const HOUSEKEEPING: Duration = Duration::from_millis(250);
/// Events taken from the queue in one go.
const BATCH: usize = 256;
/// Room is given back in so many parts when memory is full.
const LUMPS: usize = 64;
/// Books that differ so often in a row are wrong; once or twice, an event was just arriving.
const MISTAKES: u32 = 3;

/// Finds the counters of a rule by its name: for events of an earlier process.
pub(super) type FindRule = Box<dyn Fn(&str) -> RuleHandle + Send + Sync>;

/// What a lane is made of.
pub(super) struct Parts {
    pub(super) shared: Arc<Shared>,
    pub(super) arrivals: mpsc::UnboundedReceiver<Item>,
    pub(super) room: Arc<Semaphore>,
    pub(super) spool: Option<Kept>,
    pub(super) dead: Option<DeadLetters>,
    pub(super) find_rule: FindRule,
    /// Senders that have made an event and wait for room.
    pub(super) sending: Arc<AtomicU64>,
    pub(super) stop: CancellationToken,
}

pub(super) struct Lane {
    parts: Parts,
    window: Window,
    attempts: Attempts,
    breaker: Breaker,
    concurrency: Concurrency,
    /// Could not be written to disk, and must not overtake what is there.
    held: VecDeque<Item>,
    /// Room of events that have ended, not yet given back.
    freed: Option<OwnedSemaphorePermit>,
    /// Numbers in the spool of events that have ended.
    marks: Vec<u64>,
    /// Enough was done until then.
    resting: Option<Instant>,
    /// No more events come.
    ending: bool,
    mistakes: u32,
}

impl Lane {
    pub(super) fn new(parts: Parts) -> Self {
        let config = &parts.shared.config;
        Self {
            window: Window::default(),
            attempts: Attempts::default(),
            breaker: Breaker::new(config.breaker),
            concurrency: Concurrency::new(config.concurrency, config.slow),
            held: VecDeque::new(),
            freed: None,
            marks: Vec::new(),
            resting: None,
            ending: false,
            mistakes: 0,
            parts,
        }
    }

    /// Until no more events come and all have ended, or until told to stop.
    pub(super) async fn run(mut self) {
        let mut housekeeping = housekeeping();
        let mut batch = Vec::new();
        loop {
            self.give_room();
            self.load().await;
            self.start_attempts();
            self.publish();
            if self.is_finished() {
                break;
            }
            let wake = self.wake();
            tokio::select! {
                biased;
                () = self.parts.stop.cancelled() => break,
                Some(ended) = self.attempts.next() => self.attempted(ended).await,
                count = self.parts.arrivals.recv_many(&mut batch, BATCH),
                    if !self.ending && self.held.is_empty() =>
                {
                    match count {
                        0 => self.end_begins().await,
                        _ => self.arrive(std::mem::take(&mut batch)).await,
                    }
                }
                () = sleep_until(wake) => {}
                _ = housekeeping.tick() => self.keep_house().await,
            }
        }
        self.finish().await;
    }

    fn is_finished(&self) -> bool {
        let waiting = self.parts.spool.as_ref().map_or(0, Kept::waiting);
        let nothing_left = self.window.len() == 0 && self.held.is_empty() && waiting == 0;
        // With a spool there is no need to wait for a sink that does not answer.
        let kept_anyway = self.parts.spool.is_some() && self.breaker.is_open();
        self.ending && (nothing_left || kept_anyway)
    }

    fn wake(&self) -> Option<Instant> {
        if self.resting.is_some() {
            return self.resting;
        }
        match self.breaker.allowance(Instant::now()) {
            Allowance::All if self.attempts.len() >= self.concurrency.limit() => None,
            Allowance::Probe if self.attempts.len() > 0 => None,
            Allowance::All | Allowance::Probe => self.window.next_wake(),
            Allowance::NothingUntil(until) => Some(until),
        }
    }

    fn start_attempts(&mut self) {
        let now = Instant::now();
        let rest = match self.ending {
            true => Duration::ZERO,
            false => self.parts.shared.config.cpu.delivery_rest(),
        };
        self.resting = (!rest.is_zero()).then(|| now + rest);
        if self.resting.is_some() {
            return;
        }
        loop {
            let most = match self.breaker.allowance(now) {
                Allowance::All => self.concurrency.limit(),
                Allowance::Probe => 1,
                Allowance::NothingUntil(_) => return,
            };
            if self.attempts.len() >= most {
                return;
            }
            let Some((key, outgoing)) = self.window.next(now) else { return };
            self.attempts.start(self.parts.shared.sink.clone(), key, outgoing);
        }
    }

    async fn attempted(&mut self, ended: Ended) {
        let Ended { key, result, took } = ended;
        let now = Instant::now();
        self.parts.shared.metrics.attempt(&result, took);
        self.tell(key, &result, took);
        let Err(failure) = result else {
            self.well();
            self.concurrency.good(took, self.attempts.len() + 1, now);
            return self.settle(key, Outcome::Delivered, false);
        };
        let config = &self.parts.shared.config;
        let random = (config.jitter)();
        let Some(item) = self.window.head_mut(key) else { return };
        let step = config.retry.step(item.tried, &failure, random);
        let (id, sink) = (item.outgoing().event.id(), self.parts.shared.sink.name());
        tracing::debug!(id, sink, %failure, ?step, "attempt");
        item.tried = item.tried.and(step);
        match step {
            Step::Reconnect => self.window.retry_first(key),
            Step::Reject => {
                if matches!(failure, Failure::Answer { .. } | Failure::Refused(_)) {
                    self.well();
                }
                self.bury(key, Outcome::Rejected(failure)).await;
            }
            Step::Wait(wait) => self.failed(key, failure, Some(wait), random).await,
            Step::Exhaust => self.failed(key, failure, None, random).await,
        }
    }

    fn tell(&mut self, key: u64, result: &Result<(), Failure>, took: Duration) {
        let Shared { sink, config, .. } = &*self.parts.shared;
        let Some(spans) = &config.spans else { return };
        let Some(item) = self.window.head_mut(key) else { return };
        let now = SystemTime::now();
        let begin = now.checked_sub(took).unwrap_or(now).max(item.waits_since);
        spans.attempted(&Attempted {
            event: &item.outgoing().event,
            sink: sink.name(),
            verb: sink.verb(),
            waited: begin.duration_since(item.waits_since).unwrap_or_default(),
            begin,
            took,
            failure: result.as_ref().err(),
        });
        item.waits_since = begin + took;
    }

    /// It may be the sink's fault. `None`: the event's own retries are used up.
    async fn failed(&mut self, key: u64, failure: Failure, wait: Option<Duration>, random: f64) {
        let now = Instant::now();
        self.concurrency.trouble(now);
        let retry = &self.parts.shared.config.retry;
        let asked = failure.retry_after().map(|asked| asked.min(retry.longest_retry_after));
        if self.breaker.failed(now, asked, random) {
            let (sink, kept) = (self.parts.shared.sink.name(), self.parts.spool.is_some());
            tracing::warn!(sink, %failure, kept, "the sink does not take events; probing");
            self.keep_window().await;
        }
        let budget = self.parts.shared.config.budget;
        let Some(item) = self.window.head_mut(key) else { return };
        if item.doomed {
            return self.settle(key, Outcome::SpoolFull, false);
        }
        if now.duration_since(item.since) >= budget {
            return self.bury(key, Outcome::Exhausted(failure)).await;
        }
        // While others fail too, it is not the event's fault, and costs it nothing.
        match wait {
            _ if self.breaker.is_open() => self.window.retry_last(key),
            Some(wait) => self.window.retry_at(key, now + wait),
            None => self.bury(key, Outcome::Exhausted(failure)).await,
        }
    }

    fn well(&mut self) {
        if self.breaker.well() {
            tracing::info!(sink = self.parts.shared.sink.name(), "the sink takes events again");
        }
    }

    /// To the dead letter file, if there is one.
    async fn bury(&mut self, key: u64, outcome: Outcome) {
        let letter = self.letter(key, &outcome);
        let dead_lettered = match (self.parts.dead.clone(), letter) {
            (Some(dead), Some(letter)) => {
                let write = tokio::task::spawn_blocking(move || dead.add(&letter));
                match self.attempts.meanwhile(write).await {
                    Ok(Ok(())) => true,
                    Ok(Err(error)) => {
                        let sink = self.parts.shared.sink.name();
                        tracing::error!(sink, %error, "cannot write a dead letter");
                        false
                    }
                    Err(_) => false,
                }
            }
            (None, _) | (_, None) => false,
        };
        self.settle(key, outcome, dead_lettered);
    }

    fn letter(&mut self, key: u64, outcome: &Outcome) -> Option<DeadLetter> {
        let sink = self.parts.shared.sink.name().to_owned();
        let item = self.window.head_mut(key)?;
        let outgoing = item.outgoing();
        Some(DeadLetter {
            at: DateTime::<Utc>::from(SystemTime::now()).to_rfc3339(),
            sink,
            rule: outgoing.rule.name().to_owned(),
            outcome: outcome.label().to_owned(),
            reason: outcome.failure().map(ToString::to_string).unwrap_or_default(),
            attempts: item.tried.attempts(),
            event: outgoing.event.clone(),
        })
    }

    fn settle(&mut self, key: u64, outcome: Outcome, dead_lettered: bool) {
        let Some(mut item) = self.window.pop(key) else { return };
        self.marks.extend(item.kept.take());
        match (&mut self.freed, item.give_room()) {
            (Some(freed), Some(room)) => freed.merge(room),
            (freed, room) => *freed = freed.take().or(room),
        }
        item.end(outcome, dead_lettered);
    }

    /// While memory is full a reader waits for room. To wake it for each event would cost as much as a
    /// POST, so it is woken for several.
    fn give_room(&mut self) {
        let capacity = self.parts.shared.config.capacity;
        let few = self.freed.as_ref().is_none_or(|freed| freed.num_permits() < capacity / LUMPS);
        if !few || self.window.len() <= capacity / 2 {
            self.freed = None;
        }
    }

    fn publish(&self) {
        let metrics = &self.parts.shared.metrics;
        metrics.sink_up.set(i64::from(!self.breaker.is_open()));
        metrics.concurrency.set(self.concurrency.limit() as i64);
    }

    /// Compares the books with what is here.
    fn check_books(&mut self) {
        let parts = &self.parts;
        if parts.sending.load(Ordering::Acquire) > 0 {
            return;
        }
        let here = self.window.len() + self.held.len() + parts.arrivals.len();
        let in_spool = parts.spool.as_ref().map(Kept::waiting_by_rule).unwrap_or_default();
        let mistakes = parts.shared.ledger.mistakes(here as u64, &in_spool);
        if mistakes.is_empty() {
            self.mistakes = 0;
            return;
        }
        self.mistakes += 1;
        if self.mistakes >= MISTAKES {
            parts.shared.metrics.mistakes.inc();
            let sink = parts.shared.sink.name();
            tracing::error!(sink, ?mistakes, "the books are wrong; please report this");
        }
    }
}

/// Waits for this time, or for ever.
async fn sleep_until(at: Option<Instant>) {
    match at {
        Some(at) => tokio::time::sleep_until(at).await,
        None => std::future::pending().await,
    }
}

fn housekeeping() -> Interval {
    let mut interval = tokio::time::interval(HOUSEKEEPING);
    interval.set_missed_tick_behavior(MissedTickBehavior::Delay);
    interval
}

/// What became of the events, once the lane is gone.
pub(super) fn report(shared: &Shared, before: DrainReport) -> DrainReport {
    let after = shared.totals.read();
    DrainReport {
        delivered: after.delivered - before.delivered,
        failed: after.failed - before.failed,
        left: after.left - before.left,
        kept: shared.ledger.rows().values().map(|row| row.in_spool).sum(),
    }
}
