//! Delivery: each sink has its own bounded queue, task, spool and dead letter file, so that a dead
//! one harms no other. Every event ends at every sink that wants it in exactly one [`Outcome`], or
//! is still somewhere: the [`Ledger`] says where.
//!
//! - One UE's events (`partitionkey`) are delivered one after the other, retries included; those of
//!   different UEs side by side, as many at once as the sink bears ([`concurrency`](self)).
//! - A sink that fails several times in a row is only probed ([`breaker`]). Meanwhile events wait:
//!   with a spool on disk, and without one in memory until the queue is full. Then
//!   [`Delivery::send`] waits, which stops the reader, and what then does not fit into the kernel's
//!   ring buffer is lost and counted there. Where there are other sinks it does not wait for one that
//!   is down: what finds no room in that one's queue is lost at that one, and counted.
//! - What a sink will never take goes to the dead letter file ([`dead`]), and holds up nobody.

mod attempts;
mod batch;
mod binary;
pub mod breaker;
mod causes;
mod concurrency;
pub mod dead;
mod file;
mod http;
mod item;
#[cfg(feature = "kafka")]
mod kafka;
mod kept;
mod lane;
pub mod ledger;
mod lines;
#[cfg(any(feature = "nats", feature = "kafka"))]
mod login;
mod metrics;
#[cfg(feature = "nats")]
mod nats;
mod outcome;
mod queue;
pub mod retry;
mod route;
mod sink;
mod stdout;
mod tls;
mod token;
mod window;

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
    cpu_budget::CpuBudget,
    detection::{Detection, Moment},
    metrics::Metrics,
    rules::model::SessionEvent,
    source::receipt::Receipt,
    spool::{Class, Recovered},
    trace::Spans,
};
use queue::Queue;

pub use dead::DeadLetters;
pub use http::{HttpSettings, HttpSink};
pub use kept::Kept;
pub use ledger::Ledger;
pub use lines::LineSink;
pub use metrics::RuleHandle;
pub use outcome::{Observer, Outcome, Settled};
pub use route::Routes;
pub use sink::{Failure, Sink, Target, TargetError};

/// How to deliver. `Config::default()` has Knative's retry policy.
#[derive(Clone)]
pub struct Config {
    /// Events a sink's queue holds, those being sent included.
    pub capacity: usize,
    /// Most attempts under way at a sink at the same time.
    pub concurrency: usize,
    /// An answer slower than this is a sign of overload.
    pub slow: Duration,
    /// When to try again.
    pub retry: retry::Policy,
    /// When a sink is only probed.
    pub breaker: breaker::Policy,
    /// An event that is older than this is not tried again.
    pub budget: Duration,
    /// Processor time.
    pub cpu: CpuBudget,
    /// Randomness for the waits between attempts, 0.0 to 1.0.
    pub jitter: Arc<dyn Fn() -> f64 + Send + Sync>,
    /// Is told how each event ended.
    pub observer: Option<Arc<dyn Observer>>,
    /// Is told of each attempt.
    pub spans: Option<Arc<dyn Spans>>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            capacity: 4_096,
            concurrency: 64,
            slow: Duration::from_secs(5),
            retry: retry::Policy::default(),
            breaker: breaker::Policy::default(),
            budget: Duration::from_secs(86_400),
            cpu: CpuBudget::default(),
            jitter: Arc::new(fastrand::f64),
            observer: None,
            spans: None,
        }
    }
}

impl fmt::Debug for Config {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Config")
            .field("capacity", &self.capacity)
            .field("concurrency", &self.concurrency)
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
    /// What it gives way to when a spool is full.
    pub class: Class,
}

impl Outgoing {
    /// The event of a detection. A session's or an idle flow's end, and what passed in a while, is found by
    /// a timer, long after its last packet.
    pub fn new(event: Event, rule: RuleHandle, detection: &Detection) -> Self {
        let by_timer = match &detection.evidence.moment {
            // A session that began is told by its first packet.
            Moment::Session => !detection.rule.is_session(SessionEvent::Started),
            Moment::Idle(_) => true,
            Moment::Packet
            | Moment::Message(_)
            | Moment::Opened
            | Moment::UdpFirst
            | Moment::Closed(_) => false,
        };
        let packet_time = (!by_timer).then_some(detection.time);
        let class = Class::from(detection.rule.priority);
        Self { event, rule, read_at: detection.read_at, packet_time, class }
    }

