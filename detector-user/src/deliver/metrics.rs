//! What delivery counts. Handles are found once, per rule and per sink; an event then costs a
//! few atomic additions.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

use super::{Ledger, Outcome, Outgoing, ledger::SharedRow, since};
use crate::metrics::{Metrics, latency_histogram};

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct OutcomeLabels {
    rule: String,
    sink: String,
    outcome: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct AttemptLabels {
    sink: String,
    result: &'static str,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SinkLabels {
    sink: String,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct SpoolErrorLabels {
    sink: String,
    reason: &'static str,
}

type Histograms = Family<SinkLabels, Histogram>;

/// All of them.
#[derive(Clone)]
pub(super) struct DeliveryMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_time: Histograms,
    queued: Family<SinkLabels, Gauge>,
    spooled: Family<SinkLabels, Gauge>,
    spool_bytes: Family<SinkLabels, Gauge>,
    spool_errors: Family<SpoolErrorLabels, Counter>,
    sink_up: Family<SinkLabels, Gauge>,
    concurrency: Family<SinkLabels, Gauge>,
    mistakes: Family<SinkLabels, Counter>,
    packet_to_read: Histogram,
    read_to_taken: Histograms,
}

impl DeliveryMetrics {
    pub(super) fn register(metrics: &Metrics) -> Self {
        let this = Self {
            outcomes: Family::default(),
            attempts: Family::default(),
            attempt_time: Family::new_with_constructor(latency_histogram),
            queued: Family::default(),
            spooled: Family::default(),
            spool_bytes: Family::default(),
            spool_errors: Family::default(),
            sink_up: Family::default(),
            concurrency: Family::default(),
            mistakes: Family::default(),
            packet_to_read: latency_histogram(),
            read_to_taken: Family::new_with_constructor(latency_histogram),
        };
        metrics.register(|registry| {
            registry.register(
                "delivery_events",
                "Events by how they ended at a sink: delivered, rejected (it will never take \
                 them), exhausted (retries used up), dropped (the agent stopped), spool_full, \
                 too_old or damaged (in the spool)",
                this.outcomes.clone(),
            );
            registry.register(
                "delivery_attempts",
                "Attempts to deliver, repeated ones included, by their result",
                this.attempts.clone(),
            );
            registry.register(
                "delivery_queued_events",
                "Events waiting for a sink or being sent to it",
                this.queued.clone(),
            );
            registry.register("spool_events", "Events that are on disk only", this.spooled.clone());
            registry.register_with_unit(
                "spool",
                "Size of all segments of the spool",
                Unit::Bytes,
                this.spool_bytes.clone(),
            );
            registry.register(
                "spool_errors",
                "Calls that failed and damage that was found, by reason",
                this.spool_errors.clone(),
            );
            registry.register(
                "delivery_sink_up",
                "1 while the sink takes events, 0 while it is only probed",
                this.sink_up.clone(),
            );
            registry.register(
                "delivery_concurrency",
                "Attempts that may be under way at once",
                this.concurrency.clone(),
            );
            registry.register(
                "ledger_mistakes",
                "Times that the books differed from what is there; always 0",
                this.mistakes.clone(),
            );
            registry.register_with_unit(
                "delivery_attempt",
                "Time of one attempt, a POST with its answer for instance",
                Unit::Seconds,
                this.attempt_time.clone(),
            );
            registry.register_with_unit(
                "packet_to_read",
                "From the packet at the hook to its record read by the agent",
                Unit::Seconds,
                this.packet_to_read.clone(),
            );
            registry.register_with_unit(
                "read_to_delivered",
                "From the record read to the event taken by the sink, retries included",
                Unit::Seconds,
                this.read_to_taken.clone(),
            );
        });
        this
    }

    /// The handles of one sink.
    pub(super) fn lane(&self, sink: &str) -> LaneMetrics {
        let labels = SinkLabels { sink: sink.to_owned() };
        LaneMetrics {
            sink: sink.to_owned(),
            attempts: self.attempts.clone(),
            accepted: self.attempts.get_or_create_owned(&attempt_labels(sink, "ok")),
            attempt_time: self.attempt_time.get_or_create_owned(&labels),
            queued: self.queued.get_or_create_owned(&labels),
            spooled: self.spooled.get_or_create_owned(&labels),
            spool_bytes: self.spool_bytes.get_or_create_owned(&labels),
            spool_errors: self.spool_errors.clone(),
            sink_up: self.sink_up.get_or_create_owned(&labels),
            concurrency: self.concurrency.get_or_create_owned(&labels),
            mistakes: self.mistakes.get_or_create_owned(&labels),
            read_to_taken: self.read_to_taken.get_or_create_owned(&labels),
        }
    }

    /// The handles of one rule at these sinks.
    pub(super) fn rule<'a>(
        &self,
        rule: &str,
        sinks: impl Iterator<Item = (&'a str, &'a Ledger, bool)>,
    ) -> RuleHandle {
        let counter = |sink: &str, outcome| {
            let labels = OutcomeLabels { rule: rule.to_owned(), sink: sink.to_owned(), outcome };
            self.outcomes.get_or_create_owned(&labels)
        };
        let per_sink = sinks.map(|(sink, ledger, wanted)| AtSink {
            wanted,
            row: ledger.row(rule),
            delivered: counter(sink, "delivered"),
            rejected: counter(sink, "rejected"),
            exhausted: counter(sink, "exhausted"),
            dropped: counter(sink, "dropped"),
            queue_full: counter(sink, "queue_full"),
            spool_full: counter(sink, "spool_full"),
            too_old: counter(sink, "too_old"),
            damaged: counter(sink, "damaged"),
        });
        RuleHandle { name: rule.into(), per_sink: per_sink.collect() }
    }

    /// How long the record waited in the ring buffer.
    pub(super) fn observe_read(&self, outgoing: &Outgoing) {
        if let Some(packet_time) = outgoing.packet_time {
            let to_read = since(packet_time).saturating_sub(outgoing.read_at.elapsed());
            self.packet_to_read.observe(to_read.as_secs_f64());
        }
    }
}

