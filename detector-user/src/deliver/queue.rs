//! The way to one sink's task: a queue with room for so many events.

use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, AtomicU64, Ordering},
    },
    time::Duration,
};

use tokio::{
    sync::{OwnedSemaphorePermit, Semaphore, mpsc},
    task::JoinSet,
    time::{timeout, timeout_at},
};
use tokio_util::sync::CancellationToken;

use super::{
    Config, DrainReport, Lane, Outcome, Outgoing, Rules,
    item::{Item, Shared},
    lane::{self, Parts},
};
use crate::{source::receipt::Receipt, spool::Recovered};

/// Other sinks wait so long for one that is down, once: its spool may just be behind.
const GRACE: Duration = Duration::from_secs(1);

pub(super) struct Queue {
    shared: Arc<Shared>,
    /// Bounds what is in memory, wherever it is.
    room: Arc<Semaphore>,
    /// It had no room for longer than others should wait, and has had none since.
    waited_for: AtomicBool,
    arrivals: mpsc::UnboundedSender<Item>,
    sending: Arc<AtomicU64>,
    stop: CancellationToken,
    task: JoinSet<()>,
}

impl Queue {
    pub(super) fn start(config: &Config, lane: Lane, index: usize, rules: &Rules) -> Self {
        let Lane { sink, routes: _, spool, dead_letters } = lane;
        let metrics = rules.metrics.lane(sink.name());
        let ledger = rules.sinks[index].1.clone();
        let shared = Arc::new(Shared::new(sink, index, config.clone(), metrics, ledger));
        let spool = spool.map(|(spool, recovered)| {
            say(&shared, &recovered);
            for (rule, count) in spool.waiting_by_rule() {
                rules.handle(&rule).row(index).lock().recover(count);
            }
            spool
        });
        let room = Arc::new(Semaphore::new(config.capacity.clamp(1, Semaphore::MAX_PERMITS)));
        let (arrivals, receiver) = mpsc::unbounded_channel();
        let (sending, stop) = (Arc::<AtomicU64>::default(), CancellationToken::new());
        let rules = rules.clone();
        let lane = lane::Lane::new(Parts {
            shared: shared.clone(),
            arrivals: receiver,
            room: room.clone(),
            spool,
            dead: dead_letters,
            find_rule: Box::new(move |rule| rules.handle(rule)),
            sending: sending.clone(),
            stop: stop.clone(),
        });
        let mut task = JoinSet::new();
        task.spawn(lane.run());
        Self { shared, room, waited_for: AtomicBool::new(false), arrivals, sending, stop, task }
    }

    pub(super) fn index(&self) -> usize {
        self.shared.index
    }

    /// From here on the event ends in an outcome, whatever happens.
    pub(super) fn item(&self, outgoing: Arc<Outgoing>, receipt: Receipt) -> Sending {
        self.sending.fetch_add(1, Ordering::AcqRel);
        let item = Item::arrived(self.shared.clone(), outgoing, receipt);
        Sending { sending: self.sending.clone(), item: Some(item) }
    }

    /// Waits for room. With `others`, which this one must not hold up, not for long while its sink is
    /// down: then the event is lost here, and counted.
    pub(super) async fn push(&self, mut sending: Sending, others: bool) {
        let room = self.room(others).await;
        let Some(mut item) = sending.item.take() else { return };
        let Some(room) = room else { return item.end(Outcome::QueueFull, false) };
        item.take_room(room);
        // Fails only if the task has crashed; the item comes back, is dropped and counted.
        drop(self.arrivals.send(item));
    }

    async fn room(&self, others: bool) -> Option<OwnedSemaphorePermit> {
        let room = || self.room.clone();
        // The semaphore is never closed; if it were, the item would be dropped and counted.
        if !others {
            return room().acquire_owned().await.ok();
        }
        if let Ok(room) = room().try_acquire_owned() {
            self.waited_for.store(false, Ordering::Relaxed);
            return Some(room);
        }
        loop {
            let down = self.shared.metrics.sink_up.get() == 0;
            if down && self.waited_for.load(Ordering::Relaxed) {
                return None;
            }
            match timeout(GRACE, room().acquire_owned()).await {
                Ok(room) => return room.ok(),
                Err(_) => self.waited_for.store(down, Ordering::Relaxed),
            }
        }
    }

    pub(super) async fn drain(self, deadline: tokio::time::Instant) -> DrainReport {
        let Self { shared, room: _, waited_for: _, arrivals, sending: _, stop, mut task } = self;
        let before = shared.totals.read();
        drop(arrivals);
        if timeout_at(deadline, join(&mut task)).await.is_err() {
            stop.cancel();
            join(&mut task).await;
        }
        lane::report(&shared, before)
    }
}

async fn join(task: &mut JoinSet<()>) {
    while let Some(ended) = task.join_next().await {
        if let Err(error) = ended {
            tracing::error!(%error, "a sink's task has crashed");
        }
    }
}

/// An event on its way to the queue.
pub(super) struct Sending {
    sending: Arc<AtomicU64>,
    item: Option<Item>,
}

impl Drop for Sending {
    fn drop(&mut self) {
        // Counted first: while it is not, nobody compares the books.
        drop(self.item.take());
        self.sending.fetch_sub(1, Ordering::AcqRel);
    }
}

/// What an earlier process left.
fn say(shared: &Shared, recovered: &Recovered) {
    let sink = shared.sink.name();
    for damage in &recovered.damage {
        shared.metrics.spool_error("damaged", 1);
        tracing::error!(sink, %damage, "a place in the spool cannot be read");
    }
    if recovered.missing > 0 {
        shared.metrics.spool_error("missing", recovered.missing);
        tracing::error!(sink, events = recovered.missing, "events are missing from the spool");
    }
    if recovered.waiting > 0 {
        tracing::info!(sink, events = recovered.waiting, "events of an earlier run are waiting");
    }
}
