//! Several events in one request.

use std::{collections::BTreeSet, sync::Mutex};

use axum::{Router, body::Bytes, extract::State, http::HeaderMap, routing::post};
use reqwest::StatusCode;

use super::*;
use crate::config::{Batch, ContentMode};

type Answering = Arc<dyn Fn(&[Event]) -> StatusCode + Send + Sync>;
type Taken = Arc<Mutex<Vec<(StatusCode, Vec<Event>)>>>;

/// Reads batches with the SDK's own types, and answers what a function says.
async fn receiver(
    answer: impl Fn(&[Event]) -> StatusCode + Send + Sync + 'static,
) -> (url::Url, Taken) {
    let take = async |State((answer, taken)): State<(Answering, Taken)>,
                      headers: HeaderMap,
                      body: Bytes| {
        assert_eq!(headers["content-type"], "application/cloudevents-batch+json; charset=UTF-8");
        assert!(!headers.contains_key("ce-id"));
        let events: Vec<Event> = serde_json::from_slice(&body).unwrap();
        let status = answer(&events);
        taken.lock().unwrap().push((status, events));
        status
    };
    let taken = Taken::default();
    let state = (Arc::new(answer) as Answering, taken.clone());
    let router = Router::new().route("/", post(take)).with_state(state);
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/", listener.local_addr().unwrap()).parse().unwrap();
    tokio::spawn(axum::serve(listener, router).into_future());
    (url, taken)
}

fn bench(url: url::Url, max_events: usize) -> Bench {
    let batch = Batch { max_events, linger: Duration::from_millis(300) };
    let http = HttpConfig { mode: ContentMode::Batched, batch, ..HttpConfig::of(url) };
    let sink = HttpSink::new("http", &http, &HttpSettings::default()).unwrap();
    Bench::start(Config { retry: impatient(), ..Config::default() }, vec![Arc::new(sink)])
}

/// By id.
async fn outcomes(bench: &mut Bench, count: usize) -> BTreeMap<String, Outcome> {
    let mut outcomes = BTreeMap::new();
    for _ in 0..count {
        let (id, _, outcome) = bench.ended().await;
        outcomes.insert(id, outcome);
    }
    outcomes
}

fn ids(events: &[Event]) -> Vec<&str> {
    events.iter().map(AttributesReader::id).collect()
}

#[tokio::test]
async fn events_of_several_users_go_together_and_those_of_one_in_their_order() {
    let (url, taken) = receiver(|_| StatusCode::ACCEPTED).await;
    let mut bench = bench(url, 4);
    for number in 0..4 {
        for ue in ["a", "b", "c", "d"] {
            bench.send(&format!("{ue}{number}"), ue).await;
        }
    }
    let outcomes = outcomes(&mut bench, 16).await;
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    let taken = taken.lock().unwrap();
    assert!(
        taken.len() < 16 && taken.iter().any(|(_, events)| events.len() == 4),
        "{}",
        taken.len()
    );
    assert!(taken.iter().all(|(_, events)| events.len() <= 4));
    for ue in ["a", "b", "c", "d"] {
        let all = taken.iter().flat_map(|(_, events)| ids(events));
        let own: Vec<&str> = all.filter(|id| id.starts_with(ue)).collect();
        assert!(own.len() == 4 && own.is_sorted(), "{own:?}");
    }
}

#[tokio::test]
async fn one_event_alone_waits_no_longer_than_it_may() {
    let (url, taken) = receiver(|_| StatusCode::ACCEPTED).await;
    let mut bench = bench(url, 100);
    bench.send("1", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    assert_eq!(taken.lock().unwrap().len(), 1);
}

#[tokio::test]
async fn of_a_batch_that_is_refused_only_the_culprit_is_rejected() {
    for status in [StatusCode::BAD_REQUEST, StatusCode::PAYLOAD_TOO_LARGE] {
        let poisoned = move |events: &[Event]| match ids(events).contains(&"3") {
            true => status,
            false => StatusCode::ACCEPTED,
        };
        let (url, taken) = receiver(poisoned).await;
        let mut bench = bench(url, 8);
        for number in 0..8 {
            bench.send(&number.to_string(), &format!("ue{number}")).await;
        }
        let outcomes = outcomes(&mut bench, 8).await;
        for (id, outcome) in &outcomes {
            let rejected = matches!(outcome, Outcome::Rejected(_));
            assert_eq!(rejected, id == "3", "{id}: {outcome:?}");
        }
        let taken = taken.lock().unwrap();
        let good = taken.iter().filter(|(status, _)| status.is_success());
        let delivered: Vec<&str> = good.flat_map(|(_, events)| ids(events)).collect();
        assert_eq!(delivered.len(), 7, "each once: {delivered:?}");
        assert_eq!(BTreeSet::from_iter(delivered).len(), 7);
        assert!(taken.len() <= 15, "{} requests", taken.len());
        assert_eq!(bench.counted("http"), [7.0, 1.0, 0.0, 0.0]);
    }
}

#[tokio::test]
async fn a_batch_that_fails_for_now_is_not_taken_apart_and_all_of_it_is_retried() {
    let first = std::sync::atomic::AtomicBool::new(true);
    let (url, taken) =
        receiver(move |_| match first.swap(false, std::sync::atomic::Ordering::AcqRel) {
            true => StatusCode::SERVICE_UNAVAILABLE,
            false => StatusCode::ACCEPTED,
        })
        .await;
    let mut bench = bench(url, 4);
    for ue in ["a", "b", "c", "d"] {
        bench.send(ue, ue).await;
    }
    let outcomes = outcomes(&mut bench, 4).await;
    assert!(outcomes.values().all(|outcome| *outcome == Outcome::Delivered), "{outcomes:?}");
    let taken = taken.lock().unwrap();
    let delivered: usize = taken[1..].iter().map(|(_, events)| events.len()).sum();
    assert_eq!((taken[0].1.len(), delivered), (4, 4));
}
