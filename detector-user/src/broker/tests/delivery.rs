//! From 202 to the subscriber: acknowledgement, retries, dead letters, replies, headers.

use super::*;
use crate::broker::Leg;

const FAST_RETRY: &str = "retry: 3, backoffPolicy: linear, backoffDelay: PT0.01S";

fn with_delivery(delivery: &str) -> String {
    format!(", delivery: {{{delivery}}}")
}

#[tokio::test]
async fn a_subscriber_gets_the_event_with_knatives_headers_and_only_the_listed_ones() {
    let mut subscriber = Subscriber::answering(vec![]).await;
    let bench = Bench::start(&format!("{BROKER}{}", trigger("all", subscriber.addr, ""))).await;
    let request = bench
        .event("t")
        .header("ce-ueip", "10.45.0.2")
        .header("traceparent", "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01")
        .header("x-request-id", "r-1")
        .header("authorization", "secret");
    assert_eq!(code(request).await, 202);
    let received = subscriber.next().await;
    assert_eq!(received.header("ce-id"), Some("e-1"));
    assert_eq!(received.header("ce-ueip"), Some("10.45.0.2"));
    assert_eq!(received.header("content-type"), Some("application/json"));
    assert_eq!(received.header("kn-namespace"), Some("edge"));
    assert_eq!(received.header("prefer"), Some("reply"));
    assert_eq!(received.header("x-request-id"), Some("r-1"));
    assert!(received.header("traceparent").is_some());
    assert_eq!(received.header("authorization"), None);
    assert_eq!(received.header("ce-knativebrokerttl"), None);
    let arrival = received.header("ce-knativearrivaltime").expect("set");
    chrono::DateTime::parse_from_rfc3339(arrival).expect("RFC 3339");
    assert_eq!(received.body, "{\"price\":3}");
}

#[tokio::test]
async fn no_content_type_is_made_up() {
    let mut subscriber = Subscriber::answering(vec![]).await;
    let bench = Bench::start(&format!("{BROKER}{}", trigger("all", subscriber.addr, ""))).await;
    let mut headers = event_headers("t");
    headers.remove("content-type");
    assert_eq!(code(bench.request("/edge/default").headers(headers).body("x")).await, 202);
    assert_eq!(subscriber.next().await.header("content-type"), None);
}

#[tokio::test]
async fn a_structured_event_is_delivered_in_binary_mode_and_in_json_if_the_trigger_asks() {
    let mut binary = Subscriber::answering(vec![]).await;
    let mut json = Subscriber::answering(vec![]).await;
    let yaml = format!(
        "{BROKER}{}{}",
        trigger("binary", binary.addr, ""),
        trigger("json", json.addr, &with_delivery("format: json")),
    );
    let bench = Bench::start(&yaml).await;
    let event = r#"{"specversion":"1.0","id":"7","source":"/s","type":"t","ueip":"10.0.0.1",
        "datacontenttype":"application/json","data":{"a":1}}"#;
    let request =
        bench.request("/edge/default").header("content-type", "application/cloudevents+json");
    assert_eq!(code(request.body(event)).await, 202);
    let received = binary.next().await;
    assert_eq!(
        (received.header("ce-id"), received.header("ce-ueip")),
        (Some("7"), Some("10.0.0.1"))
    );
    assert_eq!(received.body, "{\"a\":1}");
    let received = json.next().await;
    assert_eq!(received.header("content-type"), Some("application/cloudevents+json"));
    let event: serde_json::Value = serde_json::from_slice(&received.body).unwrap();
    assert_eq!(event["data"]["a"], 1);
}

