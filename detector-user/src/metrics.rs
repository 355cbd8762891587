//! The registry behind `/metrics`. Each module registers its own metrics under the prefix
//! `detector_`; what the kernel counts is read at scrape time through [`Metrics::collect`].

use std::{
    fmt,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, MetricEncoder, NoLabelSet, text::encode},
    metrics::{MetricType, histogram::Histogram, info::Info},
    registry::{Registry, Unit},
};

/// What [`Metrics::encode`] returns, for the `Content-Type` of `/metrics` (OpenMetrics 1.0).
pub const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The agent's metrics. Clones share one registry.
#[derive(Clone, Debug)]
pub struct Metrics {
    registry: Arc<Mutex<Registry>>,
}

impl Default for Metrics {
    fn default() -> Self {
        Self::new()
    }
}

impl Metrics {
    /// A registry that holds `detector_build_info` only.
    pub fn new() -> Self {
        let mut registry = Registry::with_prefix("detector");
        registry.register(
            "build",
            "Version of this agent",
            Info::new([("version", env!("CARGO_PKG_VERSION"))]),
        );
        Self { registry: Arc::new(Mutex::new(registry)) }
    }

    /// Lets a module register its metrics; names come without the prefix `detector_` and without
    /// the suffixes for unit and `_total`, which the encoder adds.
    pub fn register<T>(&self, add: impl FnOnce(&mut Registry) -> T) -> T {
        add(&mut self.lock())
    }

    /// Adds values that somebody else counts: `read` is called at every scrape. A family must
    /// not appear under two collectors.
    pub fn collect(&self, read: impl Fn() -> Vec<Family> + Send + Sync + 'static) {
        self.lock().register_collector(Box::new(AtScrape(read)));
    }

    /// Everything in the OpenMetrics text format. Fails only if a collector's value cannot be
    /// written (a counter that is not a number, say).
    pub fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::new();
        encode(&mut text, &self.lock())?;
        Ok(text)
    }

    /// A panic while registering leaves a readable registry behind, so poison is ignored.
    fn lock(&self) -> MutexGuard<'_, Registry> {
        self.registry.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A histogram for latencies from 10 us (a local hop) to 10 s (the delivery timeout), each
/// bucket twice the one before.
pub fn latency_histogram() -> Histogram {
    Histogram::new((0..=20).map(|doubling| 10e-6 * f64::from(1u32 << doubling)))
}

/// Values of one name, read at scrape time.
#[derive(Clone, Debug)]
pub struct Family {
    /// Name without prefix, unit and `_total`, e.g. `kernel_packets`.
    pub name: &'static str,
    /// One sentence, without the full stop.
    pub help: &'static str,
    /// Becomes part of the name.
    pub unit: Option<Unit>,
    /// Whether values can fall.
    pub kind: Kind,
    /// One per label set.
    pub samples: Vec<Sample>,
}

/// Whether values can fall.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only grows until the agent restarts.
    Counter,
    /// Goes up and down.
    Gauge,
}

/// One value and what it belongs to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Sample {
    /// Label names and values.
    pub labels: Vec<(&'static str, String)>,
    /// The current value.
    pub value: u64,
}

/// A closure as a collector.
struct AtScrape<F>(F);

impl<F> fmt::Debug for AtScrape<F> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("AtScrape")
    }
}

impl<F: Fn() -> Vec<Family> + Send + Sync + 'static> Collector for AtScrape<F> {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        (self.0)().iter().try_for_each(|family| encode_family(family, &mut encoder))
    }
}

fn encode_family(family: &Family, encoder: &mut DescriptorEncoder) -> fmt::Result {
    let metric_type = match family.kind {
        Kind::Counter => MetricType::Counter,
        Kind::Gauge => MetricType::Gauge,
    };
    let mut metric =
        encoder.encode_descriptor(family.name, family.help, family.unit.as_ref(), metric_type)?;
    for sample in &family.samples {
        // A family of one unlabelled value is written without braces.
        if sample.labels.is_empty() {
            encode_value(family.kind, sample.value, &mut metric)?;
        } else {
            encode_value(family.kind, sample.value, &mut metric.encode_family(&sample.labels)?)?;
        }
    }
    Ok(())
}

fn encode_value(kind: Kind, value: u64, metric: &mut MetricEncoder) -> fmt::Result {
    match kind {
        Kind::Counter => metric.encode_counter::<NoLabelSet, u64, u64>(&value, None),
        // The encoder takes no u64 gauge; a level above i64::MAX cannot be.
        Kind::Gauge => metric.encode_gauge(&i64::try_from(value).unwrap_or(i64::MAX)),
    }
}

#[cfg(test)]
pub(crate) mod open_metrics;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn collected_values_are_read_at_every_scrape() {
        let metrics = Metrics::new();
        let value = Arc::new(Mutex::new(1));
        let shared = value.clone();
        metrics.collect(move || {
            vec![Family {
                name: "kernel_packets",
                help: "Packets a hook saw",
                unit: None,
                kind: Kind::Counter,
                samples: vec![Sample {
                    labels: vec![("device", "n6".into())],
                    value: *shared.lock().unwrap(),
                }],
            }]
        });
        let line = |n| format!("detector_kernel_packets_total{{device=\"n6\"}} {n}\n");
        assert!(metrics.encode().unwrap().contains(&line(1)));
        *value.lock().unwrap() = 2;
        assert!(metrics.encode().unwrap().contains(&line(2)));
    }

    #[test]
    fn a_collected_gauge_carries_its_unit_in_the_name() {
        let metrics = Metrics::new();
        metrics.collect(|| {
            vec![Family {
                name: "kernel_ring_used",
                help: "Bytes waiting in the ring buffer",
                unit: Some(Unit::Bytes),
                kind: Kind::Gauge,
                samples: vec![Sample { labels: vec![], value: 7 }],
            }]
        });
        assert!(metrics.encode().unwrap().contains("detector_kernel_ring_used_bytes 7\n"));
    }

    #[test]
    fn the_build_is_named() {
        let version = env!("CARGO_PKG_VERSION");
        let line = format!("detector_build_info{{version=\"{version}\"}} 1\n");
        assert!(Metrics::new().encode().unwrap().contains(&line));
    }

    #[test]
    fn latency_buckets_span_a_local_hop_to_the_timeout() {
        let histogram = latency_histogram();
        histogram.observe(5e-6);
        histogram.observe(10.4);
        let metrics = Metrics::new();
        metrics.register(|r| r.register_with_unit("t", "t", Unit::Seconds, histogram));
        let text = metrics.encode().unwrap();
        assert!(text.contains("detector_t_seconds_bucket{le=\"0.00001\"} 1\n"), "{text}");
        assert!(text.contains("detector_t_seconds_bucket{le=\"10.48576\"} 2\n"), "{text}");
    }
}
