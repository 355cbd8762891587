//! The books from the packet to the sink, by rule: what was detected is delivered, held back, lost
//! with a reason, or still on its way.
//!
//! ```text
//! detected + read_again = suppressed + rate_limited + filtered + lost{kernel/ring_full} + in_ring
//!                         + read_before + emitted
//! emitted  = entered (each sink that wants the rule)
//! entered + recovered = delivered + dead_lettered + lost{stage/reason} + in_memory + in_spool
//! ```
//!
//! `detected` is the kernel's count for rules that it decides, over all agents where pins are kept, and
//! user space's for what only it sees. None of the terms is a remainder: `in_ring` is what the kernel
//! says it has recorded less what agents have read. So when nothing is on its way it is 0, and
//! [`Balance`](super::balance::Balance) checks that. The last line is kept by
//! [`deliver::ledger`](crate::deliver::ledger), to the event.

use std::{collections::BTreeMap, sync::Arc};

use detector_common::counter::RuleCounter;
use serde::Serialize;

use crate::{
    deliver::{Ledger, Routes, ledger::Row},
    metrics::{Family, Kind, Sample},
    pipeline::PipelineCounts,
};

/// The books of each sink, and the rules whose events it gets.
pub(super) type Ledgers = Vec<(String, Ledger, Routes)>;
/// By rule.
pub(super) type Books = BTreeMap<String, RuleBooks>;
pub(super) type KernelCounts = BTreeMap<String, [u64; RuleCounter::ALL.len()]>;

/// One rule.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct RuleBooks {
    pub(super) detected: u64,
    /// Records that an agent before had read and not finished.
    pub(super) read_again: u64,
    /// By the rule's `every` window, in the kernel or in user space.
    pub(super) suppressed: u64,
    /// Counted for a rate.
    pub(super) rate_limited: u64,
    /// Matches of the kernel that were none in full, those that a final rule outweighed, and those
    /// of a rule that was removed before they were read.
    pub(super) filtered: u64,
    /// To a full ring buffer.
    pub(super) lost_in_kernel: u64,
    /// Recorded and not read. Negative if more was read than recorded: a mistake.
    pub(super) in_ring: i128,
    /// By agents before.
    pub(super) read_before: u64,
    pub(super) emitted: u64,
    pub(super) sinks: BTreeMap<String, Row>,
    /// What differs though nothing is on its way; see [`super::balance`].
    pub(super) imbalance: i128,
}

impl RuleBooks {
    /// How many are nowhere, or somewhere twice, if nothing is on its way. Differences of one sign do
    /// not make up for those of the other.
    pub(super) fn difference(&self, wanted_by: impl Iterator<Item = u64>) -> i128 {
        let left = self.detected + self.read_again;
        let held_back = self.suppressed + self.rate_limited + self.filtered;
        let right = held_back + self.lost_in_kernel + self.read_before + self.emitted;
        let nowhere = i128::from(left) - i128::from(right) - self.in_ring;
        let unsent: i128 =
            wanted_by.map(|entered| i128::from(self.emitted.abs_diff(entered))).sum();
        self.in_ring.abs() + nowhere.abs() + unsent
    }
}

pub(super) fn books(kernel: KernelCounts, counts: &PipelineCounts, ledgers: &Ledgers) -> Books {
    let mut rules = Books::new();
    for (rule, values) in kernel {
        let books = rules.entry(rule).or_default();
        let value = |counter: RuleCounter| values.get(counter as usize).copied().unwrap_or(0);
        books.detected = value(RuleCounter::Matched);
        books.suppressed = value(RuleCounter::Suppressed);
        books.lost_in_kernel = value(RuleCounter::RingFull);
        books.in_ring =
            i128::from(books.detected) - i128::from(books.suppressed + books.lost_in_kernel);
    }
    for reads in &counts.reads {
        let books = rules.entry(reads.rule.to_string()).or_default();
        books.read_before = reads.before;
        books.read_again = reads.again;
        books.in_ring -= i128::from(reads.before + reads.here);
    }
    let mut add = |of: &mut dyn Iterator<Item = (&String, &u64)>, to: fn(&mut RuleBooks, u64)| {
        of.for_each(|(rule, count)| to(rules.entry(rule.clone()).or_default(), *count));
    };
    let deep = &counts.deep;
    add(&mut deep.matched.iter(), |books, count| books.detected += count);
    add(&mut counts.sessions_told.iter(), |books, count| books.detected += count);
    let mut refused = counts.refused.iter().map(|((rule, _), count)| (rule, count));
    add(&mut refused, |books, count| books.filtered += count);
    add(&mut counts.gone.iter(), |books, count| books.filtered += count);
    add(&mut deep.outweighed.iter(), |books, count| books.filtered += count);
    add(&mut deep.below_rate.iter(), |books, count| books.rate_limited += count);
    add(&mut deep.suppressed.iter(), |books, count| books.suppressed += count);
    add(&mut counts.detected.iter(), |books, count| books.emitted = count);
    for (sink, ledger, _) in ledgers {
        for (rule, row) in ledger.rows() {
            rules.entry(rule.to_string()).or_default().sinks.insert(sink.clone(), row);
        }
    }
    rules
}

