//! Delivery against a receiver on loopback that misbehaves, and, where time matters, against
//! sinks under a paused clock.

use std::{
    collections::{BTreeMap, HashMap},
    sync::Mutex,
};

use cloudevents::{AttributesReader, EventBuilder, EventBuilderV10};
use futures::{FutureExt, future::BoxFuture, poll};
use serde_json::json;
use tokio::sync::{Notify, mpsc};

use super::{
    receiver::{Answer, Receiver},
    *,
};
use crate::metrics::open_metrics;

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
    retry::Policy { first_wait: Duration::from_secs(3_600), ..never_capped() }
}

fn never_capped() -> retry::Policy {
    retry::Policy { longest_wait: Duration::from_secs(3_600), ..retry::Policy::default() }
}

/// Knative's retries without their waits.
fn impatient() -> retry::Policy {
    retry::Policy { first_wait: Duration::ZERO, ..retry::Policy::default() }
}

/// A delivery whose outcomes a test can wait for.
struct Bench {
    delivery: Delivery,
    metrics: Metrics,
    outcomes: mpsc::UnboundedReceiver<(String, String, Outcome)>,
}

impl Bench {
    fn start(config: Config, sinks: Vec<Arc<dyn Sink>>) -> Self {
        let (sender, outcomes) = mpsc::unbounded_channel();
        let observer = move |settled: Settled<'_>| {
            let (id, sink) = (settled.event.id().to_owned(), settled.sink.to_owned());
            // Fails when the test is over.
            let _ = sender.send((id, sink, settled.outcome.clone()));
        };
        let config =
            Config { jitter: Arc::new(|| 1.0), observer: Some(Arc::new(observer)), ..config };
        let metrics = Metrics::new();
        Self { delivery: Delivery::start(&config, sinks, &metrics), metrics, outcomes }
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
        }
    }

    async fn send(&self, id: &str, ue: &str) {
        self.delivery.send(self.outgoing(event(id, ue))).await;
    }

    async fn outcome(&mut self) -> Outcome {
        self.outcomes.recv().await.unwrap().2
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

    fn queued(&self, sink: &str) -> f64 {
        self.samples()[&format!("detector_delivery_queued_events{{sink=\"{sink}\"}}")]
    }
}

