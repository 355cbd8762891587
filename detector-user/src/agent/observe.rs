//! What the agent shows: kernel counters and pipeline counts as metrics, and all of it as `/status`.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use detector_common::counter::{Counter, RuleCounter};
use serde_json::{Value, json};

use super::{reader::SharedCounts, reload::SharedMaps};
use crate::{
    admin::StatusProvider,
    attach::DeviceStatus,
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

fn current(counts: &SharedCounts) -> PipelineCounts {
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
        families.push(rule_family(&rules));
        families.extend(pipeline_families(&current(&counts)));
        families
    });
}

fn family(name: &'static str, help: &'static str, samples: Vec<Sample>) -> Family {
    Family { name, help, unit: None, kind: Kind::Counter, samples }
}

fn packet_families(counters: &PacketCounters) -> Vec<Family> {
    let Ok(values) = counters.read() else { return Vec::new() };
    let samples = |faults: bool, label: &'static str| {
        let wanted = Counter::ALL.into_iter().filter(move |c| c.is_parse_fault() == faults);
        wanted
            .map(|counter| Sample {
                labels: vec![(label, counter.name().to_owned())],
                value: values[counter as usize],
            })
            .collect()
    };
    vec![
        family("hook", "What the kernel programs counted", samples(false, "what")),
        family("unreadable_packets", "Packets that could not be read", samples(true, "reason")),
    ]
}

fn rule_family(rules: &SharedMaps) -> Family {
    let counts = rules.lock().counts().unwrap_or_default();
    let mut samples = Vec::new();
    for (rule, values) in counts {
        for counter in RuleCounter::ALL {
            samples.push(Sample {
                labels: vec![("rule", rule.clone()), ("what", counter.name().to_owned())],
                value: values[counter as usize],
            });
        }
    }
    family("rule", "What the kernel programs counted for a rule", samples)
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
        Family {
            name: "sessions_open",
            help: "Sessions that are open",
            unit: None,
            kind: Kind::Gauge,
            samples: one(counts.sessions_open),
        },
    ]
}

/// What `/status` shows.
pub(super) fn status(
    counters: PacketCounters,
    rules: SharedMaps,
    counts: SharedCounts,
    devices: Devices,
) -> StatusProvider {
    Arc::new(move || {
        let values = counters.read().unwrap_or([0; Counter::ALL.len()]);
        let packets: BTreeMap<&str, u64> =
            Counter::ALL.into_iter().map(|c| (c.name(), values[c as usize])).collect();
        let counts = current(&counts);
        json!({
            "devices": devices.get(),
            "packets": packets,
            "rules": rule_status(&rules, &counts),
            "sessions_open": counts.sessions_open,
            "records": counts.records,
        })
    })
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
