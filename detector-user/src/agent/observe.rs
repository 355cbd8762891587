//! What the agent shows: kernel counters and pipeline counts as metrics, and all of it as `/status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use detector_common::counter::{Counter, RuleCounter};
use serde_json::{Value, json};
use tracing::error;

use super::{
    balance::{Balance, Imbalances},
    ledger::{self, KernelCounts, Ledgers},
    reader::{ReaderCounts, SharedCounts},
    reload::SharedMaps,
};
use crate::{
    admin::StatusProvider,
    attach::{DeviceStatus, State},
    metrics::{Family, Kind, Metrics, Sample},
    pipeline::PipelineCounts,
    source::kernel::PacketCounters,
};

/// The devices as they were after the last look.
#[derive(Clone, Default)]
pub(super) struct Devices(Arc<Mutex<Vec<DeviceStatus>>>);

impl Devices {
    pub(super) fn set(&self, devices: Vec<DeviceStatus>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = devices;
    }

    fn get(&self) -> Vec<DeviceStatus> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// Which devices are not watched as wished, and why; `None` when all are.
pub(super) fn unwatched(devices: &[DeviceStatus]) -> Option<String> {
    let why = |status: &DeviceStatus| {
        let reasons = match &status.state {
            State::Attached { .. } | State::Waiting => return None,
            State::NotAttached { reasons } => reasons.iter().map(|it| it.what.as_str()).collect(),
            State::Missing { reason } => vec![reason.what.as_str()],
        };
        let device = status.device.as_ref().unwrap_or(&status.pattern);
        Some(format!("{device}: {}", reasons.join(", ")))
    };
    let all: Vec<String> = devices.iter().filter_map(why).collect();
    (!all.is_empty()).then(|| all.join("; "))
}

fn current(counts: &SharedCounts) -> ReaderCounts {
    counts.lock().unwrap_or_else(PoisonError::into_inner).clone()
}

/// Registers what is read at scrape time.
pub(super) fn register(
    metrics: &Metrics,
    counters: PacketCounters,
    rules: SharedMaps,
    counts: SharedCounts,
) {
    metrics.collect(move || {
        let mut families = packet_families(&counters);
        families.extend(rule_families(&rules));
        let counts = current(&counts);
        families.extend(pipeline_families(&counts.pipeline));
        families.push(released_early(&counts));
        families
    });
}

fn family(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, unit: None, kind: Kind::Counter, samples }
}

fn packet_families(counters: &PacketCounters) -> Vec<Family> {
    let Ok(values) = counters.read() else { return Vec::new() };
    let one =
        |counter: Counter| vec![Sample { labels: Vec::new(), value: values[counter as usize] }];
    let labelled = |label: &'static str, wanted: fn(Counter) -> bool| {
        let sample = |counter: Counter| Sample {
            labels: vec![(label, counter.name().to_owned())],
            value: values[counter as usize],
        };
        Counter::ALL.into_iter().filter(|counter| wanted(*counter)).map(sample).collect()
    };
    vec![
        family("kernel_packets", "Packets that passed a hook", one(Counter::Packets)),
        family("kernel_bytes", "Their bytes", one(Counter::Bytes)),
        family(
            "kernel_unreadable_packets",
            "Packets that could not be read",
            labelled("reason", Counter::is_parse_fault),
        ),
        family(
            "kernel_findings",
            "What the kernel programs found packets to be",
            labelled("finding", is_finding),
        ),
    ]
}

/// Neither a total nor a packet that could not be read.
fn is_finding(counter: Counter) -> bool {
    !matches!(counter, Counter::Packets | Counter::Bytes) && !counter.is_parse_fault()
}

/// A family for each counter of a rule.
fn rule_families(rules: &SharedMaps) -> Vec<Family> {
    let counts = rules.lock().counts().unwrap_or_default();
    let of = |name, help, counter: RuleCounter| {
        let sample = |(rule, values): (&String, &[u64; RuleCounter::ALL.len()])| Sample {
            labels: vec![("rule", rule.clone())],
            value: values[counter as usize],
        };
        family(name, help, counts.iter().map(sample).collect())
    };
    vec![
        of("rule_matches", "Packets that matched in the kernel", RuleCounter::Matched),
        of("rule_suppressed", "Matches held back by the rule's window", RuleCounter::Suppressed),
        of("rule_ring_full", "Matches lost to a full ring buffer", RuleCounter::RingFull),
    ]
}