#[tokio::test]
async fn filters_decide_who_gets_it_and_no_trigger_at_all_is_202() {
    let mut buy = Subscriber::answering(vec![]).await;
    let mut rest = Subscriber::answering(vec![]).await;
    let yaml = format!(
        "{BROKER}{}{}",
        trigger("buy", buy.addr, ", filters: [{exact: {type: buy}}]"),
        trigger("rest", rest.addr, ", filters: [{not: {exact: {type: buy}}}]"),
    );
    let bench = Bench::start(&yaml).await;
    assert_eq!(code(bench.event("buy")).await, 202);
    assert_eq!(code(bench.event("browse")).await, 202);
    assert_eq!(buy.next().await.header("ce-type"), Some("buy"));
    assert_eq!(rest.next().await.header("ce-type"), Some("browse"));
    assert_eq!((buy.others(), rest.others()), (0, 0));
    let empty = Bench::start(BROKER).await;
    assert_eq!(code(empty.event("buy")).await, 202);
}

#[tokio::test]
async fn by_default_202_comes_after_the_subscriber_has_answered() {
    let gate = Arc::new(Notify::new());
    let mut subscriber = Subscriber::gated(gate.clone()).await;
    let bench = Bench::start(&format!("{BROKER}{}", trigger("slow", subscriber.addr, ""))).await;
    let post = tokio::spawn(bench.event("t").send());
    subscriber.next().await;
    assert!(!post.is_finished(), "answered before the subscriber did");
    gate.notify_one();
    assert_eq!(soon(post).await.unwrap().unwrap().status(), 202);
}

#[tokio::test]
async fn with_the_async_annotation_202_comes_at_once() {
    let gate = Arc::new(Notify::new());
    let mut subscriber = Subscriber::gated(gate.clone()).await;
    let broker = BROKER.replace(
        "namespace: edge}",
        "namespace: edge, annotations: {messaging.knative.dev/async-handler: 'true'}}",
    );
    let mut bench =
        Bench::start(&format!("{broker}{}", trigger("slow", subscriber.addr, ""))).await;
    assert_eq!(code(bench.event("t")).await, 202);
    subscriber.next().await;
    assert!(bench.reports.try_recv().is_err(), "the subscriber has not answered yet");
    gate.notify_one();
    assert_eq!(bench.report().await.status, Some(200));
}

#[tokio::test]
async fn one_bad_trigger_makes_it_500_and_the_good_one_still_gets_the_event() {
    let mut good = Subscriber::answering(vec![]).await;
    let bad = Subscriber::answering(vec![status(400)]).await;
    let yaml =
        format!("{BROKER}{}{}", trigger("good", good.addr, ""), trigger("bad", bad.addr, ""));
    let bench = Bench::start(&yaml).await;
    assert_eq!(code(bench.event("t")).await, 500);
    assert_eq!(good.next().await.header("ce-id"), Some("e-1"));
}

#[tokio::test]
async fn retryable_answers_are_tried_again_until_one_is_good() {
    let script = [500, 429, 404].map(status).into();
    let mut subscriber = Subscriber::answering(script).await;
    let more = with_delivery(FAST_RETRY);
    let mut bench =
        Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 202);
    for (attempt, answer) in [(1, 500), (2, 429), (3, 404), (4, 200)] {
        let report = bench.report().await;
        assert_eq!((report.attempt, report.status), (attempt, Some(answer)));
        assert_eq!(subscriber.next().await.header("ce-id"), Some("e-1"), "the id is stable");
    }
}

#[tokio::test]
async fn retries_end_after_the_given_number_and_the_sender_gets_500() {
    let script = (0..10).map(|_| status(503)).collect();
    let mut subscriber = Subscriber::answering(script).await;
    let more = with_delivery(FAST_RETRY);
    let bench = Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 500);
    assert_eq!(subscriber.others(), 4, "one attempt and three retries");
}

#[tokio::test]
async fn other_4xx_and_3xx_are_not_tried_again() {
    for answer in [400, 401, 403, 410, 422, 301, 307] {
        let mut subscriber = Subscriber::answering(vec![status(answer)]).await;
        let more = with_delivery(FAST_RETRY);
        let bench =
            Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
        assert_eq!(code(bench.event("t")).await, 500, "{answer} reads as 500");
        assert_eq!(subscriber.others(), 1, "{answer}");
    }
}

/// An address where nothing listens: bound, known, and closed again.
async fn nobody() -> SocketAddr {
    tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap()
}

