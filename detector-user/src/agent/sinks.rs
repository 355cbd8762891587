//! The config's sinks, opened: each with its spool and its dead letter file.

use std::sync::Arc;

use anyhow::Context;

use super::events::{self, Output};
use crate::{
    config::{self, Config, SinkConfig},
    cpu_budget::CpuBudget,
    deliver::{self, DeadLetters, Delivery, HttpSettings, Kept, Lane, Routes, retry},
    memory_budget,
    metrics::Metrics,
    trace::Spans,
};

/// What can be told before anything is started.
pub(super) fn check(config: &Config) -> anyhow::Result<()> {
    anyhow::ensure!(
        !config.sinks.is_empty(),
        "no sink: set spec.sink in the config (url, stdout or file), or K_SINK in the environment"
    );
    Ok(())
}

pub(super) fn start(
    config: &Config,
    output: Output,
    spans: Option<Arc<dyn Spans>>,
    cpu: CpuBudget,
    metrics: &Metrics,
) -> anyhow::Result<Delivery> {
    let lanes: anyhow::Result<Vec<Lane>> =
        config.sinks.iter().map(|sink| open(sink, &config.delivery)).collect();
    let mut settings = deliver::Config { cpu, ..settings(&config.delivery, output, spans) };
    if let Some(budget) = config.limits.memory {
        settings.capacity =
            settings.capacity.min(memory_budget::events(budget, config.sinks.len()));
    }
    Ok(Delivery::start(&settings, lanes?, metrics))
}

fn settings(
    delivery: &config::Delivery,
    output: Output,
    spans: Option<Arc<dyn Spans>>,
) -> deliver::Config {
    deliver::Config {
        capacity: delivery.queue,
        concurrency: delivery.concurrency,
        slow: delivery.timeout / 2,
        retry: retry::Policy {
            retries: delivery.retries,
            first_wait: delivery.backoff,
            ..retry::Policy::default()
        },
        budget: delivery.budget,
        observer: events::observer(output),
        spans,
        ..deliver::Config::default()
    }
}

fn open(config: &SinkConfig, delivery: &config::Delivery) -> anyhow::Result<Lane> {
    let http = HttpSettings {
        timeout: delivery.timeout,
        idle_connections: delivery.concurrency,
        ..HttpSettings::default()
    };
    let name = &config.name;
    let sink = config.sink.open(name, &http).with_context(|| format!("sink {name}"))?;
    let spool = delivery.spool.as_ref();
    let spool = spool.map(|spool| Kept::open(&spool.directory.join(name), spool.limits));
    let dead_letters = delivery.dead_letters.as_ref();
    Ok(Lane {
        sink,
        routes: Routes::of(config.rules.clone()),
        spool: spool.transpose().with_context(|| format!("sink {name}"))?,
        dead_letters: dead_letters.map(|dead| DeadLetters::new(dead.file(name), dead.max_bytes)),
    })
}