fn pipeline_families(counts: &PipelineCounts) -> Vec<Family> {
    let one = |value| vec![Sample { labels: Vec::new(), value }];
    let detected = counts
        .detected
        .iter()
        .map(|(rule, value)| Sample { labels: vec![("rule", rule.clone())], value: *value });
    let refused = counts.refused.iter().map(|((rule, reason), value)| Sample {
        labels: vec![("rule", rule.clone()), ("reason", reason.name().to_owned())],
        value: *value,
    });
    vec![
        family("records", "Records read from the ring buffer", one(counts.records)),
        family(
            "undecodable_records",
            "Records of another version or damaged",
            one(counts.undecodable.values().sum()),
        ),
        family("stale_records", "Records of rules no longer known", one(counts.unknown_generation)),
        family("detections", "Detections", detected.collect()),
        family(
            "refused_matches",
            "Matches of the kernel that were none in full",
            refused.collect(),
        ),
        family("forgotten", "What gave way to others for want of room", forgotten(counts)),
        Family {
            name: "sessions_open",
            help: "Sessions that are open",
            unit: None,
            kind: Kind::Gauge,
            samples: one(counts.sessions_open),
        },
    ]
}

fn forgotten(counts: &PipelineCounts) -> Vec<Sample> {
    let deep = &counts.deep;
    let all = [
        ("flow", counts.flows_forgotten),
        ("hello_or_request", deep.forgotten_flows),
        ("rate", deep.forgotten_rates),
        ("window", deep.forgotten_windows),
    ];
    let sample =
        |(what, value): (&str, u64)| Sample { labels: vec![("what", what.to_owned())], value };
    all.map(sample).into()
}

fn released_early(counts: &ReaderCounts) -> Family {
    let sample = Sample { labels: Vec::new(), value: counts.released_early };
    family(
        "ring_released_early",
        "Records given back to the kernel before their events were delivered or on disk; a kill may \
         cost these",
        vec![sample],
    )
}

/// What `/status` shows.
pub(super) fn status(
    counters: PacketCounters,
    rules: SharedMaps,
    counts: SharedCounts,
    ledgers: Ledgers,
    imbalances: Imbalances,
    devices: Devices,
) -> StatusProvider {
    Arc::new(move || {
        let values = counters.read().unwrap_or([0; Counter::ALL.len()]);
        let packets: BTreeMap<&str, u64> =
            Counter::ALL.into_iter().map(|c| (c.name(), values[c as usize])).collect();
        let counts = current(&counts).pipeline;
        let mut books = ledger::books(kernel_counts(&rules), &counts, &ledgers);
        imbalances.show(&mut books);
        json!({
            "devices": devices.get(),
            "packets": packets,
            "rules": rule_status(&rules, &counts),
            "ledger": books,
            "sessions_open": counts.sessions_open,
            "records": counts.records,
        })
    })
}

fn kernel_counts(rules: &SharedMaps) -> KernelCounts {
    rules.lock().counts().unwrap_or_default()
}

/// Looks at the books once a second, and says when they do not balance.
pub(super) struct Auditor {
    rules: SharedMaps,
    counts: SharedCounts,
    ledgers: Ledgers,
    balance: Balance,
}

impl Auditor {
    pub(super) fn new(rules: SharedMaps, counts: SharedCounts, ledgers: Ledgers) -> Self {
        Self { rules, counts, ledgers, balance: Balance::default() }
    }

    pub(super) fn imbalances(&self) -> Imbalances {
        self.balance.imbalances()
    }

    pub(super) fn look(&mut self) {
        /// The reader publishes ten times a second, unless it waits for room.
        const FRESH: Duration = Duration::from_millis(500);
        let counts = current(&self.counts);
        let quiet = counts.all_read && counts.at.is_some_and(|at| at.elapsed() < FRESH);
        let books = ledger::books(kernel_counts(&self.rules), &counts.pipeline, &self.ledgers);
        for (rule, difference) in self.balance.look(books, &self.ledgers, quiet) {
            error!(rule, difference, "the books do not balance; please report this");
        }
    }
}

fn rule_status(rules: &SharedMaps, counts: &PipelineCounts) -> BTreeMap<String, Value> {
    let kernel = rules.lock().counts().unwrap_or_default();
    let one = |(rule, values): (String, [u64; RuleCounter::ALL.len()])| {
        let refused: BTreeMap<&str, u64> = counts
            .refused
            .iter()
            .filter(|((name, _), _)| *name == rule)
            .map(|((_, reason), count)| (reason.name(), *count))
            .collect();
        let mut status = json!({
            "detected": counts.detected.get(&rule).copied().unwrap_or(0),
            "refused": refused,
        });
        for counter in RuleCounter::ALL {
            status[counter.name()] = json!(values[counter as usize]);
        }
        (rule, status)
    };
    kernel.into_iter().map(one).collect()
}
