//! What delivery counts. Handles are found once, per rule and per sink; an event then costs a
//! few atomic additions.

use std::sync::Arc;

use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family, gauge::Gauge, histogram::Histogram},
    registry::Unit,
};

use super::{Outcome, Outgoing, since};
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

type Histograms = Family<SinkLabels, Histogram>;

/// All of them.
#[derive(Clone)]
pub(super) struct DeliveryMetrics {
    outcomes: Family<OutcomeLabels, Counter>,
    attempts: Family<AttemptLabels, Counter>,
    attempt_time: Histograms,
    queued: Family<SinkLabels, Gauge>,
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
            packet_to_read: latency_histogram(),
            read_to_taken: Family::new_with_constructor(latency_histogram),
        };
        metrics.register(|registry| {
            registry.register(
                "delivery_events",
                "Events by how they ended at a sink: delivered, rejected (it will never take \
                 them), exhausted (retries used up) or dropped (the agent stopped)",
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
            read_to_taken: self.read_to_taken.get_or_create_owned(&labels),
        }
    }

    /// The handles of one rule at these sinks.
    pub(super) fn rule<'a>(&self, rule: &str, sinks: impl Iterator<Item = &'a str>) -> RuleHandle {
        let counter = |sink: &str, outcome| {
            let labels = OutcomeLabels { rule: rule.to_owned(), sink: sink.to_owned(), outcome };
            self.outcomes.get_or_create_owned(&labels)
        };
        let counters = sinks.map(|sink| OutcomeCounters {
            delivered: counter(sink, "delivered"),
            rejected: counter(sink, "rejected"),
            exhausted: counter(sink, "exhausted"),
            dropped: counter(sink, "dropped"),
        });
        RuleHandle { name: rule.into(), per_sink: counters.collect() }
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
    per_sink: Arc<[OutcomeCounters]>,
}

impl RuleHandle {
    /// The rule's name.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub(super) fn sinks(&self) -> usize {
        self.per_sink.len()
    }

    pub(super) fn count(&self, sink: usize, outcome: &Outcome) {
        let counters = &self.per_sink[sink];
        match outcome {
            Outcome::Delivered => counters.delivered.inc(),
            Outcome::Rejected(_) => counters.rejected.inc(),
            Outcome::Exhausted(_) => counters.exhausted.inc(),
            Outcome::Dropped => counters.dropped.inc(),
        };
    }
}

#[derive(Debug)]
struct OutcomeCounters {
    delivered: Counter,
    rejected: Counter,
    exhausted: Counter,
    dropped: Counter,
}

/// One sink's handles.
pub(super) struct LaneMetrics {
    sink: String,
    attempts: Family<AttemptLabels, Counter>,
    accepted: Counter,
    attempt_time: Histogram,
    pub(super) queued: Gauge,
    pub(super) read_to_taken: Histogram,
}

impl LaneMetrics {
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
