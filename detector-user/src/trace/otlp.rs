//! Spans to an OpenTelemetry collector: OTLP over HTTP, in protobuf.
//!
//! The SDK's own batching says nothing of spans that it drops, so that this has its own: a bounded
//! queue and one task. A collector that is away costs spans, which are counted, and nothing else.

use std::time::{Duration, SystemTime};

use cloudevents::{AttributesReader, Event};
use futures::{FutureExt, future::BoxFuture};
use opentelemetry::{
    InstrumentationScope, KeyValue,
    trace::{SpanContext, SpanId, SpanKind, Status, TraceFlags, TraceId, TraceState},
};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{SpanData, SpanEvents, SpanExporter as _, SpanLinks},
};
use prometheus_client::{
    encoding::EncodeLabelSet,
    metrics::{counter::Counter, family::Family},
};
use thiserror::Error;
use tokio::sync::{mpsc, oneshot};
use url::Url;

use super::{Attempted, Detected, Spans};
use crate::{
    cloudevent::{Identity, TraceContext},
    metrics::Metrics,
};

/// Spans that wait for the collector.
const QUEUE: usize = 4_096;
/// Spans in a request.
const BATCH: usize = 512;
/// For one request.
const TIMEOUT: Duration = Duration::from_secs(5);

/// The exporter cannot be made.
#[derive(Debug, Error)]
pub enum OtlpError {
    /// The HTTP client.
    #[error("OTLP: HTTP client: {0}")]
    Client(reqwest::Error),
    /// The exporter on top of it.
    #[error("OTLP: {0}")]
    Exporter(opentelemetry_otlp::ExporterBuildError),
}

enum Message {
    Span(Box<SpanData>),
    /// All spans before it have been sent, or have failed.
    Flush(oneshot::Sender<()>),
}

/// The running exporter.
pub struct Otlp {
    messages: mpsc::Sender<Message>,
    counts: Counts,
}

#[derive(Clone, Debug, Hash, PartialEq, Eq, EncodeLabelSet)]
struct Labels {
    result: &'static str,
}

#[derive(Clone, Default)]
struct Counts(Family<Labels, Counter>);

impl Counts {
    fn add(&self, result: &'static str, spans: usize) {
        self.0.get_or_create(&Labels { result }).inc_by(spans as u64);
    }
}

impl Otlp {
    /// To be called inside the runtime. Registers its metrics, so once per registry.
    ///
    /// # Errors
    /// A URL or TLS settings of this system that cannot be used.
    pub fn start(
        endpoint: &Url,
        identity: &Identity,
        metrics: &Metrics,
    ) -> Result<Self, OtlpError> {
        let client = reqwest::Client::builder()
            .no_proxy()
            .timeout(TIMEOUT)
            .build()
            .map_err(OtlpError::Client)?;
        let builder = SpanExporter::builder().with_http().with_http_client(client);
        let mut exporter =
            builder.with_endpoint(endpoint.as_str()).build().map_err(OtlpError::Exporter)?;
        let resource = Resource::builder_empty().with_service_name("detector").with_attributes([
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("host.name", identity.node.clone()),
            KeyValue::new("detector.site", identity.site.clone()),
        ]);
        exporter.set_resource(&resource.build());
        let counts = Counts::default();
        metrics.register(|registry| {
            let help = "Spans by what became of them: sent, failed (the collector did not take \
                        them) or dropped (too many were waiting)";
            registry.register("trace_spans", help, counts.0.clone());
        });
        let (messages, receiver) = mpsc::channel(QUEUE);
        tokio::spawn(export(exporter, receiver, counts.clone()));
        Ok(Self { messages, counts })
    }

    fn send(&self, span: SpanData) {
        if self.messages.try_send(Message::Span(Box::new(span))).is_err() {
            self.counts.add("dropped", 1);
        }
    }
}

async fn export(exporter: SpanExporter, mut messages: mpsc::Receiver<Message>, counts: Counts) {
    let mut received = Vec::new();
    let mut failing = false;
    while messages.recv_many(&mut received, BATCH).await > 0 {
        let (mut spans, mut flushed) = (Vec::new(), Vec::new());
        for message in received.drain(..) {
            match message {
                Message::Span(span) => spans.push(*span),
                Message::Flush(done) => flushed.push(done),
            }
        }
        let count = spans.len();
        let result = if count == 0 { Ok(()) } else { exporter.export(spans).await };
        match &result {
            Ok(()) => counts.add("sent", count),
            Err(error) => {
                counts.add("failed", count);
                if !failing {
                    tracing::warn!(%error, "the collector does not take spans");
                }
            }
        }
        failing = result.is_err();
        for done in flushed {
            let _ = done.send(());
        }
    }
}

