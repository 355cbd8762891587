//! The books from the packet to the sink, by rule: what was detected is delivered, held back, lost
//! with a reason, or still on its way.
//!
//! ```text
//! detected = suppressed + rate_limited + filtered + lost{kernel/ring_full} + in_ring + emitted
//! emitted + recovered = delivered + dead_lettered + lost{stage/reason} + in_memory + in_spool   (each sink)
//! ```
//!
//! The second line is kept by [`deliver::ledger`](crate::deliver::ledger), to the event. The first is
//! read from the kernel's and the reader's counters while they run, so `in_ring` is what lies between
//! them at that moment.

use std::{collections::BTreeMap, sync::Arc};

use detector_common::counter::RuleCounter;
use serde::Serialize;

use crate::{
    deliver::{Ledger, ledger::Row},
    metrics::{Family, Kind, Sample},
    pipeline::PipelineCounts,
};

/// The books of each sink.
pub(super) type Ledgers = Vec<(String, Ledger)>;
type KernelCounts = BTreeMap<String, [u64; RuleCounter::ALL.len()]>;

/// One rule.
#[derive(Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RuleBooks {
    detected: u64,
    /// By the rule's `every` window, in the kernel or in user space.
    suppressed: u64,
    /// Counted for a rate.
    rate_limited: u64,
    /// Matches of the kernel that were none in full, and those that a final rule outweighed.
    filtered: u64,
    /// To a full ring buffer.
    lost_in_kernel: u64,
    in_ring: u64,
    emitted: u64,
    sinks: BTreeMap<String, Row>,
}

pub(super) fn books(
    kernel: KernelCounts,
    counts: &PipelineCounts,
    ledgers: &Ledgers,
) -> BTreeMap<String, RuleBooks> {
    let mut rules: BTreeMap<String, RuleBooks> = BTreeMap::new();
    for (rule, values) in kernel {
        let books = rules.entry(rule).or_default();
        let value = |counter: RuleCounter| values.get(counter as usize).copied().unwrap_or(0);
        books.detected = value(RuleCounter::Matched);
        books.suppressed = value(RuleCounter::Suppressed);
        books.lost_in_kernel = value(RuleCounter::RingFull);
    }
    for ((rule, _), refused) in &counts.refused {
        rules.entry(rule.clone()).or_default().filtered += refused;
    }
    for (rule, count) in &counts.deep.outweighed {
        rules.entry(rule.clone()).or_default().filtered += count;
    }
    for (rule, count) in &counts.deep.below_rate {
        rules.entry(rule.clone()).or_default().rate_limited += count;
    }
    for (rule, count) in &counts.deep.suppressed {
        rules.entry(rule.clone()).or_default().suppressed += count;
    }
    for (rule, emitted) in &counts.detected {
        rules.entry(rule.clone()).or_default().emitted = *emitted;
    }
    for (sink, ledger) in ledgers {
        for (rule, row) in ledger.rows() {
            rules.entry(rule.to_string()).or_default().sinks.insert(sink.clone(), row);
        }
    }
    for books in rules.values_mut() {
        let held_back = books.suppressed + books.rate_limited + books.filtered;
        let accounted = held_back + books.lost_in_kernel + books.emitted;
        // What user space finds (sessions, rules it decides) the kernel has not counted.
        books.detected = books.detected.max(accounted);
        books.in_ring = books.detected - accounted;
    }
    rules
}

/// The sinks' books as metrics.
pub(super) fn families(ledgers: &Ledgers) -> Vec<Family> {
    let rows: Vec<(String, Arc<str>, Row)> = ledgers
        .iter()
        .flat_map(|(sink, ledger)| {
            ledger.rows().into_iter().map(|(rule, row)| (sink.clone(), rule, row))
        })
        .collect();
    let labels =
        |sink: &str, rule: &str| vec![("rule", rule.to_owned()), ("sink", sink.to_owned())];
    let counter = |name, help, value: fn(&Row) -> u64| {
        let sample = |(sink, rule, row): &(String, Arc<str>, Row)| Sample {
            labels: labels(sink, rule),
            value: value(row),
        };
        let samples = rows.iter().map(sample).collect();
        Family { name, help, unit: None, kind: Kind::Counter, samples }
    };
    let mut lost = Vec::new();
    let mut in_flight = Vec::new();
    for (sink, rule, row) in &rows {
        for ((stage, reason), count) in &row.lost {
            let mut labels = labels(sink, rule);
            labels.extend([("stage", (*stage).to_owned()), ("reason", (*reason).to_owned())]);
            lost.push(Sample { labels, value: *count });
        }
        for (place, count) in [("memory", row.in_memory), ("spool", row.in_spool)] {
            let mut labels = labels(sink, rule);
            labels.push(("place", place.to_owned()));
            in_flight.push(Sample { labels, value: count });
        }
    }
    vec![
        counter("ledger_entered", "Events meant for a sink", |row| row.entered),
        counter("ledger_recovered", "Events found in the spool at the start", |row| row.recovered),
        counter("ledger_delivered", "Events that the sink has taken", |row| row.delivered),
        counter("ledger_dead_lettered", "Events put into the dead letter file", |row| {
            row.dead_lettered
        }),
        Family {
            name: "ledger_lost",
            help: "Events lost on the way to a sink, by stage and reason",
            unit: None,
            kind: Kind::Counter,
            samples: lost,
        },
        Family {
            name: "ledger_in_flight",
            help: "Events on their way to a sink, by where they are",
            unit: None,
            kind: Kind::Gauge,
            samples: in_flight,
        },
    ]
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{confirm::Refusal, deep::DeepCounts};

    #[test]
    fn what_was_detected_is_held_back_lost_emitted_or_in_the_ring() {
        let kernel = KernelCounts::from([("buy".to_owned(), [10, 3, 1])]);
        let counts = PipelineCounts {
            detected: [("buy".to_owned(), 4), ("session-ended".to_owned(), 2)].into(),
            refused: [(("buy".to_owned(), Refusal::Path), 1)].into(),
            deep: DeepCounts {
                outweighed: [("deep".to_owned(), 1)].into(),
                below_rate: [("deep".to_owned(), 2)].into(),
                suppressed: [("deep".to_owned(), 4)].into(),
                ..DeepCounts::default()
            },
            ..PipelineCounts::default()
        };
        let books = books(kernel, &counts, &vec![]);
        let buy = RuleBooks {
            detected: 10,
            suppressed: 3,
            rate_limited: 0,
            filtered: 1,
            lost_in_kernel: 1,
            in_ring: 1,
            emitted: 4,
            sinks: BTreeMap::new(),
        };
        assert_eq!(books["buy"], buy);
        let session = RuleBooks { detected: 2, emitted: 2, ..RuleBooks::default() };
        assert_eq!(books["session-ended"], session);
        let deep = RuleBooks {
            detected: 7,
            suppressed: 4,
            rate_limited: 2,
            filtered: 1,
            ..RuleBooks::default()
        };
        assert_eq!(books["deep"], deep);
    }
}
