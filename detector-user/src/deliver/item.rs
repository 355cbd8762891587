//! One event at one sink. However it goes out of scope, its end is counted.

use std::{
    hash::{BuildHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, SystemTime},
};

use cloudevents::{AttributesReader, Event, event::ExtensionValue};
use foldhash::fast::RandomState;
use tokio::{sync::OwnedSemaphorePermit, time::Instant};

use super::{
    Config, DrainReport, Ledger, Outcome, Outgoing, Settled, Sink,
    metrics::LaneMetrics,
    outcome::{LogLimit, log_loss},
    retry::Tried,
};
use crate::source::receipt::Receipt;

/// Log lines about events that were not delivered: so many in so much time, per sink.
const LOSS_LINES: u32 = 5;
const LOSS_WINDOW: Duration = Duration::from_secs(10);

/// What all that has to do with one sink shares.
pub(super) struct Shared {
    pub(super) sink: Arc<dyn Sink>,
    /// The sink's place in a rule's handle.
    pub(super) index: usize,
    pub(super) config: Config,
    pub(super) metrics: LaneMetrics,
    pub(super) ledger: Ledger,
    pub(super) totals: Totals,
    log_limit: LogLimit,
    hasher: RandomState,
}

/// Since the start.
#[derive(Default)]
pub(super) struct Totals {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Totals {
    pub(super) fn read(&self) -> DrainReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        DrainReport {
            delivered: read(&self.delivered),
            failed: read(&self.failed),
            left: read(&self.dropped),
            kept: 0,
        }
    }

    fn count(&self, outcome: &Outcome) {
        let total = match outcome {
            Outcome::Delivered => &self.delivered,
            Outcome::Rejected(_) | Outcome::Exhausted(_) => &self.failed,
            Outcome::Dropped
            | Outcome::QueueFull
            | Outcome::SpoolFull
            | Outcome::TooOld
            | Outcome::Damaged => &self.dropped,
        };
        total.fetch_add(1, Ordering::Release);
    }
}

impl Shared {
    pub(super) fn new(
        sink: Arc<dyn Sink>,
        index: usize,
        config: Config,
        metrics: LaneMetrics,
        ledger: Ledger,
    ) -> Self {
        let log_limit = LogLimit::new(LOSS_LINES, LOSS_WINDOW);
        let (totals, hasher) = (Totals::default(), RandomState::default());
        Self { sink, index, config, metrics, ledger, totals, log_limit, hasher }
    }

    /// An event that was on disk only, and cannot be read or had to give way.
    pub(super) fn lost_in_spool(&self, rule: &super::RuleHandle, outcome: &Outcome) {
        rule.row(self.index).lock().end_in_spool(outcome);
        rule.count(self.index, outcome);
        self.totals.count(outcome);
        if let Some(held_back) = self.log_limit.admit(std::time::Instant::now()) {
            let (rule, sink, outcome) = (rule.name(), self.sink.name(), outcome.label());
            tracing::warn!(rule, sink, outcome, held_back, "event lost from the spool");
        }
    }

    fn ended(&self, outgoing: &Outgoing, outcome: &Outcome, dead_lettered: bool) {
        outgoing.rule.count(self.index, outcome);
        self.totals.count(outcome);
        let after = outgoing.read_at.elapsed();
        if *outcome == Outcome::Delivered {
            self.metrics.read_to_taken.observe(after.as_secs_f64());
        }
        let settled = Settled {
            event: &outgoing.event,
            rule: outgoing.rule.name(),
            sink: self.sink.name(),
            outcome,
            dead_lettered,
            after,
        };
        if *outcome != Outcome::Delivered
            && let Some(held_back) = self.log_limit.admit(std::time::Instant::now())
        {
            log_loss(&settled, held_back);
        }
        if let Some(observer) = &self.config.observer {
            observer.settled(settled);
        }
    }
}