impl Spans for Otlp {
    fn detected(&self, detected: &Detected<'_>) {
        let Some(context) = sampled(detected.event) else { return };
        let begin = detected.packet.unwrap_or(detected.read);
        let mut packet = span(context, "packet", context.span, begin, detected.made);
        packet.parent_span_id = SpanId::INVALID;
        packet.attributes = about(detected.event);
        self.send(packet);
        if detected.packet.is_some() {
            let id = context.span_for("ring", 0);
            self.send(span(context, "ring", id, begin, detected.read));
        }
        let id = context.span_for("confirm", 0);
        self.send(span(context, "confirm", id, detected.read, detected.made));
    }

    fn attempted(&self, attempted: &Attempted<'_>) {
        let Some(context) = sampled(attempted.event) else { return };
        let Attempted { sink, waited, begin, took, .. } = *attempted;
        let arrived = begin.checked_sub(waited).unwrap_or(begin);
        let attribute = || KeyValue::new("detector.sink", sink.to_owned());
        let mut queue = span(context, "queue", own_id(context, "queue", attempted), arrived, begin);
        queue.attributes = vec![attribute()];
        self.send(queue);
        let id = own_id(context, attempted.verb, attempted);
        let mut attempt = span(context, attempted.verb, id, begin, begin + took);
        attempt.span_kind = SpanKind::Client;
        attempt.attributes = vec![attribute()];
        if let Some(failure) = attempted.failure {
            attempt.attributes.push(KeyValue::new("error.type", failure.label()));
            attempt.status = Status::error(failure.to_string());
        }
        self.send(attempt);
    }

    fn flush(&self) -> BoxFuture<'_, ()> {
        async {
            let (done, all) = oneshot::channel();
            if self.messages.send(Message::Flush(done)).await.is_ok() {
                let _ = all.await;
            }
        }
        .boxed()
    }
}

fn sampled(event: &Event) -> Option<TraceContext> {
    TraceContext::of(event).filter(|context| context.sampled)
}

/// An event is tried again, at several sinks, and after a restart: when it began tells attempts apart.
fn own_id(context: TraceContext, step: &str, attempted: &Attempted<'_>) -> u64 {
    let since = attempted.begin.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
    context.span_for(&[step, attempted.sink].join(" "), since.as_nanos() as u64)
}

/// OpenTelemetry's semantic conventions for CloudEvents.
fn about(event: &Event) -> Vec<KeyValue> {
    let mut about = vec![
        KeyValue::new("cloudevents.event_id", event.id().to_owned()),
        KeyValue::new("cloudevents.event_source", event.source().clone()),
        KeyValue::new("cloudevents.event_type", event.ty().to_owned()),
    ];
    let subject = event.subject().map(str::to_owned);
    about.extend(subject.map(|subject| KeyValue::new("cloudevents.event_subject", subject)));
    about
}

/// Below the packet's.
fn span(
    context: TraceContext,
    name: &'static str,
    id: u64,
    start_time: SystemTime,
    end_time: SystemTime,
) -> SpanData {
    let trace = TraceId::from_bytes(context.trace.into_bytes());
    let id = SpanId::from_bytes(id.to_be_bytes());
    SpanData {
        span_context: SpanContext::new(
            trace,
            id,
            TraceFlags::SAMPLED,
            false,
            TraceState::default(),
        ),
        parent_span_id: SpanId::from_bytes(context.span.to_be_bytes()),
        parent_span_is_remote: false,
        span_kind: SpanKind::Internal,
        name: name.into(),
        start_time,
        // A clock that was set back in between gives no span that ends before it begins.
        end_time: end_time.max(start_time),
        attributes: Vec::new(),
        dropped_attributes_count: 0,
        events: SpanEvents::default(),
        links: SpanLinks::default(),
        status: Status::Unset,
        instrumentation_scope: InstrumentationScope::builder("detector").build(),
    }
}

#[cfg(test)]
mod tests;
