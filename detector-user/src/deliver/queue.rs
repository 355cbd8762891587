//! One sink's queue and workers.

use std::{
    hash::{DefaultHasher, Hash, Hasher},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    time::{Duration, Instant},
};

use cloudevents::{AttributesReader, Event, event::ExtensionValue};
use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::timeout_at,
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, DrainReport, Outcome, Outgoing, Settled, Sink,
    metrics::LaneMetrics,
    outcome::{LogLimit, log_loss},
    retry::{Step, Tried},
};

/// Log lines about events that were not delivered: so many in so much time, per sink.
const LOSS_LINES: u32 = 5;
const LOSS_WINDOW: Duration = Duration::from_secs(10);

/// What the workers of a sink share.
struct Lane {
    sink: Arc<dyn Sink>,
    config: Config,
    metrics: LaneMetrics,
    totals: Totals,
    log_limit: LogLimit,
    /// No more attempts: what still waits is dropped.
    stop: CancellationToken,
}

/// Since the start.
#[derive(Default)]
struct Totals {
    delivered: AtomicU64,
    failed: AtomicU64,
    dropped: AtomicU64,
}

impl Totals {
    fn read(&self) -> DrainReport {
        let read = |counter: &AtomicU64| counter.load(Ordering::Acquire);
        DrainReport {
            delivered: read(&self.delivered),
            failed: read(&self.failed),
            left: read(&self.dropped),
        }
    }
}

/// One event at one sink. However it goes out of scope, it has an outcome: `Dropped` if it got
/// no other.
pub(super) struct Item {
    lane: Arc<Lane>,
    outgoing: Arc<Outgoing>,
    /// The sink's place in the rule's handle.
    index: usize,
    /// Its room in the queue, once it has some.
    room: Option<OwnedSemaphorePermit>,
    outcome: Option<Outcome>,
}

impl Item {
    fn settle(mut self, outcome: Outcome) {
        self.outcome = Some(outcome);
    }
}

impl Drop for Item {
    fn drop(&mut self) {
        let outcome = self.outcome.take().unwrap_or(Outcome::Dropped);
        self.lane.count(self.index, &self.outgoing, &outcome);
        if self.room.is_some() {
            self.lane.metrics.queued.dec();
        }
    }
}

impl Lane {
    fn count(&self, index: usize, outgoing: &Outgoing, outcome: &Outcome) {
        outgoing.rule.count(index, outcome);
        let after = outgoing.read_at.elapsed();
        let total = match outcome {
            Outcome::Delivered => {
                self.metrics.read_to_taken.observe(after.as_secs_f64());
                &self.totals.delivered
            }
            Outcome::Rejected(_) | Outcome::Exhausted(_) => &self.totals.failed,
            Outcome::Dropped => &self.totals.dropped,
        };
        total.fetch_add(1, Ordering::Release);
        let settled = Settled {
            event: &outgoing.event,
            rule: outgoing.rule.name(),
            sink: self.sink.name(),
            outcome,
            after,
        };
        if *outcome != Outcome::Delivered
            && let Some(held_back) = self.log_limit.admit(Instant::now())
        {
            log_loss(&settled, held_back);
        }
        if let Some(observer) = &self.config.observer {
            observer.settled(settled);
        }
    }

    /// Tries until the event is taken or the policy says no.
    async fn deliver(&self, event: &Event) -> Outcome {
        let mut tried = Tried::default();
        loop {
            let begin = Instant::now();
            let result = self.sink.attempt(event).await;
            self.metrics.attempt(&result, begin.elapsed());
            let Err(failure) = result else { return Outcome::Delivered };
            let step = self.config.retry.step(tried, &failure, (self.config.jitter)());
            tracing::debug!(id = event.id(), sink = self.sink.name(), %failure, ?step, "attempt");
            match step {
                Step::Reconnect => {}
                Step::Wait(wait) => tokio::time::sleep(wait).await,
                Step::Reject => return Outcome::Rejected(failure),
                Step::Exhaust => return Outcome::Exhausted(failure),
            }
            tried = tried.and(step);
        }
    }

