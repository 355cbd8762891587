//! Against a collector on loopback that reads what comes with OpenTelemetry's own types.

use std::{collections::BTreeMap, sync::Arc, time::Instant};

use axum::{Router, body::Bytes, extract::State, http::StatusCode, routing::post};
use opentelemetry_proto::tonic::{
    collector::trace::v1::ExportTraceServiceRequest,
    trace::v1::{Span, span::SpanKind, status::StatusCode as SpanStatus},
};
use prost::Message as _;
use tokio::net::TcpListener;

use super::*;
use crate::{
    cloudevent::{self, Overrides, Sampler, tests::buy_click},
    deliver::{Config, Delivery, Failure, Lane, Outgoing, Sink},
    metrics::open_metrics,
};

struct Collector {
    url: Url,
    requests: mpsc::UnboundedReceiver<ExportTraceServiceRequest>,
}

async fn collector(answer: StatusCode) -> Collector {
    let (sender, requests) = mpsc::unbounded_channel();
    let take = async move |State(sender): State<mpsc::UnboundedSender<_>>, body: Bytes| {
        let _ = sender.send(ExportTraceServiceRequest::decode(body).unwrap());
        answer
    };
    let router = Router::new().route("/v1/traces", post(take)).with_state(sender);
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/v1/traces", listener.local_addr().unwrap());
    tokio::spawn(axum::serve(listener, router).into_future());
    Collector { url: url.parse().unwrap(), requests }
}

impl Collector {
    fn spans(&mut self) -> Vec<Span> {
        let mut spans = Vec::new();
        while let Ok(request) = self.requests.try_recv() {
            for resource in request.resource_spans {
                let attributes = &resource.resource.as_ref().unwrap().attributes;
                assert!(attributes.iter().any(|it| it.key == "service.name"), "{attributes:?}");
                spans.extend(resource.scope_spans.into_iter().flat_map(|scope| scope.spans));
            }
        }
        spans
    }
}

fn identity() -> Identity {
    Identity { site: "north".into(), node: "edge-1".into() }
}

/// Refuses the first attempt.
struct Second(std::sync::atomic::AtomicBool);

impl Sink for Second {
    fn name(&self) -> &str {
        "broker"
    }

    fn verb(&self) -> &'static str {
        "POST"
    }

    fn attempt<'a>(&'a self, _: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        let again = self.0.swap(true, std::sync::atomic::Ordering::AcqRel);
        let result = if again { Ok(()) } else { Err(Failure::Timeout) };
        async { result }.boxed()
    }
}

/// What the agent does with a detection, from the record on.
async fn follow(sampler: Sampler, metrics: &Metrics, endpoint: &Url) -> Event {
    let otlp = Arc::new(Otlp::start(endpoint, &identity(), metrics).unwrap());
    let config = Config { spans: Some(otlp.clone()), ..Config::default() };
    let sink = Arc::new(Second(false.into()));
    let delivery = Delivery::start(&config, vec![Lane::from(sink as Arc<dyn Sink>)], metrics);
    let mut detection = buy_click();
    detection.read_at = Instant::now();
    detection.time = SystemTime::now() - Duration::from_millis(20);
    let event = cloudevent::build(&detection, &identity(), &Overrides::default(), sampler);
    let outgoing = Outgoing::new(event.clone(), delivery.rule("buy-click"), &detection);
    let read = SystemTime::now();
    let made = read + Duration::from_micros(50);
    otlp.detected(&Detected { event: &event, packet: outgoing.packet_time, read, made });
    delivery.send(outgoing).await;
    delivery.drain(tokio::time::Instant::now() + Duration::from_secs(30)).await;
    otlp.flush().await;
    event
}

#[tokio::test]
async fn a_sampled_event_is_one_trace_from_its_packet_to_the_sinks_answer() {
    let mut collector = collector(StatusCode::OK).await;
    let metrics = Metrics::new();
    let event = follow(Sampler::new(1.0), &metrics, &collector.url).await;
    let context = TraceContext::of(&event).unwrap();
    let spans = collector.spans();
    let mut by_name: BTreeMap<&str, Vec<&Span>> = BTreeMap::new();
    for span in &spans {
        assert_eq!(span.trace_id, context.trace.as_bytes(), "{}", span.name);
        assert!(span.start_time_unix_nano <= span.end_time_unix_nano, "{}", span.name);
        by_name.entry(&span.name).or_default().push(span);
    }
    let counts: Vec<_> = by_name.iter().map(|(name, spans)| (*name, spans.len())).collect();
    assert_eq!(counts, [("POST", 2), ("confirm", 1), ("packet", 1), ("queue", 2), ("ring", 1)]);
    let packet = by_name["packet"][0];
    assert_eq!(
        (&packet.span_id[..], packet.parent_span_id.len()),
        (&context.span.to_be_bytes()[..], 0)
    );
    let children = spans.iter().filter(|span| span.name != "packet");
    assert!(children.into_iter().all(|span| span.parent_span_id == packet.span_id));
    let ids: std::collections::BTreeSet<_> = spans.iter().map(|span| &span.span_id).collect();
    assert_eq!(ids.len(), spans.len(), "each has its own id");

    let [ring, confirm] = ["ring", "confirm"].map(|name| by_name[name][0]);
    assert_eq!(packet.start_time_unix_nano, ring.start_time_unix_nano);
    assert!(ring.end_time_unix_nano - ring.start_time_unix_nano >= 20_000_000, "it waited");
    assert_eq!(ring.end_time_unix_nano, confirm.start_time_unix_nano);
    assert_eq!(confirm.end_time_unix_nano, packet.end_time_unix_nano);
    for (queue, attempt) in by_name["queue"].iter().zip(&by_name["POST"]) {
        assert_eq!(queue.end_time_unix_nano, attempt.start_time_unix_nano);
        assert_eq!(attempt.kind(), SpanKind::Client);
    }
    let [first, second] = by_name["queue"][..] else { panic!("two") };
    assert!(first.end_time_unix_nano <= second.start_time_unix_nano);
    assert!(second.end_time_unix_nano - second.start_time_unix_nano >= 25_000_000, "the backoff");
    let status = |span: &Span| span.status.as_ref().map(|status| status.code());
    assert_eq!(status(by_name["POST"][0]), Some(SpanStatus::Error));
    assert_ne!(status(by_name["POST"][1]), Some(SpanStatus::Error));
    let sent = open_metrics::read(&metrics.encode().unwrap());
    assert_eq!(sent["detector_trace_spans_total{result=\"sent\"}"], 7.0);
}

#[tokio::test]
async fn an_event_that_is_not_sampled_has_a_traceparent_and_no_spans() {
    let mut collector = collector(StatusCode::OK).await;
    let event = follow(Sampler::new(0.0), &Metrics::new(), &collector.url).await;
    assert!(TraceContext::of(&event).is_some_and(|context| !context.sampled));
    assert!(collector.spans().is_empty());
}

#[tokio::test]
async fn a_collector_that_refuses_costs_spans_that_are_counted_and_no_event() {
    let collector = collector(StatusCode::BAD_REQUEST).await;
    let metrics = Metrics::new();
    follow(Sampler::new(1.0), &metrics, &collector.url).await;
    let counted = open_metrics::read(&metrics.encode().unwrap());
    assert_eq!(counted["detector_trace_spans_total{result=\"failed\"}"], 7.0);
    let delivered = counted.iter().find(|(name, _)| name.contains("outcome=\"delivered\""));
    assert_eq!(delivered.map(|(_, count)| *count), Some(1.0));
}
