//! A delivery to one sink, whose outcomes a test waits for.

use std::{collections::BTreeMap, path::Path, sync::Arc, time::Duration};

use anyhow::{Context, Result, bail};
use cloudevents::{AttributesReader, Event, EventBuilder, EventBuilderV10, event::ExtensionValue};
use detector_user::{
    deliver::{
        Config, DeadLetters, Delivery, HttpSettings, Lane, Outgoing, Settled, Target, breaker,
        retry,
    },
    metrics::Metrics,
    spool::Class,
};
use testbed::wait;
use tokio::{sync::mpsc, time::timeout};

/// What a test waits for comes long before; if not, it fails instead of hanging.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);
pub(crate) const USERS: usize = 5;

/// The `number`th event of a user.
pub(crate) fn event(user: usize, number: usize, size: usize) -> Result<Event> {
    let ue = format!("10.60.0.{user}");
    let data = serde_json::json!({"number": number, "more": "x".repeat(size)});
    Ok(EventBuilderV10::new()
        .id(format!("{user}-{number}"))
        .source("/mec/site-7/mec-1/n6")
        .ty("com.example.pressed")
        .extension("partitionkey", ue.as_str())
        .data("application/json", data)
        .build()?)
}

pub(crate) struct Bed {
    pub(crate) delivery: Delivery,
    metrics: Metrics,
    outcomes: mpsc::UnboundedReceiver<(String, &'static str, String)>,
}

impl Bed {
    /// To a sink as it is written, or as a config has it. An attempt takes at most this long.
    pub(crate) fn start(target: &Target, attempt: Duration, dead: Option<&Path>) -> Result<Self> {
        let settings = HttpSettings { timeout: attempt, ..HttpSettings::default() };
        let sink = target.open("stream", &settings)?;
        let (sender, outcomes) = mpsc::unbounded_channel();
        let observer = move |settled: Settled<'_>| {
            let reason = settled.outcome.failure().map(ToString::to_string).unwrap_or_default();
            let _ = sender.send((settled.event.id().to_owned(), settled.outcome.label(), reason));
        };
        let pause = Duration::from_millis(100);
        let config = Config {
            observer: Some(Arc::new(observer)),
            retry: retry::Policy { first_wait: Duration::from_millis(20), ..Default::default() },
            breaker: breaker::Policy {
                first_pause: pause,
                longest_pause: pause,
                ..Default::default()
            },
            ..Config::default()
        };
        let dead_letters = dead.map(|path| DeadLetters::new(path.to_owned(), 1 << 30));
        let lane = Lane { dead_letters, ..Lane::from(sink) };
        let metrics = Metrics::new();
        Ok(Self { delivery: Delivery::start(&config, vec![lane], &metrics), metrics, outcomes })
    }

    /// Waits until the sink is only probed.
    pub(crate) fn until_given_up(&self) -> Result<()> {
        wait::until("the sink given up", PATIENCE, || {
            let text = self.metrics.encode()?;
            Ok(text.contains("detector_delivery_sink_up{sink=\"stream\"} 0").then_some(()))
        })
    }

    pub(crate) async fn send(&self, event: Event) {
        let rule = self.delivery.rule("press");
        let read_at = std::time::Instant::now();
        let outgoing = Outgoing { event, rule, read_at, packet_time: None, class: Class::Normal };
        self.delivery.send(outgoing).await;
    }

    /// These of each user.
    pub(crate) async fn send_numbers(&self, numbers: std::ops::Range<usize>) -> Result<()> {
        for number in numbers {
            for user in 0..USERS {
                self.send(event(user, number, 10)?).await;
            }
        }
        Ok(())
    }

    /// How the next event ends: its id, the outcome, the reason.
    pub(crate) async fn outcome(&mut self) -> Result<(String, &'static str, String)> {
        timeout(PATIENCE, self.outcomes.recv()).await?.context("the delivery is gone")
    }

    pub(crate) async fn all_delivered(&mut self, count: usize) -> Result<()> {
        for _ in 0..count {
            let (id, outcome, reason) = self.outcome().await?;
            if outcome != "delivered" {
                bail!("{id}: {outcome}: {reason}");
            }
        }
        Ok(())
    }

    /// The books at the end: delivered and dead-lettered, when nothing else is in them.
    pub(crate) fn books(&self) -> Result<(u64, u64)> {
        let (_, ledger, _) = self.delivery.ledgers().pop().context("a sink")?;
        let row = ledger.rows().get("press").cloned().context("a row")?;
        if row.imbalance() != 0 || row.lost() != 0 || row.in_memory != 0 {
            bail!("{row:?}");
        }
        Ok((row.delivered, row.dead_lettered))
    }
}

/// The numbers of each user's events, as they lie there.
pub(crate) fn numbers(events: &[Event]) -> Result<BTreeMap<String, Vec<u64>>> {
    let mut numbers = BTreeMap::<String, Vec<u64>>::new();
    for event in events {
        let Some(ExtensionValue::String(ue)) = event.extension("partitionkey") else {
            bail!("no UE: {event:?}")
        };
        let data: serde_json::Value = match event.data().context("no data")? {
            cloudevents::Data::Json(data) => data.clone(),
            cloudevents::Data::Binary(bytes) => serde_json::from_slice(bytes)?,
            cloudevents::Data::String(text) => serde_json::from_str(text)?,
        };
        let number = data["number"].as_u64().context("no number")?;
        numbers.entry(ue.clone()).or_default().push(number);
    }
    Ok(numbers)
}

/// Each user's, each once, in order.
pub(crate) fn in_order(count: usize) -> BTreeMap<String, Vec<u64>> {
    let all: Vec<u64> = (0..count as u64).collect();
    (0..USERS).map(|user| (format!("10.60.0.{user}"), all.clone())).collect()
}

/// As a receiver sees it that drops what it had before.
pub(crate) fn without_repeats(numbers: BTreeMap<String, Vec<u64>>) -> BTreeMap<String, Vec<u64>> {
    let first = |numbers: Vec<u64>| {
        let mut seen = std::collections::BTreeSet::new();
        numbers.into_iter().filter(|number| seen.insert(*number)).collect()
    };
    numbers.into_iter().map(|(ue, numbers)| (ue, first(numbers))).collect()
}
