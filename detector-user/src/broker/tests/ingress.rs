//! What senders are told, one row for each line of what a real Knative ingress was seen to answer.

use std::time::Instant;

use reqwest::{Method, RequestBuilder};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpStream,
};

use super::*;

const STRUCTURED: &str = r#"{"specversion":"1.0","id":"e-1","source":"/mec/site-a","type":"t",
    "datacontenttype":"application/json","data":{"price":3}}"#;

/// Changes a valid request into the one under test.
type Change = fn(&Bench, RequestBuilder) -> RequestBuilder;

fn header(request: RequestBuilder, name: &str, value: &str) -> RequestBuilder {
    let mut headers = HeaderMap::new();
    headers.insert(axum::http::HeaderName::try_from(name).unwrap(), value.parse().unwrap());
    request.headers(headers)
}

fn at(bench: &Bench, path: &str) -> RequestBuilder {
    bench.request(path).headers(event_headers("t"))
}

fn without(bench: &Bench, name: &str) -> RequestBuilder {
    let mut headers = event_headers("t");
    headers.remove(name);
    bench.request("/edge/default").headers(headers)
}

fn structured(bench: &Bench, content_type: &str, body: impl Into<String>) -> RequestBuilder {
    bench.request("/edge/default").header("content-type", content_type).body(body.into())
}

fn method(bench: &Bench, method: Method) -> RequestBuilder {
    let url = format!("http://{}/edge/default", bench.broker.addr);
    bench.client.request(method, url).headers(event_headers("t"))
}

const ANSWERS: &[(&str, u16, Change)] = &[
    ("POST /<namespace>/<broker>", 202, |b, _| at(b, "/edge/default")),
    ("a trailing slash is fine", 202, |b, _| at(b, "/edge/default/")),
    ("a query string gives 404", 404, |b, _| at(b, "/edge/default?a=b")),
    ("/ is 404", 404, |b, _| at(b, "/")),
    ("one path segment 400", 400, |b, _| at(b, "/default")),
    ("three path segments 400", 400, |b, _| at(b, "/edge/default/x")),
    ("GET 405", 405, |b, _| method(b, Method::GET)),
    ("PUT 405", 405, |b, _| method(b, Method::PUT)),
    ("OPTIONS 200", 200, |b, _| method(b, Method::OPTIONS)),
    ("binary content mode 202", 202, |_, valid| valid),
    ("structured content mode 202", 202, |b, _| {
        structured(b, "application/cloudevents+json; charset=utf-8", STRUCTURED)
    }),
    ("batched content mode 400", 400, |b, _| {
        structured(b, "application/cloudevents-batch+json", format!("[{STRUCTURED}]"))
    }),
    ("batched content mode with ce- headers 400", 400, |_, valid| {
        header(valid, "content-type", "application/cloudevents-batch+json")
    }),
    ("protobuf 400", 400, |_, valid| {
        header(valid, "content-type", "application/cloudevents+protobuf")
    }),
    ("missing id 400", 400, |b, _| without(b, "ce-id")),
    ("missing source 400", 400, |b, _| without(b, "ce-source")),
    ("missing type 400", 400, |b, _| without(b, "ce-type")),
    ("missing specversion 400", 400, |b, _| without(b, "ce-specversion")),
    ("unknown specversion 400", 400, |_, valid| header(valid, "ce-specversion", "2.0")),
    ("empty id 400", 400, |_, valid| header(valid, "ce-id", "")),
    ("empty source 400", 400, |_, valid| header(valid, "ce-source", "")),
    ("a bad time 400", 400, |_, valid| header(valid, "ce-time", "yesterday")),
    ("a good time 202", 202, |_, valid| header(valid, "ce-time", "2026-06-17T19:12:49.123Z")),
    ("an underscore in an extension name 400", 400, |_, valid| header(valid, "ce-ue_ip", "a")),
    ("a dash in an extension name 400", 400, |_, valid| header(valid, "ce-ue-ip", "a")),
    ("an underscore in a structured extension name 400", 400, |b, _| {
        let body = STRUCTURED.replace("\"id\"", "\"ue_ip\":\"a\",\"id\"");
        structured(b, "application/cloudevents+json", body)
    }),
    ("structured without type 400", 400, |b, _| {
        structured(b, "application/cloudevents+json", STRUCTURED.replace("\"type\"", "\"typ\""))
    }),
    ("a structured body that is not JSON 400", 400, |b, _| {
        structured(b, "application/cloudevents+json", "{")
    }),
    ("a valid event for an unknown broker 404", 404, |b, _| at(b, "/edge/other")),
    ("a valid event for another namespace 404", 404, |b, _| at(b, "/prod/default")),
    ("an invalid event for an unknown broker 400", 400, |b, _| b.request("/edge/other").body("x")),
    ("knativebrokerttl 0 is 400", 400, |_, valid| header(valid, "ce-knativebrokerttl", "0")),
    ("knativebrokerttl 1 is 400", 400, |_, valid| header(valid, "ce-knativebrokerttl", "1")),
    ("knativebrokerttl 2 is 202", 202, |_, valid| header(valid, "ce-knativebrokerttl", "2")),
    ("a body of 8 MiB is no 413", 202, |_, valid| valid.body(vec![b'x'; 8 << 20])),
    ("a header of 512 KiB is taken", 202, |_, valid| {
        header(valid, "x-long", &"x".repeat(512 << 10))
    }),
    ("headers over 1 MiB 431", 431, |_, valid| {
        header(valid, "x-long", &"x".repeat((1 << 20) + 8192))
    }),
];

