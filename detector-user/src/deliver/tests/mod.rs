//! Delivery as a whole. [`http`]: against a receiver on loopback that misbehaves. [`queue`]:
//! order, limits and time, with sinks that are functions and, where time matters, a paused clock.

mod batch;
mod faults;
mod http;
mod outage;
mod queue;
mod receiver;
mod spool;
mod tls;
mod whereabouts;

use std::collections::BTreeMap;

use cloudevents::{AttributesReader, EventBuilder, EventBuilderV10};
use futures::{FutureExt, future::BoxFuture};
use serde_json::json;
use tokio::{
    sync::{Notify, mpsc},
    time::timeout,
};

use super::*;
use crate::{config::HttpConfig, metrics::open_metrics};
use receiver::Receiver;

/// What a test waits for comes long before; if not, it fails instead of hanging.
const PATIENCE: Duration = Duration::from_secs(60);

fn event(id: &str, ue: &str) -> Event {
    EventBuilderV10::new()
        .id(id)
        .source("/mec/north/edge-1/n6")
        .ty("com.example.pressed")
        .extension("partitionkey", ue)
        .data("application/json", json!({"ue": ue}))
        .build()
        .unwrap()
}

/// Waits that no test sits out, so that a retry that should be immediate must be.
fn never_waiting() -> retry::Policy {
    let hour = Duration::from_secs(3_600);
    retry::Policy { first_wait: hour, longest_wait: hour, ..retry::Policy::default() }
}

/// Knative's retries without their waits.
fn impatient() -> retry::Policy {
    retry::Policy { first_wait: Duration::ZERO, ..retry::Policy::default() }
}

/// A breaker that probes at once.
fn eager() -> breaker::Policy {
    breaker::Policy { first_pause: Duration::ZERO, ..breaker::Policy::default() }
}

/// A delivery whose outcomes a test can wait for.
struct Bench {
    delivery: Delivery,
    metrics: Metrics,
    outcomes: mpsc::UnboundedReceiver<(String, String, Outcome)>,
}

impl Bench {
    fn start(config: Config, sinks: Vec<Arc<dyn Sink>>) -> Self {
        Self::of(config, sinks.into_iter().map(Lane::from).collect())
    }

    fn of(config: Config, lanes: Vec<Lane>) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let observer = move |settled: Settled<'_>| {
            let (id, sink) = (settled.event.id().to_owned(), settled.sink.to_owned());
            // Fails when the test is over.
            let _ = sender.send((id, sink, settled.outcome.clone()));
        };
        let config =
            Config { jitter: Arc::new(|| 1.0), observer: Some(Arc::new(observer)), ..config };
        let metrics = Metrics::new();
        Self { delivery: Delivery::start(&config, lanes, &metrics), metrics, outcomes }
    }

    fn http(receiver: &Receiver, retry: retry::Policy) -> Self {
        let config = Config { retry, ..Config::default() };
        Self::start(config, vec![http_sink(receiver, Duration::from_secs(60))])
    }

    fn outgoing(&self, event: Event) -> Outgoing {
        Outgoing {
            event,
            rule: self.delivery.rule("press"),
            read_at: Instant::now(),
            packet_time: Some(SystemTime::now()),
            class: Class::default(),
        }
    }

    async fn send(&self, id: &str, ue: &str) {
        self.delivery.send(self.outgoing(event(id, ue))).await;
    }

    async fn ended(&mut self) -> (String, String, Outcome) {
        timeout(PATIENCE, self.outcomes.recv()).await.expect("an outcome in time").unwrap()
    }

    async fn outcome(&mut self) -> Outcome {
        self.ended().await.2
    }

    fn samples(&self) -> BTreeMap<String, f64> {
        open_metrics::read(&self.metrics.encode().unwrap())
    }

    fn counted(&self, sink: &str) -> [f64; 4] {
        let samples = self.samples();
        ["delivered", "rejected", "exhausted", "dropped"].map(|outcome| {
            let labels = format!("rule=\"press\",sink=\"{sink}\",outcome=\"{outcome}\"");
            samples[&format!("detector_delivery_events_total{{{labels}}}")]
        })
    }

    /// The books of a sink for the one rule there is.
    fn books(&self, sink: &str) -> ledger::Row {
        let ledgers = self.delivery.ledgers();
        let (_, ledger, _) = ledgers.iter().find(|(name, ..)| name == sink).unwrap();
        let row = ledger.rows().remove("press").unwrap_or_default();
        assert_eq!(row.imbalance(), 0, "{row:?}");
        row
    }

    fn queued(&self, sink: &str) -> f64 {
        self.samples()[&format!("detector_delivery_queued_events{{sink=\"{sink}\"}}")]
    }
}

fn http_sink(receiver: &Receiver, timeout: Duration) -> Arc<dyn Sink> {
    let settings = HttpSettings { timeout, ..HttpSettings::default() };
    let http = HttpConfig::of(receiver.url.clone());
    Arc::new(HttpSink::new("http", &http, &settings).unwrap())
}

/// A sink that is a function of the event.
struct Acting<F>(&'static str, F);

impl<F> Sink for Acting<F>
where
    F: Fn(&Event) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
{
    fn name(&self) -> &str {
        self.0
    }

    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        self.1(event)
    }
}

fn acting<F>(name: &'static str, act: F) -> Arc<dyn Sink>
where
    F: Fn(&Event) -> BoxFuture<'static, Result<(), Failure>> + Send + Sync + 'static,
{
    Arc::new(Acting(name, act))
}

/// A sink that takes each event once it is let go.
fn gated(gate: &Arc<Notify>) -> Arc<dyn Sink> {
    let gate = gate.clone();
    acting("gated", move |_| {
        let gate = gate.clone();
        async move {
            gate.notified().await;
            Ok(())
        }
        .boxed()
    })
}

fn stuck() -> Arc<dyn Sink> {
    acting("stuck", |_| std::future::pending().boxed())
}