fn http_sink(receiver: &Receiver, timeout: Duration) -> Arc<dyn Sink> {
    let settings = HttpSettings { timeout, ..HttpSettings::default() };
    Arc::new(HttpSink::new("http", receiver.url.clone(), &settings).unwrap())
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

#[tokio::test]
async fn an_event_is_posted_once_in_binary_mode() {
    let mut receiver = Receiver::start([]).await;
    let mut bench = Bench::http(&receiver, never_waiting());
    bench.send("1", "10.45.0.7").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    let request = receiver.next().await;
    assert_eq!(request.line, "POST /ns/default HTTP/1.1");
    let header = |name: &str| request.headers.get(name).map(String::as_str);
    assert_eq!(header("ce-specversion"), Some("1.0"));
    assert_eq!(header("ce-id"), Some("1"));
    assert_eq!(header("ce-type"), Some("com.example.pressed"));
    assert_eq!(header("ce-source"), Some("/mec/north/edge-1/n6"));
    assert_eq!(header("ce-partitionkey"), Some("10.45.0.7"));
    assert_eq!(header("content-type"), Some("application/json"));
    assert_eq!(header("content-encoding"), None);
    assert_eq!(header("transfer-encoding"), None);
    assert_eq!(request.body, br#"{"ue":"10.45.0.7"}"#);
    assert_eq!(receiver.unread(), 0, "one request");
    assert_eq!(bench.counted("http"), [1.0, 0.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_content_type_is_sent_even_if_the_event_has_none() {
    let mut receiver = Receiver::start([]).await;
    let sink = http_sink(&receiver, Duration::from_secs(60));
    let bare = EventBuilderV10::new().id("1").source("/s").ty("t").build().unwrap();
    sink.attempt(&bare).await.unwrap();
    assert_eq!(receiver.next().await.headers["content-type"], "application/json");
}

#[tokio::test]
async fn header_values_are_percent_encoded_as_the_binding_says() {
    let mut receiver = Receiver::start([]).await;
    let sink = http_sink(&receiver, Duration::from_secs(60));
    let mut odd = event("1", "fd00::7");
    odd.set_extension("odd", "a b\"c\"100%\r\né€~");
    sink.attempt(&odd).await.unwrap();
    let headers = receiver.next().await.headers;
    assert_eq!(headers["ce-odd"], "a%20b%22c%22100%25%0D%0A%C3%A9%E2%82%AC~");
    assert_eq!(headers["ce-partitionkey"], "fd00::7");
}

#[tokio::test]
async fn a_500_is_retried_with_the_same_id() {
    let mut receiver = Receiver::start([Answer::Status(500)]).await;
    let mut bench = Bench::http(&receiver, impatient());
    bench.send("same", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    for _ in 0..2 {
        assert_eq!(receiver.next().await.headers["ce-id"], "same");
    }
    assert_eq!(bench.counted("http"), [1.0, 0.0, 0.0, 0.0]);
    let samples = bench.samples();
    let attempts = |result: &str| {
        samples[&format!("detector_delivery_attempts_total{{sink=\"http\",result=\"{result}\"}}")]
    };
    assert_eq!([attempts("5xx"), attempts("ok")], [1.0, 1.0]);
}

#[tokio::test]
async fn a_400_is_not_retried_and_its_body_is_kept() {
    let script = [Answer::With(400, "", "missing\nce-type")];
    let mut receiver = Receiver::start(script).await;
    let mut bench = Bench::http(&receiver, impatient());
    bench.send("1", "a").await;
    let outcome = bench.outcome().await;
    let Outcome::Rejected(failure) = outcome else { panic!("{outcome:?}") };
    assert_eq!(failure.to_string(), "answered 400 Bad Request: \"missing ce-type\"");
    receiver.next().await;
    assert_eq!(receiver.unread(), 0, "one request");
    assert_eq!(bench.counted("http"), [0.0, 1.0, 0.0, 0.0]);
}

#[tokio::test]
async fn a_redirect_is_not_followed() {
    let script = [Answer::With(307, "location: /elsewhere\r\n", "")];
    let mut receiver = Receiver::start(script).await;
    let mut bench = Bench::http(&receiver, impatient());
    bench.send("1", "a").await;
    assert!(matches!(bench.outcome().await, Outcome::Rejected(_)));
    receiver.next().await;
    assert_eq!(receiver.unread(), 0, "one request");
}

#[tokio::test]
async fn retries_are_used_up_after_the_sixth_attempt() {
    let mut receiver = Receiver::start((0..6).map(|_| Answer::Status(503))).await;
    let mut bench = Bench::http(&receiver, impatient());
    bench.send("1", "a").await;
    assert!(matches!(bench.outcome().await, Outcome::Exhausted(Failure::Answer { .. })));
    for _ in 0..6 {
        receiver.next().await;
    }
    assert_eq!(receiver.unread(), 0);
    assert_eq!(bench.counted("http"), [0.0, 0.0, 1.0, 0.0]);
}

#[tokio::test]
async fn a_timeout_is_retried_with_the_same_id() {
    let mut receiver = Receiver::start([Answer::Hang]).await;
    let config = Config { retry: impatient(), ..Config::default() };
    let mut bench = Bench::start(config, vec![http_sink(&receiver, Duration::from_millis(500))]);
    bench.send("slow", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    for _ in 0..2 {
        assert_eq!(receiver.next().await.headers["ce-id"], "slow");
    }
}

#[tokio::test]
async fn a_reset_and_a_half_closed_connection_are_retried() {
    let script = [Answer::Reset, Answer::HalfClose, Answer::Reset];
    let mut receiver = Receiver::start(script).await;
    let mut bench = Bench::http(&receiver, impatient());
    bench.send("1", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    for connection in 0..4 {
        assert_eq!(receiver.next().await.connection, connection);
    }
}

#[tokio::test]
async fn nobody_listening_is_retried_until_exhausted() {
    let url = Receiver::start([]).await.url.clone();
    let sink = HttpSink::new("http", url, &HttpSettings::default()).unwrap();
    let config = Config { retry: impatient(), ..Config::default() };
    let mut bench = Bench::start(config, vec![Arc::new(sink)]);
    bench.send("1", "a").await;
    let outcome = bench.outcome().await;
    let Outcome::Exhausted(Failure::Network(why)) = &outcome else { panic!("{outcome:?}") };
    assert!(why.contains("refused"), "{why}");
}

#[tokio::test]
async fn a_stale_connection_is_retried_at_once() {
    // The second request meets a connection that ends without an answer.
    let script = [Answer::Status(202), Answer::Reset];
    let mut receiver = Receiver::start(script).await;
    let mut bench = Bench::http(&receiver, never_waiting());
    for id in ["1", "2"] {
        bench.send(id, "a").await;
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    let mut seen = vec![];
    for _ in 0..3 {
        let request = receiver.next().await;
        seen.push((request.headers["ce-id"].clone(), request.connection));
    }
    assert_eq!(seen, [("1".into(), 0), ("2".into(), 0), ("2".into(), 1)]);
}

#[tokio::test]
async fn a_connection_that_was_closed_meanwhile_costs_no_wait() {
    let receiver = Receiver::start((0..20).map(|_| Answer::TakeThenClose)).await;
    let mut bench = Bench::http(&receiver, never_waiting());
    for id in 0..20 {
        bench.send(&id.to_string(), "a").await;
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
}

#[tokio::test]
async fn a_retry_after_is_read_from_the_answer() {
    let script = [Answer::With(429, "retry-after: 7\r\n", "")];
    let receiver = Receiver::start(script).await;
    let sink = http_sink(&receiver, Duration::from_secs(60));
    let failure = sink.attempt(&event("1", "a")).await.unwrap_err();
    let Failure::Answer { retry_after, .. } = failure else { panic!("{failure:?}") };
    assert_eq!(retry_after, Some(Duration::from_secs(7)));
}

#[tokio::test(start_paused = true)]
async fn a_retry_after_is_waited_for() {
    let begin = tokio::time::Instant::now();
    let sink = acting("busy", move |_| {
        let busy = Failure::Answer {
            status: reqwest::StatusCode::TOO_MANY_REQUESTS,
            retry_after: Some(Duration::from_secs(7)),
            excerpt: String::new(),
        };
        let over = begin.elapsed() >= Duration::from_secs(7);
        async move { if over { Ok(()) } else { Err(busy) } }.boxed()
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    bench.send("1", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    assert_eq!(begin.elapsed().as_secs(), 7);
}

#[tokio::test(start_paused = true)]
async fn attempts_are_spaced_as_the_policy_says() {
    let (begin, times) = (tokio::time::Instant::now(), Arc::new(Mutex::new(vec![])));
    let seen = times.clone();
    let sink = acting("down", move |_| {
        seen.lock().unwrap().push(begin.elapsed().as_millis());
        async { Err(Failure::Timeout) }.boxed()
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    bench.send("1", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Exhausted(Failure::Timeout));
    assert_eq!(*times.lock().unwrap(), [0, 50, 150, 350, 750, 1_550]);
}

#[tokio::test]
async fn a_full_queue_makes_the_sender_wait() {
    let gate = Arc::new(Notify::new());
    let config = Config { capacity: 2, ..Config::default() };
    let mut bench = Bench::start(config, vec![gated(&gate)]);
    bench.send("1", "a").await;
    bench.send("2", "b").await;
    assert_eq!(bench.queued("gated"), 2.0);
    let outgoing = bench.outgoing(event("3", "c"));
    let mut third = Box::pin(bench.delivery.send(outgoing));
    assert!(poll!(&mut third).is_pending(), "there is no room");
    gate.notify_one();
    third.await;
    gate.notify_one();
    gate.notify_one();
    for _ in 0..3 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    assert_eq!(bench.queued("gated"), 0.0);
}

#[tokio::test]
async fn an_event_whose_sender_gave_up_is_counted_as_dropped() {
    let config = Config { capacity: 1, ..Config::default() };
    let bench = Bench::start(config, vec![stuck()]);
    bench.send("1", "a").await;
    let second = bench.delivery.send(bench.outgoing(event("2", "b")));
    assert!(second.now_or_never().is_none());
    assert_eq!(bench.counted("stuck"), [0.0, 0.0, 0.0, 1.0]);
    assert_eq!(bench.queued("stuck"), 1.0, "the first still waits");
}

#[tokio::test]
async fn a_ue_whose_event_hangs_does_not_hold_up_the_others() {
    let sink = acting("one-hangs", |event| match event.id() {
        "hangs" => std::future::pending().boxed(),
        _ => async { Ok(()) }.boxed(),
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    bench.send("hangs", "ue-0").await;
    // Of many UEs, some fall on the same worker and wait; with 8 workers most do not.
    for ue in 1..=64 {
        bench.send(&ue.to_string(), &format!("ue-{ue}")).await;
    }
    for _ in 0..32 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
}

#[tokio::test]
async fn a_sink_that_is_down_does_not_keep_events_from_another() {
    let down = acting("down", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let up = acting("up", |_| async { Ok(()) }.boxed());
    let config = Config { retry: impatient(), ..Config::default() };
    let mut bench = Bench::start(config, vec![down, up]);
    bench.send("1", "a").await;
    let ended = [bench.outcomes.recv().await.unwrap(), bench.outcomes.recv().await.unwrap()];
    let by_sink: HashMap<_, _> =
        ended.into_iter().map(|(_, sink, outcome)| (sink, outcome.label())).collect();
    assert_eq!(by_sink, [("down".into(), "exhausted"), ("up".into(), "delivered")].into());
    assert_eq!(bench.counted("up"), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(bench.counted("down"), [0.0, 0.0, 1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_ues_events_arrive_in_order_although_some_are_retried() {
    let (ues, events) = (5, 40);
    let arrived = Arc::new(Mutex::new(HashMap::<String, Vec<String>>::new()));
    let (seen, tried) = (arrived.clone(), Mutex::new(HashMap::<String, u32>::new()));
    let sink = acting("flaky", move |event| {
        let id = event.id().to_owned();
        let ue = event.extension("partitionkey").unwrap().to_string();
        let mut tried = tried.lock().unwrap();
        let attempt = tried.entry(id.clone()).or_default();
        *attempt += 1;
        // The first, fourth, ... event of each UE fails once, the second, fifth, ... twice.
        let number: u32 = id.rsplit('-').next().unwrap().parse().unwrap();
        let result = if *attempt > (number + 1) % 3 {
            seen.lock().unwrap().entry(ue).or_default().push(id);
            Ok(())
        } else {
            Err(Failure::Timeout)
        };
        async move { result }.boxed()
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    for number in 0..events {
        for ue in 0..ues {
            bench.send(&format!("{ue}-{number}"), &format!("ue-{ue}")).await;
        }
    }
    for _ in 0..ues * events {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    for ue in 0..ues {
        let expected: Vec<_> = (0..events).map(|number| format!("{ue}-{number}")).collect();
        assert_eq!(arrived.lock().unwrap()[&format!("ue-{ue}")], expected);
    }
}

#[tokio::test]
async fn draining_waits_for_what_is_on_its_way() {
    let release = Arc::new(Notify::new());
    let mut receiver = Receiver::start([Answer::Held(release.clone()), Answer::Status(400)]).await;
    let bench = Bench::http(&receiver, impatient());
    // One UE, so that the second waits for the first.
    bench.send("1", "a").await;
    bench.send("2", "a").await;
    receiver.next().await;
    let far = tokio::time::Instant::now() + Duration::from_secs(3_600);
    let mut draining = Box::pin(bench.delivery.drain(far));
    assert!(poll!(&mut draining).is_pending());
    release.notify_one();
    assert_eq!(draining.await, DrainReport { delivered: 1, failed: 1, left: 0 });
}

#[tokio::test(start_paused = true)]
async fn draining_ends_at_the_deadline_and_counts_what_is_left() {
    let taking_one = acting("stuck", |event| match event.id() {
        "taken" => async { Ok(()) }.boxed(),
        _ => std::future::pending().boxed(),
    });
    let mut bench = Bench::start(Config::default(), vec![taking_one]);
    bench.send("taken", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    for (id, ue) in [("1", "a"), ("2", "a"), ("3", "b")] {
        bench.send(id, ue).await;
    }
    let (begin, metrics) = (tokio::time::Instant::now(), bench.metrics.clone());
    let report = bench.delivery.drain(begin + Duration::from_secs(5)).await;
    assert_eq!(report, DrainReport { delivered: 0, failed: 0, left: 3 });
    assert_eq!(begin.elapsed(), Duration::from_secs(5));
    let mut dropped = vec![];
    while let Some((id, _, outcome)) = bench.outcomes.recv().await {
        assert_eq!(outcome, Outcome::Dropped);
        dropped.push(id);
    }
    dropped.sort();
    assert_eq!(dropped, ["1", "2", "3"]);
    let text = metrics.encode().unwrap();
    assert!(text.contains("outcome=\"dropped\"} 3\n"), "{text}");
}

#[tokio::test(start_paused = true)]
async fn an_event_between_two_attempts_is_tried_again_while_draining() {
    let begin = tokio::time::Instant::now();
    let sink = acting("recovering", move |_| {
        let recovered = begin.elapsed() >= Duration::from_millis(100);
        async move { if recovered { Ok(()) } else { Err(Failure::Timeout) } }.boxed()
    });
    let bench = Bench::start(Config::default(), vec![sink]);
    bench.send("1", "a").await;
    let report = bench.delivery.drain(begin + Duration::from_secs(5)).await;
    assert_eq!(report, DrainReport { delivered: 1, failed: 0, left: 0 });
}

#[tokio::test]
async fn a_worker_that_crashes_leaves_no_event_uncounted() {
    let sink = acting("crashing", |_| panic!("a bug in a sink"));
    let config = Config { workers: 1, ..Config::default() };
    let mut bench = Bench::start(config, vec![sink]);
    for id in ["1", "2", "3"] {
        bench.send(id, "a").await;
    }
    for _ in 0..3 {
        assert_eq!(bench.outcome().await, Outcome::Dropped);
    }
    assert_eq!(bench.counted("crashing"), [0.0, 0.0, 0.0, 3.0]);
    assert_eq!(bench.queued("crashing"), 0.0);
}

#[tokio::test]
async fn every_event_ends_in_exactly_one_counter() {
    let sink = acting("mixed", |event| {
        let result = match event.id().parse::<u32>().unwrap() % 3 {
            0 => Ok(()),
            1 => Err(Failure::Unsendable("a bad name".into())),
            _ => Err(Failure::Timeout),
        };
        async move { result }.boxed()
    });
    let config = Config { retry: impatient(), ..Config::default() };
    let mut bench = Bench::start(config, vec![sink]);
    for id in 0..300 {
        bench.send(&id.to_string(), &format!("ue-{}", id % 7)).await;
    }
    for _ in 0..300 {
        bench.outcome().await;
    }
    assert_eq!(bench.counted("mixed"), [100.0, 100.0, 100.0, 0.0]);
}

#[tokio::test]
async fn latencies_are_measured_for_every_delivery() {
    let receiver = Receiver::start([]).await;
    let mut bench = Bench::http(&receiver, never_waiting());
    let mut outgoing = bench.outgoing(event("1", "a"));
    outgoing.packet_time = Some(SystemTime::now() - Duration::from_secs(2));
    outgoing.read_at = Instant::now() - Duration::from_secs(1);
    bench.delivery.send(outgoing).await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    let samples = bench.samples();
    let near = |name: &str, expected: f64| {
        let sum = samples[name];
        assert!((expected - 0.1..expected + 0.9).contains(&sum), "{name}: {sum}");
    };
    near("detector_packet_to_read_seconds_sum", 1.0);
    near("detector_read_to_delivered_seconds_sum{sink=\"http\"}", 1.0);
    assert_eq!(samples["detector_delivery_attempt_seconds_count{sink=\"http\"}"], 1.0);
}

#[test]
fn the_end_of_a_session_is_no_packet_whose_latency_counts() {
    let metrics = metrics::DeliveryMetrics::register(&Metrics::new());
    let rule = metrics.rule("press", std::iter::empty());
    for (detection, expected) in [
        (crate::cloudevent::tests::ended_session(), None),
        (crate::cloudevent::tests::buy_click(), Some(())),
    ] {
        let outgoing = Outgoing::new(Event::default(), rule.clone(), &detection);
        assert_eq!(outgoing.packet_time.map(|_| ()), expected);
    }
}