    async fn work(self: Arc<Self>, mut items: mpsc::UnboundedReceiver<Item>) {
        while let Some(item) = items.recv().await {
            let outcome = tokio::select! {
                biased;
                () = self.stop.cancelled() => Outcome::Dropped,
                outcome = self.deliver(&item.outgoing.event) => outcome,
            };
            item.settle(outcome);
        }
    }
}

/// One sink's queue and workers.
pub(super) struct Queue {
    lane: Arc<Lane>,
    /// Bounds the queue as a whole, however unevenly the UEs fall on the workers.
    room: Arc<Semaphore>,
    workers: Vec<mpsc::UnboundedSender<Item>>,
    tasks: JoinSet<()>,
}

impl Queue {
    pub(super) fn start(config: &Config, sink: Arc<dyn Sink>, metrics: LaneMetrics) -> Self {
        let lane = Arc::new(Lane {
            sink,
            config: config.clone(),
            metrics,
            totals: Totals::default(),
            log_limit: LogLimit::new(LOSS_LINES, LOSS_WINDOW),
            stop: CancellationToken::new(),
        });
        let mut tasks = JoinSet::new();
        let workers = (0..config.workers.max(1)).map(|_| {
            let (sender, receiver) = mpsc::unbounded_channel();
            tasks.spawn(lane.clone().work(receiver));
            sender
        });
        let workers = workers.collect();
        let room = Arc::new(Semaphore::new(config.capacity.clamp(1, Semaphore::MAX_PERMITS)));
        Self { lane, room, workers, tasks }
    }

    pub(super) fn sink_name(&self) -> &str {
        self.lane.sink.name()
    }

    /// From here on the event ends in an outcome, whatever happens.
    pub(super) fn item(&self, outgoing: Arc<Outgoing>, index: usize) -> Item {
        Item { lane: self.lane.clone(), outgoing, index, room: None, outcome: None }
    }

    /// Waits for room.
    pub(super) async fn push(&self, mut item: Item) {
        // The semaphore is never closed; if it were, the item would be dropped and counted.
        let Ok(room) = self.room.clone().acquire_owned().await else { return };
        item.room = Some(room);
        self.lane.metrics.queued.inc();
        let worker = worker_for(&item.outgoing.event, self.workers.len());
        // Fails only if the worker has panicked; the item comes back, is dropped and counted.
        drop(self.workers[worker].send(item));
    }

    pub(super) async fn drain(self, deadline: tokio::time::Instant) -> DrainReport {
        let Self { lane, room: _, workers, mut tasks } = self;
        let before = lane.totals.read();
        drop(workers);
        if timeout_at(deadline, join_workers(&mut tasks)).await.is_err() {
            lane.stop.cancel();
            join_workers(&mut tasks).await;
        }
        let after = lane.totals.read();
        DrainReport {
            delivered: after.delivered - before.delivered,
            failed: after.failed - before.failed,
            left: after.left - before.left,
        }
    }
}

async fn join_workers(tasks: &mut JoinSet<()>) {
    while let Some(ended) = tasks.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a delivery worker has crashed");
        }
    }
}

/// The same worker for all events of one partition, as long as the agent runs.
fn worker_for(event: &Event, workers: usize) -> usize {
    let mut hasher = DefaultHasher::new();
    match event.extension("partitionkey") {
        Some(ExtensionValue::String(key)) => key.hash(&mut hasher),
        Some(ExtensionValue::Integer(key)) => key.hash(&mut hasher),
        Some(ExtensionValue::Boolean(key)) => key.hash(&mut hasher),
        None => event.id().hash(&mut hasher),
    }
    // Less than `workers`, which is a usize.
    (hasher.finish() % workers as u64) as usize
}