    /// An event that has waited on disk for this long.
    fn from_spool(event: Event, rule: RuleHandle, age: Duration) -> Self {
        let read_at = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
        Self { event, rule, read_at, packet_time: None, class: Class::default() }
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
    /// Neither delivered nor in the spool when the deadline came. They are lost, and counted.
    pub left: u64,
    /// In the spool: they will be delivered after the next start.
    pub kept: u64,
}

impl std::ops::Add for DrainReport {
    type Output = Self;

    fn add(self, other: Self) -> Self {
        Self {
            delivered: self.delivered + other.delivered,
            failed: self.failed + other.failed,
            left: self.left + other.left,
            kept: self.kept + other.kept,
        }
    }
}

/// A sink, and what belongs to it.
pub struct Lane {
    /// Where events go.
    pub sink: Arc<dyn Sink>,
    /// Which.
    pub routes: Routes,
    /// Where they wait when they must.
    pub spool: Option<(Kept, Recovered)>,
    /// Where those go that it will not take.
    pub dead_letters: Option<DeadLetters>,
}

impl From<Arc<dyn Sink>> for Lane {
    /// Every event; memory only.
    fn from(sink: Arc<dyn Sink>) -> Self {
        Self { sink, routes: Routes::default(), spool: None, dead_letters: None }
    }
}

/// What finds a rule's counters at all sinks.
#[derive(Clone)]
struct Rules {
    metrics: metrics::DeliveryMetrics,
    sinks: Arc<[(String, Ledger, Routes)]>,
}

impl Rules {
    fn handle(&self, rule: &str) -> RuleHandle {
        let sinks = self.sinks.iter();
        let sinks = sinks.map(|(name, ledger, routes)| (&**name, ledger, routes.wants(rule)));
        self.metrics.rule(rule, sinks)
    }
}

/// The running delivery. Dropping it without [`drain`](Self::drain) drops (and counts) what is
/// still waiting and not in a spool.
pub struct Delivery {
    queues: Vec<Queue>,
    rules: Rules,
}

impl Delivery {
    /// Starts the task of every sink. Registers its metrics, so once per registry. Must be called
    /// within a tokio runtime.
    pub fn start(config: &Config, lanes: Vec<Lane>, metrics: &Metrics) -> Self {
        let metrics = metrics::DeliveryMetrics::register(metrics);
        let sinks = lanes
            .iter()
            .map(|lane| (lane.sink.name().to_owned(), Ledger::default(), lane.routes.clone()));
        let rules = Rules { metrics, sinks: sinks.collect() };
        let queues = lanes
            .into_iter()
            .enumerate()
            .map(|(index, lane)| Queue::start(config, lane, index, &rules))
            .collect();
        Self { queues, rules }
    }

    /// The counters of a rule, found once so that events need not look them up.
    pub fn rule(&self, name: &str) -> RuleHandle {
        self.rules.handle(name)
    }

    /// The books of each sink, by its name, and the rules whose events it gets.
    pub fn ledgers(&self) -> Vec<(String, Ledger, Routes)> {
        self.rules.sinks.to_vec()
    }

    /// Queues an event at every sink that wants it; waits while a queue is full, but with several sinks
    /// for none that is down. If the caller stops
    /// waiting, the event counts as `dropped` at the sinks that had no room for it.
    pub async fn send(&self, outgoing: Outgoing) {
        self.send_held(outgoing, &Receipt::none()).await;
    }

    /// As [`Self::send`]; each sink holds the receipt until the event is in its spool, or has ended.
    pub async fn send_held(&self, outgoing: Outgoing, receipt: &Receipt) {
        self.rules.metrics.observe_read(&outgoing);
        debug_assert_eq!(self.queues.len(), outgoing.rule.sinks(), "a handle of this delivery");
        let outgoing = Arc::new(outgoing);
        // All items are made before the first wait: each of them then ends in an outcome.
        let items: Vec<_> = self
            .queues
            .iter()
            .filter(|queue| outgoing.rule.wanted(queue.index()))
            .map(|queue| (queue, queue.item(outgoing.clone(), receipt.clone())))
            .collect();
        let others = self.queues.len() > 1;
        join_all(items.into_iter().map(|(queue, item)| queue.push(item, others))).await;
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
