//! What goes over the wire, and what the answers lead to.

use super::{
    receiver::{Answer, Receiver},
    *,
};

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
async fn the_request_of_a_sampled_event_and_no_other_belongs_to_its_trace() {
    let mut receiver = Receiver::start([]).await;
    let sink = http_sink(&receiver, Duration::from_secs(60));
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331";
    for (flags, header) in [("01", true), ("00", false)] {
        let mut event = event("1", "a");
        event.set_extension("traceparent", format!("{trace}-{flags}"));
        sink.attempt(&event).await.unwrap();
        let headers = receiver.next().await.headers;
        assert_eq!(headers["ce-traceparent"], format!("{trace}-{flags}"));
        assert_eq!(headers.get("traceparent"), header.then_some(&headers["ce-traceparent"]));
    }
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
async fn retries_are_used_up_after_the_sixth_attempt_while_others_are_taken() {
    let taken = Arc::new(Notify::new());
    let seen = taken.clone();
    let sink = acting("half-well", move |event| {
        let result = match event.id() {
            "bad" => Err(Failure::Timeout),
            _ => Ok(()),
        };
        seen.notify_one();
        async move { result }.boxed()
    });
    let retry = retry::Policy { first_wait: Duration::from_millis(5), ..retry::Policy::default() };
    let mut bench = Bench::start(Config { retry, ..Config::default() }, vec![sink]);
    bench.send("bad", "a").await;
    let bad = loop {
        // Something is taken between any two attempts at the bad one.
        bench.send("good", "b").await;
        match bench.ended().await {
            (id, _, outcome) if id == "bad" => break outcome,
            (_, _, outcome) => assert_eq!(outcome, Outcome::Delivered),
        }
    };
    assert_eq!(bad, Outcome::Exhausted(Failure::Timeout));
    let attempts = "detector_delivery_attempts_total{sink=\"half-well\",result=\"timeout\"}";
    assert_eq!(bench.samples()[attempts], 6.0);
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
    let attempts = "detector_delivery_attempts_total{sink=\"http\",result=\"timeout\"}";
    assert!(bench.samples()[attempts] >= 1.0);
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
async fn nobody_listening_is_probed_until_the_budget_is_spent() {
    let url = Receiver::start([]).await.url.clone();
    let sink = HttpSink::new("http", &HttpConfig::of(url), &HttpSettings::default()).unwrap();
    let budget = Duration::from_millis(50);
    let config = Config { retry: impatient(), breaker: eager(), budget, ..Config::default() };
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
async fn an_idle_connection_is_dropped_before_the_sink_drops_it() {
    let mut receiver = Receiver::start([]).await;
    let idle_timeout = Duration::from_millis(50);
    let settings = HttpSettings { idle_timeout, ..HttpSettings::default() };
    let http = HttpConfig::of(receiver.url.clone());
    let sink = HttpSink::new("http", &http, &settings).unwrap();
    for (id, connection) in [("1", 0), ("2", 1)] {
        sink.attempt(&event(id, "a")).await.unwrap();
        assert_eq!(receiver.next().await.connection, connection, "{id}");
        tokio::time::sleep(4 * idle_timeout).await;
    }
    // Knative's ingress closes them after 10 s.
    assert!(HttpSettings::default().idle_timeout < Duration::from_secs(10));
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

#[tokio::test]
async fn a_structured_event_is_one_json_body() {
    let mut receiver = Receiver::start([]).await;
    let mode = crate::config::ContentMode::Structured;
    let config = HttpConfig { mode, ..HttpConfig::of(receiver.url.clone()) };
    let sink = HttpSink::new("http", &config, &HttpSettings::default()).unwrap();
    sink.attempt(&event("1", "a")).await.unwrap();
    let request = receiver.next().await;
    assert!(request.headers["content-type"].starts_with("application/cloudevents+json"));
    assert_eq!(serde_json::from_slice::<Event>(&request.body).unwrap(), event("1", "a"));
}

#[tokio::test]
async fn a_token_is_sent_and_a_401_makes_it_be_read_again() {
    let mut receiver = Receiver::start([Answer::Status(202), Answer::Status(401)]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "first\n").unwrap();
    let token = crate::config::TokenConfig { file: file.clone(), optional: false, audience: None };
    let config = HttpConfig { token: Some(token), ..HttpConfig::of(receiver.url.clone()) };
    let sink = HttpSink::new("http", &config, &HttpSettings::default()).unwrap();
    sink.attempt(&event("1", "a")).await.unwrap();
    std::fs::write(&file, "second").unwrap();
    sink.attempt(&event("2", "a")).await.unwrap();
    let mut sent = vec![];
    for _ in 0..3 {
        sent.push(receiver.next().await.headers["authorization"].clone());
    }
    assert_eq!(sent, ["Bearer first", "Bearer first", "Bearer second"]);
}

#[tokio::test]
async fn a_401_that_another_token_does_not_help_is_not_the_events_fault() {
    let receiver = Receiver::start([Answer::With(401, "", "bad audience")]).await;
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("token");
    std::fs::write(&file, "secret").unwrap();
    let token = crate::config::TokenConfig { file, optional: false, audience: None };
    let config = HttpConfig { token: Some(token), ..HttpConfig::of(receiver.url.clone()) };
    let sink = HttpSink::new("http", &config, &HttpSettings::default()).unwrap();
    sink.attempt(&event("1", "a")).await.unwrap_err();
    let receiver = Receiver::start([Answer::With(401, "", "bad audience")]).await;
    let config = HttpConfig { url: receiver.url.clone(), ..config };
    let sink = HttpSink::new("http", &config, &HttpSettings::default()).unwrap();
    // Read for the first time by this sink, so the second reading brings nothing new.
    let failure = sink.attempt(&event("1", "a")).await.unwrap_err();
    assert_eq!(failure.to_string(), "the token was refused: \"bad audience\"");
    assert!(!failure.to_string().contains("secret"));
    let step = retry::Policy::default().step(retry::Tried::default(), &failure, 1.0);
    assert!(matches!(step, retry::Step::Wait(_)));
}