#[tokio::test]
async fn ingress_answers_as_knatives_does() {
    let bench = Bench::start(BROKER).await;
    let mut wrong = Vec::new();
    for (line, expected, change) in ANSWERS {
        let found = code(change(&bench, bench.event("t"))).await;
        if found != *expected {
            wrong.push(format!("{line}: {found}"));
        }
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

#[tokio::test]
async fn a_channel_is_at_its_path_too() {
    let subscriber = Subscriber::answering(vec![]).await;
    let bench = Bench::start(&channel(subscriber.addr, "")).await;
    assert_eq!(code(at(&bench, "/edge/audit")).await, 202);
    assert_eq!(code(at(&bench, "/edge/default")).await, 404);
}

#[tokio::test]
async fn a_refusal_says_why() {
    let bench = Bench::start(BROKER).await;
    let text = async |request: RequestBuilder| request.send().await.unwrap().text().await.unwrap();
    assert!(text(at(&bench, "/edge/main")).await.contains("no Broker or Channel edge/main"));
    assert!(text(without(&bench, "ce-id")).await.contains("id"));
    assert!(text(header(bench.event("t"), "ce-ue_ip", "a")).await.contains("`ue_ip`"));
}

#[tokio::test]
async fn http2_without_tls_is_not_spoken() {
    let bench = Bench::start(BROKER).await;
    let mut stream = TcpStream::connect(bench.broker.addr).await.unwrap();
    // Client preface and an empty SETTINGS frame (RFC 9113, 3.4).
    stream.write_all(b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0").await.unwrap();
    let mut answer = Vec::new();
    let _ = soon(stream.read_to_end(&mut answer)).await;
    assert!(answer.is_empty() || answer.starts_with(b"HTTP/1.1 4"), "{answer:?}");
}

fn short(idle: u64, read: u64) -> Timeouts {
    Timeouts {
        idle: Duration::from_millis(idle),
        read: Duration::from_millis(read),
        ..Timeouts::default()
    }
}

#[test]
fn the_default_times_are_knatives() {
    let timeouts = Timeouts::default();
    assert_eq!((timeouts.idle, timeouts.read), (Duration::from_secs(10), Duration::from_secs(10)));
}

#[tokio::test]
async fn an_idle_connection_is_closed_after_the_idle_time() {
    let bench = Bench::with_timeouts(BROKER, short(300, 10_000)).await;
    let mut stream = TcpStream::connect(bench.broker.addr).await.unwrap();
    stream.write_all(b"OPTIONS / HTTP/1.1\r\nhost: a\r\n\r\n").await.unwrap();
    let answered = Instant::now();
    let mut answer = String::new();
    // Ends when the Broker closes.
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
    assert_eq!(answer.matches("HTTP/1.1").count(), 1, "{answer}");
    assert!(answered.elapsed() >= Duration::from_millis(290), "{:?}", answered.elapsed());
}

#[tokio::test]
async fn a_body_that_does_not_arrive_in_time_is_answered_500() {
    let bench = Bench::with_timeouts(BROKER, short(10_000, 200)).await;
    let mut stream = TcpStream::connect(bench.broker.addr).await.unwrap();
    stream
        .write_all(
            b"POST /edge/default HTTP/1.1\r\nhost: a\r\nce-specversion: 1.0\r\nce-id: 1\r\n\
              ce-source: /s\r\nce-type: t\r\ncontent-length: 10\r\n\r\n12345",
        )
        .await
        .unwrap();
    let mut answer = String::new();
    soon(stream.read_to_string(&mut answer)).await.unwrap();
    assert!(answer.starts_with("HTTP/1.1 500"), "{answer}");
}