#[tokio::test]
async fn a_subscriber_that_is_down_is_retried_and_reported_without_status() {
    let more = with_delivery("retry: 1, backoffPolicy: exponential, backoffDelay: PT0.01S");
    let mut bench = Bench::start(&format!("{BROKER}{}", trigger("t", nobody().await, &more))).await;
    assert_eq!(code(bench.event("t")).await, 500);
    for attempt in 1..=2 {
        let report = bench.report().await;
        assert_eq!((report.attempt, report.status), (attempt, None));
        assert!(report.error.unwrap().contains("refused"));
    }
}

#[tokio::test]
async fn a_subscriber_slower_than_the_timeout_has_failed() {
    let mut subscriber = Subscriber::gated(Arc::new(Notify::new())).await;
    let more = with_delivery("timeout: PT0.05S");
    let mut bench =
        Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 500);
    assert_eq!(bench.report().await.status, None);
    subscriber.next().await;
}

#[tokio::test]
async fn a_dead_letter_sink_gets_the_event_with_the_error_and_makes_it_202() {
    let subscriber =
        Subscriber::answering(vec![(StatusCode::BAD_REQUEST, "no stock").into_response()]).await;
    let mut sink = Subscriber::answering(vec![]).await;
    let more = with_delivery(&format!("deadLetterSink: {{uri: 'http://{}/'}}", sink.addr));
    let mut bench =
        Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 202);
    let dead = sink.next().await;
    assert_eq!(dead.header("ce-id"), Some("e-1"));
    assert_eq!(dead.header("ce-knativeerrorcode"), Some("400"));
    assert_eq!(dead.header("ce-knativeerrordata"), Some("bm8gc3RvY2s="), "base64 of `no stock`");
    let destination = format!("http://{}/", subscriber.addr);
    assert_eq!(dead.header("ce-knativeerrordest"), Some(destination.as_str()));
    assert_eq!(dead.header("prefer"), None);
    assert_eq!(bench.report().await.leg, Leg::Subscriber);
    assert_eq!(bench.report().await.leg, Leg::DeadLetter);
}

#[tokio::test]
async fn a_dead_letter_sink_that_fails_too_makes_it_500() {
    let subscriber = Subscriber::answering(vec![status(400)]).await;
    let sink = Subscriber::answering(vec![status(400)]).await;
    let more = with_delivery(&format!("deadLetterSink: {{uri: 'http://{}/'}}", sink.addr));
    let bench = Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 500);
}

#[tokio::test]
async fn an_event_that_could_not_be_delivered_for_no_answer_has_error_code_500() {
    let mut sink = Subscriber::answering(vec![]).await;
    let more = with_delivery(&format!("deadLetterSink: {{uri: 'http://{}/'}}", sink.addr));
    let bench = Bench::start(&format!("{BROKER}{}", trigger("t", nobody().await, &more))).await;
    assert_eq!(code(bench.event("t")).await, 202);
    assert_eq!(sink.next().await.header("ce-knativeerrorcode"), Some("500"));
}

#[tokio::test]
async fn a_reply_goes_through_the_broker_again_with_one_less_to_live() {
    let mut function = Subscriber::answering(vec![reply("accepted")]).await;
    let mut replies = Subscriber::answering(vec![]).await;
    // The second answers 400, so that its dead letter sink shows the time to live.
    let refusing = Subscriber::answering(vec![status(400)]).await;
    let mut sink = Subscriber::answering(vec![]).await;
    let more = format!(
        ", filters: [{{exact: {{type: accepted}}}}], delivery: {{deadLetterSink: {{uri: 'http://{}/'}}}}",
        sink.addr
    );
    let yaml = format!(
        "{BROKER}{}{}{}",
        trigger("buy", function.addr, ", filters: [{exact: {type: buy}}]"),
        trigger("replies", replies.addr, ", filters: [{exact: {type: accepted}}]"),
        trigger("ttl", refusing.addr, &more),
    );
    let mut bench = Bench::start(&yaml).await;
    assert_eq!(code(bench.event("buy").header("x-request-id", "from-sender")).await, 202);
    assert_eq!(function.next().await.header("ce-type"), Some("buy"));
    let received = replies.next().await;
    assert_eq!(received.header("ce-type"), Some("accepted"));
    assert_eq!(received.header("x-request-id"), Some("from-function"));
    assert_eq!(sink.next().await.header("ce-knativebrokerttl"), Some("254"));
    let mut legs = Vec::new();
    while let Ok(report) = bench.reports.try_recv() {
        legs.push(report.leg);
    }
    assert_eq!(legs.iter().filter(|leg| **leg == Leg::Reply).count(), 1);
}