/// What the sinks that want a rule say has come in of it.
pub(super) fn entered<'a>(
    rule: &'a str,
    books: &'a RuleBooks,
    ledgers: &'a Ledgers,
) -> impl Iterator<Item = u64> + 'a {
    let wanting = ledgers.iter().filter(|(_, _, routes)| routes.wants(rule));
    wanting.map(|(sink, _, _)| books.sinks.get(sink).map_or(0, |row| row.entered))
}

/// The sinks' books as metrics.
pub(super) fn families(ledgers: &Ledgers) -> Vec<Family> {
    let rows: Vec<(String, Arc<str>, Row)> = ledgers
        .iter()
        .flat_map(|(sink, ledger, _)| {
            ledger.rows().into_iter().map(|(rule, row)| (sink.clone(), rule, row))
        })
        .collect();
    row_families(&rows)
}

fn row_families(rows: &[(String, Arc<str>, Row)]) -> Vec<Family> {
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
    for (sink, rule, row) in rows {
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
    use crate::{
        confirm::Refusal,
        deep::DeepCounts,
        pipeline::{RuleReads, tests::reads},
    };

    fn counts(reads: RuleReads) -> PipelineCounts {
        PipelineCounts {
            reads: vec![reads],
            detected: [("buy".to_owned(), 4), ("left".to_owned(), 2), ("deep".to_owned(), 1)]
                .into(),
            refused: [(("buy".to_owned(), Refusal::Path), 1)].into(),
            sessions_told: [("left".to_owned(), 2)].into(),
            deep: DeepCounts {
                matched: [("deep".to_owned(), 8)].into(),
                outweighed: [("deep".to_owned(), 1)].into(),
                below_rate: [("deep".to_owned(), 2)].into(),
                suppressed: [("deep".to_owned(), 4)].into(),
                ..DeepCounts::default()
            },
            ..PipelineCounts::default()
        }
    }

    fn differences(matched: u64, reads: RuleReads) -> BTreeMap<String, i128> {
        let kernel = KernelCounts::from([("buy".to_owned(), [matched, 3, 1])]);
        let books = books(kernel, &counts(reads), &vec![]);
        books.into_iter().map(|(rule, of)| (rule, of.difference(std::iter::empty()))).collect()
    }

    #[test]
    fn what_was_detected_is_held_back_lost_emitted_in_the_ring_or_another_agent_s() {
        // Of 9 recorded, 2 were read before, of which one is read again; 4 for the first time.
        let kernel = KernelCounts::from([("buy".to_owned(), [13, 3, 1])]);
        let books = books(kernel, &counts(reads("buy", 2, 4, 1)), &vec![]);
        let buy = &books["buy"];
        assert_eq!((buy.detected, buy.in_ring, buy.filtered), (13, 3, 1));
        assert_eq!(buy.difference(std::iter::empty()), 3, "what is in the ring");
        let deep = &books["deep"];
        assert_eq!((deep.detected, deep.suppressed, deep.rate_limited), (8, 4, 2));
        for rule in ["deep", "left"] {
            assert_eq!(books[rule].difference(std::iter::empty()), 0, "{rule}");
        }
    }

    #[test]
    fn every_term_of_a_sink_s_row_is_a_metric() {
        let row = Row {
            entered: 10,
            recovered: 5,
            delivered: 4,
            dead_lettered: 2,
            lost: [(("spool", "full"), 1), (("delivery", "stopped"), 3)].into(),
            in_memory: 2,
            in_spool: 3,
        };
        assert_eq!(row.imbalance(), 0);
        let families = row_families(&[("http".to_owned(), "buy".into(), row)]);
        let samples = families.iter().flat_map(|family| {
            family.samples.iter().map(|sample| {
                let labels: Vec<_> =
                    sample.labels.iter().map(|(_, value)| value.as_str()).collect();
                (family.name, labels.join(" "), sample.value)
            })
        });
        let expected = [
            ("ledger_entered", "buy http", 10),
            ("ledger_recovered", "buy http", 5),
            ("ledger_delivered", "buy http", 4),
            ("ledger_dead_lettered", "buy http", 2),
            ("ledger_lost", "buy http delivery stopped", 3),
            ("ledger_lost", "buy http spool full", 1),
            ("ledger_in_flight", "buy http memory", 2),
            ("ledger_in_flight", "buy http spool", 3),
        ];
        let expected = expected.map(|(name, labels, value)| (name, labels.to_owned(), value));
        assert_eq!(samples.collect::<Vec<_>>(), expected);
    }

    #[test]
    fn a_match_that_is_nowhere_and_one_that_came_twice_are_differences() {
        let balanced = differences(10, reads("buy", 2, 4, 1));
        assert!(balanced.values().all(|difference| *difference == 0), "{balanced:?}");
        assert_eq!(differences(11, reads("buy", 2, 4, 1))["buy"], 1, "recorded, and never read");
        assert_eq!(differences(9, reads("buy", 2, 4, 1))["buy"], 1, "read, and never recorded");
        // Read, and nothing came of it.
        assert_eq!(differences(11, reads("buy", 2, 5, 1))["buy"], 1);
        let sent = RuleBooks { detected: 5, emitted: 5, ..RuleBooks::default() };
        assert_eq!(sent.difference([5, 4].into_iter()), 1, "one sink did not get one");
    }
}
