//! Delivery: bounded queue -> workers -> sinks, at least once while the agent lives.
//!
//! - Each sink has its own queue and workers ([`queue`](self)). A worker is picked by the hash of
//!   an event's `partitionkey`, and finishes one event, retries included, before the next: so
//!   one UE's events stay in order.
//! - A full queue makes [`Delivery::send`] wait. That stops the reader, and what then does not
//!   fit into the kernel's ring buffer is counted there.
//! - Every event ends at every sink in exactly one [`Outcome`], which is counted, logged if it is
//!   not a delivery, and handed to the [`Observer`]. That is the seam for a dead letter file and
//!   for a spool that outlives the process; neither exists yet, and an event that is not
//!   delivered when the agent stops is lost (and counted as `dropped`).

mod file;
mod http;
mod lines;
mod metrics;
mod outcome;
mod queue;
pub mod retry;
mod sink;
mod stdout;

#[cfg(test)]
mod tests;

use std::{
    fmt,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use cloudevents::Event;
use futures::future::join_all;

use crate::{
    detection::{Detection, Moment},
    metrics::Metrics,
    rules::model::SessionEvent,
};
use queue::Queue;

pub use http::{HttpSettings, HttpSink};
pub use lines::LineSink;
pub use metrics::RuleHandle;
pub use outcome::{Observer, Outcome, Settled};
pub use sink::{Failure, Sink, Target, TargetError};

/// How to deliver. `Config::default()` is Knative's retry policy and 8 workers a sink.
#[derive(Clone)]
pub struct Config {
    /// Events a sink's queue holds, those being sent included.
    pub capacity: usize,
    /// Events a sink is sent at the same time.
    pub workers: usize,
    /// When to try again.
    pub retry: retry::Policy,
    /// Randomness for the waits between attempts, 0.0 to 1.0.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Is told how each event ended.
    pub observer: Option<Arc<dyn Observer>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 4_096,
            workers: 8,
            retry: retry::Policy::default(),
            jitter: Arc::new(fastrand::f64),
            observer: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("capacity", &self.capacity)
            .field("workers", &self.workers)
            .field("retry", &self.retry)
            .finish_non_exhaustive()
    }
}

/// An event on its way out.
#[derive(Clone, Debug)]
pub struct Outgoing {
    /// The event.
    pub event: Event,
    /// The rule it is counted under, from [`Delivery::rule`].
    pub rule: RuleHandle,
    /// When the agent read the record.
    pub read_at: Instant,
    /// When the packet passed the hook; `None` if a timer made the event, not a packet.
    pub packet_time: Option<SystemTime>,
}

impl Outgoing {
    /// The event of a detection. A session's or an idle flow's end is found by a timer, long after its last packet.
    pub fn new(event: Event, rule: RuleHandle, detection: &Detection) -> Self {
        let by_timer = match &detection.evidence.moment {
            // A session that began is told by its first packet.
            Moment::Session => detection.rule.is_session(SessionEvent::Ended),
            Moment::Idle(_) => true,
            Moment::Packet
            | Moment::Message(_)
            | Moment::Opened
            | Moment::UdpFirst
            | Moment::Closed(_) => false,
        };
        let packet_time = (!by_timer).then_some(detection.time);
        Self { event, rule, read_at: detection.read_at, packet_time }
    }
}

/// How the events that were waiting when [`Delivery::drain`] was called have ended; counted per
/// sink, so one event at two sinks counts twice.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct DrainReport {
    /// Taken by the sink.
    pub delivered: u64,
    /// Rejected, or given up after all retries.
    pub failed: u64,
    /// Not delivered when the deadline came. They are lost, and counted as `dropped`.
    pub left: u64,
}

impl std::ops::Add for DrainReport {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            failed: self.failed + other.failed,
            left: self.left + other.left,
        }
    }
}

/// The running delivery. Dropping it without [`drain`](Self::drain) drops (and counts) what is
/// still waiting.
pub struct Delivery {
    queues: Vec<Queue>,
    metrics: metrics::DeliveryMetrics,
}

impl Delivery {
    /// Starts the workers of every sink; every event goes to all of them. Registers its metrics,
    /// so once per registry. Must be called within a tokio runtime.
    pub fn start(config: &Config, sinks: Vec<Arc<dyn Sink>>, metrics: &Metrics) -> Self {
        let metrics = metrics::DeliveryMetrics::register(metrics);
        let queues = sinks.into_iter().map(|sink| {
            let lane = metrics.lane(sink.name());
            Queue::start(config, sink, lane)
        });
        Self { queues: queues.collect(), metrics }
    }

    /// The counters of a rule, found once so that events need not look them up.
    pub fn rule(&self, name: &str) -> RuleHandle {
        self.metrics.rule(name, self.queues.iter().map(Queue::sink_name))
    }

    /// Queues an event at every sink; waits while a queue is full. If the caller stops waiting,
    /// the event counts as `dropped` at the sinks that had no room for it.
    pub async fn send(&self, outgoing: Outgoing) {
        self.metrics.observe_read(&outgoing);
        debug_assert_eq!(self.queues.len(), outgoing.rule.sinks(), "a handle of this delivery");
        let outgoing = Arc::new(outgoing);
        // All items are made before the first wait: each of them then ends in an outcome.
        let items: Vec<_> = self
            .queues
            .iter()
            .enumerate()
            .map(|(index, queue)| (queue, queue.item(outgoing.clone(), index)))
            .collect();
        for (queue, item) in items {
            queue.push(item).await;
        }
    }

    /// Takes no more events and goes on delivering until all have ended or the deadline comes.
    pub async fn drain(self, deadline: tokio::time::Instant) -> DrainReport {
        let reports = join_all(self.queues.into_iter().map(|queue| queue.drain(deadline))).await;
        let report = reports.into_iter().fold(DrainReport::default(), std::ops::Add::add);
        if report.left > 0 {
            tracing::error!(?report, "stopped before all events were delivered");
        }
        report
    }
}

/// The time from `earlier` until now, and zero if the clock was set back.
fn since(earlier: SystemTime) -> Duration {
    SystemTime::now().duration_since(earlier).unwrap_or_default()
}