#[tokio::test]
async fn a_loop_of_replies_ends_when_the_time_to_live_is_used_up() {
    let script = (0..300).map(|_| reply("t")).collect();
    let mut function = Subscriber::answering(script).await;
    // Without retries: in Knative too, every round would try the rounds below it again.
    let more = with_delivery("retry: 0");
    let bench = Bench::start(&format!("{BROKER}{}", trigger("loop", function.addr, &more))).await;
    assert_eq!(code(bench.event("t").header("ce-knativebrokerttl", "4")).await, 500);
    assert_eq!(function.others(), 3, "with 3, 2 and 1 left");
}

#[tokio::test]
async fn an_answer_with_a_body_that_is_no_event_fails() {
    let function = Subscriber::answering(vec![(StatusCode::OK, "thanks").into_response()]).await;
    let more = with_delivery("retry: 0");
    let mut bench = Bench::start(&format!("{BROKER}{}", trigger("t", function.addr, &more))).await;
    assert_eq!(code(bench.event("t")).await, 500);
    let report = bench.report().await;
    assert_eq!(report.status, Some(502));
    assert!(report.error.unwrap().contains("no CloudEvent"));
}

#[tokio::test]
async fn a_subscription_gets_everything_of_its_channel_and_its_reply_goes_where_it_says() {
    let mut function = Subscriber::answering(vec![reply("done")]).await;
    let mut replies = Subscriber::answering(vec![]).await;
    let more = format!(", reply: {{uri: 'http://{}/'}}", replies.addr);
    let bench = Bench::start(&channel(function.addr, &more)).await;
    let request = bench.request("/edge/audit").headers(event_headers("any"));
    assert_eq!(code(request).await, 202);
    let received = function.next().await;
    assert_eq!(received.header("kn-namespace"), Some("edge"));
    assert_eq!(received.header("ce-knativearrivaltime"), None, "a Broker's, not a Channel's");
    assert_eq!(replies.next().await.header("ce-type"), Some("done"));
}

#[tokio::test]
async fn a_subscription_without_delivery_is_tried_once() {
    let mut function = Subscriber::answering(vec![status(503)]).await;
    let bench = Bench::start(&channel(function.addr, "")).await;
    assert_eq!(code(bench.request("/edge/audit").headers(event_headers("t"))).await, 500);
    assert_eq!(function.others(), 1);
}

#[tokio::test]
async fn a_trigger_may_lead_to_a_channel() {
    let mut audit = Subscriber::answering(vec![]).await;
    let to_channel = "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\n\
        metadata: {name: audit, namespace: edge}\n\
        spec: {broker: default, subscriber: {ref: {kind: Channel, name: audit}}}\n";
    let yaml = format!("{BROKER}{to_channel}{}", channel(audit.addr, ""));
    let bench = Bench::start(&yaml).await;
    assert_eq!(code(bench.event("t")).await, 202);
    assert_eq!(audit.next().await.header("ce-id"), Some("e-1"));
}