fn attempt_labels(sink: &str, result: &'static str) -> AttemptLabels {
    AttemptLabels { sink: sink.to_owned(), result }
}

/// A rule's name and counters, to be kept for as long as the rule is.
#[derive(Clone, Debug)]
pub struct RuleHandle {
    name: Arc<str>,
    per_sink: Arc<[AtSink]>,
}

impl RuleHandle {
    /// The rule's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn sinks(&self) -> usize {
        self.per_sink.len()
    }

    /// Whether events of the rule go to this sink.
    pub(super) fn wanted(&self, sink: usize) -> bool {
        self.per_sink.get(sink).is_some_and(|at| at.wanted)
    }

    pub(super) fn row(&self, sink: usize) -> &SharedRow {
        &self.per_sink[sink].row
    }

    pub(super) fn count(&self, sink: usize, outcome: &Outcome) {
        let counters = &self.per_sink[sink];
        match outcome {
            Outcome::Delivered => counters.delivered.inc(),
            Outcome::Rejected(_) => counters.rejected.inc(),
            Outcome::Exhausted(_) => counters.exhausted.inc(),
            Outcome::Dropped => counters.dropped.inc(),
            Outcome::QueueFull => counters.queue_full.inc(),
            Outcome::SpoolFull => counters.spool_full.inc(),
            Outcome::TooOld => counters.too_old.inc(),
            Outcome::Damaged => counters.damaged.inc(),
        };
    }
}

/// A rule at one sink.
#[derive(Debug)]
struct AtSink {
    wanted: bool,
    row: SharedRow,
    delivered: Counter,
    rejected: Counter,
    exhausted: Counter,
    dropped: Counter,
    queue_full: Counter,
    spool_full: Counter,
    too_old: Counter,
    damaged: Counter,
}

/// One sink's handles.
pub(super) struct LaneMetrics {
    sink: String,
    attempts: Family<AttemptLabels, Counter>,
    accepted: Counter,
    attempt_time: Histogram,
    pub(super) queued: Gauge,
    pub(super) spooled: Gauge,
    pub(super) spool_bytes: Gauge,
    spool_errors: Family<SpoolErrorLabels, Counter>,
    pub(super) sink_up: Gauge,
    pub(super) concurrency: Gauge,
    pub(super) mistakes: Counter,
    pub(super) read_to_taken: Histogram,
}

impl LaneMetrics {
    pub(super) fn spool_error(&self, reason: &'static str, count: u64) {
        let labels = SpoolErrorLabels { sink: self.sink.clone(), reason };
        self.spool_errors.get_or_create(&labels).inc_by(count);
    }

    pub(super) fn attempt<T>(&self, result: &Result<T, super::Failure>, took: std::time::Duration) {
        self.attempt_time.observe(took.as_secs_f64());
        match result {
            Ok(_) => self.accepted.inc(),
            // Failures are rare enough to look their counter up.
            Err(failure) => {
                let labels = attempt_labels(&self.sink, failure.label());
                self.attempts.get_or_create(&labels).inc()
            }
        };
    }
}