/// One event at one sink. Without an outcome it stays in the spool, or was dropped if it is not there.
pub(super) struct Item {
    shared: Arc<Shared>,
    outgoing: Arc<Outgoing>,
    /// Its room in memory, once it has some.
    room: Option<OwnedSemaphorePermit>,
    outcome: Option<(Outcome, bool)>,
    /// While the event is in memory only: the record it came of must stay in the ring.
    receipt: Option<Receipt>,
    /// In the order of arrival at this sink.
    pub(super) order: u64,
    /// Its number in the spool, see [`Self::keep`].
    pub(super) kept: Option<u64>,
    /// It had to give way while it was being sent: no further attempt.
    pub(super) doomed: bool,
    pub(super) tried: Tried,
    /// Since when it waits for its next attempt: by the clock that spans are in, as one must not end
    /// after the next has begun.
    pub(super) waits_since: SystemTime,
    /// Since when it is here, restarts included.
    pub(super) since: Instant,
}

impl Item {
    pub(super) fn arrived(shared: Arc<Shared>, outgoing: Arc<Outgoing>, receipt: Receipt) -> Self {
        outgoing.rule.row(shared.index).lock().enter();
        let mut item = Self::new(shared, outgoing, Instant::now());
        item.receipt = Some(receipt);
        item
    }

    /// It is in the spool, under this number: a kill costs nothing any more.
    pub(super) fn keep(&mut self, number: u64) {
        self.kept = Some(number);
        self.receipt = None;
    }

    /// Whether it should go to the spool now, if there is one.
    pub(super) fn is_urgent(&self) -> bool {
        self.receipt.as_ref().is_some_and(Receipt::is_urgent)
    }

    pub(super) fn from_spool(
        shared: Arc<Shared>,
        outgoing: Outgoing,
        number: u64,
        since: Instant,
        room: OwnedSemaphorePermit,
    ) -> Self {
        outgoing.rule.row(shared.index).lock().enter_memory();
        let mut item = Self::new(shared, Arc::new(outgoing), since);
        item.kept = Some(number);
        item.take_room(room);
        item
    }

    fn new(shared: Arc<Shared>, outgoing: Arc<Outgoing>, since: Instant) -> Self {
        let made = SystemTime::now().checked_sub(since.elapsed()).unwrap_or(SystemTime::UNIX_EPOCH);
        Self {
            shared,
            outgoing,
            room: None,
            outcome: None,
            receipt: None,
            order: 0,
            kept: None,
            doomed: false,
            tried: Tried::default(),
            waits_since: made,
            since,
        }
    }

    pub(super) fn take_room(&mut self, room: OwnedSemaphorePermit) {
        self.room = Some(room);
        self.shared.metrics.queued.inc();
    }

    /// Somebody else may have its room now.
    pub(super) fn give_room(&mut self) -> Option<OwnedSemaphorePermit> {
        let room = self.room.take()?;
        self.shared.metrics.queued.dec();
        Some(room)
    }

    pub(super) fn outgoing(&self) -> &Arc<Outgoing> {
        &self.outgoing
    }

    pub(super) fn end(mut self, outcome: Outcome, dead_lettered: bool) {
        self.outcome = Some((outcome, dead_lettered));
    }

    /// The same for all events whose order must be kept: those of one UE.
    pub(super) fn key(&self) -> u64 {
        key(&self.outgoing.event, &self.shared.hasher)
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        let row = self.outgoing.rule.row(self.shared.index);
        match (self.outcome.take(), self.kept) {
            (None, Some(_)) => row.lock().leave_memory(),
            (ended, _) => {
                let (outcome, dead_lettered) = ended.unwrap_or((Outcome::Dropped, false));
                row.lock().end(&outcome, dead_lettered);
                self.shared.ended(&self.outgoing, &outcome, dead_lettered);
            }
        }
        drop(self.give_room());
    }
}

/// Two UEs with the same hash wait for each other, which does no harm.
fn key(event: &Event, hasher: &RandomState) -> u64 {
    let mut hasher = hasher.build_hasher();
    match event.extension("partitionkey") {
        Some(ExtensionValue::String(key)) => key.hash(&mut hasher),
        Some(ExtensionValue::Integer(key)) => key.hash(&mut hasher),
        Some(ExtensionValue::Boolean(key)) => key.hash(&mut hasher),
        None => event.id().hash(&mut hasher),
    }
    hasher.finish()
}