#[tokio::test]
async fn a_sender_that_gives_up_ends_the_retries() {
    let script = (0..100).map(|_| status(503)).collect();
    let mut subscriber = Subscriber::answering(script).await;
    // The first retry would be an hour away.
    let more = with_delivery("retry: 5, backoffPolicy: exponential, backoffDelay: PT1H");
    let mut bench =
        Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, &more))).await;
    let post = tokio::spawn(bench.event("t").send());
    subscriber.next().await;
    bench.report().await;
    post.abort();
    assert!(soon(post).await.unwrap_err().is_cancelled());
    soon(async {
        while bench.broker.in_flight() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    assert_eq!(subscriber.others(), 0);
    assert_eq!(soon(bench.broker.shutdown()).await, 0);
}

#[tokio::test]
async fn an_event_in_memory_whose_retries_are_ended_by_stopping_is_counted() {
    let mut subscriber = Subscriber::answering(vec![status(503)]).await;
    let broker = BROKER.replace(
        "namespace: edge}",
        "namespace: edge, annotations: {messaging.knative.dev/async-handler: 'true'}}",
    );
    let more = with_delivery("retry: 5, backoffPolicy: exponential, backoffDelay: PT1H");
    let yaml = format!("{broker}{}", trigger("t", subscriber.addr, &more));
    let mut bench = Bench::start(&yaml).await;
    assert_eq!(code(bench.event("t")).await, 202);
    subscriber.next().await;
    bench.report().await;
    assert_eq!(soon(bench.broker.shutdown()).await, 1);
}

#[tokio::test]
async fn a_sender_that_gives_up_does_not_cut_a_request_that_is_being_worked_on() {
    let gate = Arc::new(Notify::new());
    let mut subscriber = Subscriber::gated(gate.clone()).await;
    let mut bench = Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, ""))).await;
    let post = tokio::spawn(bench.event("t").send());
    subscriber.next().await;
    post.abort();
    assert!(soon(post).await.unwrap_err().is_cancelled());
    gate.notify_one();
    assert_eq!(bench.report().await.status, Some(200));
}

#[tokio::test]
async fn stopping_waits_for_what_is_being_delivered() {
    let gate = Arc::new(Notify::new());
    let mut subscriber = Subscriber::gated(gate.clone()).await;
    let bench = Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, ""))).await;
    let addr = bench.broker.addr;
    let post = tokio::spawn(bench.event("t").send());
    subscriber.next().await;
    let stopping = tokio::spawn(bench.broker.shutdown());
    // Refused from here on; the listener closes before the drain.
    soon(async {
        while tokio::net::TcpStream::connect(addr).await.is_ok() {
            tokio::task::yield_now().await;
        }
    })
    .await;
    gate.notify_one();
    assert_eq!(soon(stopping).await.unwrap(), 0);
    assert_eq!(soon(post).await.unwrap().unwrap().status(), 202);
}

#[tokio::test]
async fn what_does_not_end_in_time_is_counted_as_abandoned() {
    let mut subscriber = Subscriber::gated(Arc::new(Notify::new())).await;
    let timeouts = Timeouts { drain: Duration::from_millis(50), ..Timeouts::default() };
    let yaml = format!("{BROKER}{}", trigger("t", subscriber.addr, ""));
    let bench = Bench::with_timeouts(&yaml, timeouts).await;
    let post = tokio::spawn(bench.event("t").send());
    subscriber.next().await;
    assert_eq!(soon(bench.broker.shutdown()).await, 1);
    assert_eq!(soon(post).await.unwrap().unwrap().status(), 500);
}

#[tokio::test]
async fn a_report_is_a_line_of_json_with_the_documented_names() {
    let subscriber = Subscriber::answering(vec![]).await;
    let mut bench = Bench::start(&format!("{BROKER}{}", trigger("t", subscriber.addr, ""))).await;
    assert_eq!(code(bench.event("buy")).await, 202);
    let report = bench.report().await;
    let json = serde_json::to_value(&report).unwrap();
    assert_eq!(json["trigger"], "trigger edge/t");
    assert_eq!((&json["event"], &json["type"]), (&"e-1".into(), &"buy".into()));
    assert_eq!((&json["status"], &json["attempt"]), (&200.into(), &1.into()));
    assert!(json["duration_ms"].as_f64().unwrap() > 0.0);
    assert!(json["time"].as_str().unwrap().ends_with('Z'));
    assert!(report.to_string().contains("trigger edge/t: buy e-1 -> http://"), "{report}");
}
