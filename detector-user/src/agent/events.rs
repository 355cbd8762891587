//! Detections -> CloudEvents -> delivery, and the JSON lines that tell of both.

use std::{collections::HashMap, io::Write, sync::Arc, time::SystemTime};

use chrono::{DateTime, Utc};
use cloudevents::AttributesReader;
use serde_json::{Value, json};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use crate::{
    cloudevent::{self, Identity, Overrides, Sampler},
    config::Config,
    deliver::{Delivery, Observer, Outcome, Outgoing, RuleHandle, Settled},
    detection::Detection,
    source::receipt::Receipt,
    trace::{Detected, Spans},
};

/// What `detector run` prints on standard output.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Output {
    /// Nothing; the log goes to standard error.
    #[default]
    None,
    /// A JSON line for each detection and for each event's end at the sink.
    Json,
}

/// Makes events of detections and hands them to the delivery.
pub(super) struct EventMaker {
    identity: Identity,
    overrides: Overrides,
    sampler: Sampler,
    delivery: Arc<Delivery>,
    rules: HashMap<String, RuleHandle>,
    output: Output,
    spans: Option<Arc<dyn Spans>>,
    runtime: Handle,
    give_up: CancellationToken,
}

impl EventMaker {
    /// To be called inside the runtime that delivers. After `give_up` nothing waits for room.
    pub(super) fn new(
        config: &Config,
        delivery: Arc<Delivery>,
        output: Output,
        spans: Option<Arc<dyn Spans>>,
        give_up: CancellationToken,
    ) -> Self {
        Self {
            identity: Identity { site: config.site.clone(), node: config.node.clone() },
            overrides: config.ce_overrides.clone(),
            sampler: config.tracing.sampler,
            delivery,
            rules: HashMap::new(),
            output,
            spans,
            runtime: Handle::current(),
            give_up,
        }
    }

    /// Sends the detection's event; waits while the queue is full. The event holds the receipt until
    /// it is settled. Not for use inside the runtime.
    pub(super) fn send(&mut self, detection: &Detection, receipt: &Receipt) {
        let event = cloudevent::build(detection, &self.identity, &self.overrides, self.sampler);
        if self.output == Output::Json {
            print_line(&json!({
                "kind": "detection",
                "event_id": event.id(),
                "type": event.ty(),
                "rule": detection.rule.name,
                "ue": detection.flow.ue_ip,
                "device": &*detection.device,
                "packet_time": timestamp(detection.time),
                "detected_at": timestamp(SystemTime::now()),
            }));
        }
        let name = &detection.rule.name;
        if !self.rules.contains_key(name) {
            self.rules.insert(name.clone(), self.delivery.rule(name));
        }
        let outgoing = Outgoing::new(event, self.rules[name].clone(), detection);
        if let Some(spans) = &self.spans {
            spans.detected(&detected(&outgoing));
        }
        // An event that is not waited for any longer is counted as dropped.
        let send = self.give_up.run_until_cancelled(self.delivery.send_held(outgoing, receipt));
        self.runtime.block_on(send);
    }
}

fn detected(outgoing: &Outgoing) -> Detected<'_> {
    let made = SystemTime::now();
    let read = made.checked_sub(outgoing.read_at.elapsed()).unwrap_or(made);
    Detected { event: &outgoing.event, packet: outgoing.packet_time, read, made }
}

/// Prints how each event ended.
pub(super) fn observer(output: Output) -> Option<Arc<dyn Observer>> {
    let print = |settled: Settled<'_>| {
        let mut line = json!({
            "kind": settled.outcome.label(),
            "event_id": settled.event.id(),
            "rule": settled.rule,
            "sink": settled.sink,
            "at": timestamp(SystemTime::now()),
            "after_us": settled.after.as_micros() as u64,
        });
        match settled.outcome {
            // All that is known of a 2xx; a Broker answers 202.
            Outcome::Delivered => line["status"] = json!(202),
            Outcome::Rejected(failure) | Outcome::Exhausted(failure) => {
                line["error"] = json!(failure.to_string());
            }
            Outcome::Dropped
            | Outcome::QueueFull
            | Outcome::SpoolFull
            | Outcome::TooOld
            | Outcome::Damaged => {}
        }
        print_line(&line);
    };
    match output {
        Output::None => None,
        Output::Json => Some(Arc::new(print)),
    }
}

fn timestamp(time: SystemTime) -> String {
    DateTime::<Utc>::from(time).to_rfc3339_opts(chrono::SecondsFormat::Micros, true)
}

fn print_line(line: &Value) {
    // A reader that went away must not stop the agent.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
}
