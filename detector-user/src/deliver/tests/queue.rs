//! Order, limits, retries in time, and the end.

use std::{collections::HashMap, sync::Mutex};

use futures::poll;

use super::{
    receiver::{Answer, Receiver},
    *,
};

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
    let config = Config { budget: Duration::from_secs(30), ..Config::default() };
    let mut bench = Bench::start(config, vec![sink]);
    bench.send("1", "a").await;
    assert_eq!(bench.outcome().await, Outcome::Exhausted(Failure::Timeout));
    // Five failures in a row open the breaker, whose probes are further and further apart.
    let expected = [0, 50, 150, 350, 750, 1_750, 3_750, 7_750, 15_750, 31_750];
    assert_eq!(*times.lock().unwrap(), expected);
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
    let row = bench.books("stuck");
    assert_eq!((row.entered, row.in_memory, row.delivered), (2, 1, 0));
    assert_eq!(row.lost, [(("delivery", "stopped"), 1)].into());
}

#[tokio::test]
async fn a_ue_whose_event_hangs_does_not_hold_up_the_others() {
    let sink = acting("one-hangs", |event| match event.id() {
        "hangs" => std::future::pending().boxed(),
        _ => async { Ok(()) }.boxed(),
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    bench.send("hangs", "ue-0").await;
    for ue in 1..=64 {
        bench.send(&ue.to_string(), &format!("ue-{ue}")).await;
    }
    for _ in 1..=64 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    assert_eq!(bench.books("one-hangs").in_memory, 1);
}

#[tokio::test(start_paused = true)]
async fn a_sink_that_is_down_is_probed_with_one_event_at_a_time_and_each_gets_its_turn() {
    let tried = Arc::new(Mutex::new(vec![]));
    let (seen, begin) = (tried.clone(), tokio::time::Instant::now());
    let sink = acting("down", move |event| {
        seen.lock().unwrap().push((begin.elapsed(), event.id().to_owned()));
        async { Err(Failure::Timeout) }.boxed()
    });
    let bench = Bench::start(Config::default(), vec![sink]);
    for ue in 0..8 {
        bench.send(&format!("event-{ue}"), &format!("ue-{ue}")).await;
    }
    tokio::time::sleep(Duration::from_secs(600)).await;
    let tried = tried.lock().unwrap();
    // 1, 2, 4, 8 and 16 s after each other, then every 30 s.
    let probes: Vec<_> = tried.iter().filter(|(at, _)| *at > Duration::from_millis(500)).collect();
    assert!((20..30).contains(&probes.len()), "{tried:?}");
    let different: std::collections::BTreeSet<_> = probes.iter().map(|(_, id)| id).collect();
    assert_eq!(different.len(), 8);
    assert_eq!(bench.books("down").in_memory, 8, "nothing was given up");
}

#[tokio::test(start_paused = true)]
async fn an_event_that_alone_fails_is_given_up_once_others_are_taken() {
    let sink = acting("poisoned", |event| {
        let poison = event.id() == "poison";
        async move { if poison { Err(Failure::Timeout) } else { Ok(()) } }.boxed()
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    bench.send("poison", "a").await;
    tokio::time::sleep(Duration::from_secs(100)).await;
    assert_eq!(bench.books("poisoned").in_memory, 1, "it may be the sink");
    for id in 0..9 {
        bench.send(&id.to_string(), "b").await;
    }
    let mut ended = HashMap::new();
    for _ in 0..10 {
        let (id, _, outcome) = bench.ended().await;
        ended.insert(id, outcome.label());
    }
    assert_eq!(ended.remove("poison"), Some("exhausted"));
    assert!(ended.values().all(|label| *label == "delivered"), "{ended:?}");
}

#[tokio::test(start_paused = true)]
async fn as_many_are_under_way_as_the_sink_bears() {
    let most = Arc::new(Mutex::new((0u32, 0u32)));
    let seen = most.clone();
    let sink = acting("slow", move |_| {
        let seen = seen.clone();
        async move {
            {
                let mut seen = seen.lock().unwrap();
                seen.0 += 1;
                seen.1 = seen.1.max(seen.0);
            }
            tokio::time::sleep(Duration::from_millis(500)).await;
            seen.lock().unwrap().0 -= 1;
            Ok(())
        }
        .boxed()
    });
    let mut bench = Bench::start(Config { concurrency: 32, ..Config::default() }, vec![sink]);
    for ue in 0..2_000 {
        bench.send(&ue.to_string(), &format!("ue-{ue}")).await;
    }
    for _ in 0..2_000 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    assert_eq!(most.lock().unwrap().1, 32);
}

#[tokio::test]
async fn events_go_to_the_sinks_that_want_them() {
    let up = |name| acting(name, |_| async { Ok(()) }.boxed());
    let routes = |rule: &str| Routes::of(vec![glob::Pattern::new(rule).unwrap()]);
    let lane = |name, routes| Lane { routes, ..Lane::from(up(name)) };
    let lanes = vec![
        lane("all", Routes::default()),
        lane("press", routes("pr*")),
        lane("other", routes("other")),
    ];
    let mut bench = Bench::of(Config::default(), lanes);
    bench.send("1", "a").await;
    let mut sinks = [bench.ended().await.1, bench.ended().await.1];
    sinks.sort();
    assert_eq!(sinks, ["all", "press"]);
    assert_eq!(bench.books("other").entered, 0);
}

#[tokio::test]
async fn a_sink_that_is_down_does_not_keep_events_from_another() {
    let down = acting("down", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let up = acting("up", |_| async { Ok(()) }.boxed());
    let budget = Duration::ZERO;
    let config = Config { retry: impatient(), budget, ..Config::default() };
    let mut bench = Bench::start(config, vec![down, up]);
    bench.send("1", "a").await;
    let ended = [bench.ended().await, bench.ended().await];
    let by_sink: HashMap<_, _> =
        ended.into_iter().map(|(_, sink, outcome)| (sink, outcome.label())).collect();
    assert_eq!(by_sink, [("down".into(), "exhausted"), ("up".into(), "delivered")].into());
    assert_eq!(bench.counted("up"), [1.0, 0.0, 0.0, 0.0]);
    assert_eq!(bench.counted("down"), [0.0, 0.0, 1.0, 0.0]);
}

#[tokio::test(start_paused = true)]
async fn a_full_queue_of_a_sink_that_is_down_does_not_keep_events_from_another() {
    let down = acting("down", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let up = acting("up", |_| async { Ok(()) }.boxed());
    let bench = Bench::start(Config { capacity: 8, ..Config::default() }, vec![down, up]);
    let send = async {
        for number in 0..200 {
            bench.send(&number.to_string(), &format!("ue-{number}")).await;
        }
    };
    // Until it is known to be down, and a grace of a second once: not for each event.
    timeout(Duration::from_secs(5), send).await.expect("the other is not waited for");
    while bench.books("up").delivered < 200 {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    let row = bench.books("down");
    assert_eq!((row.entered, row.in_memory), (200, 8));
    assert_eq!(row.lost, [(("delivery", "queue_full"), 192)].into());
}

#[tokio::test(start_paused = true)]
async fn a_sink_alone_is_waited_for_though_it_is_down() {
    let down = acting("down", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let bench = Bench::start(Config { capacity: 8, ..Config::default() }, vec![down]);
    for number in 0..8 {
        bench.send(&number.to_string(), &format!("ue-{number}")).await;
    }
    let ninth = bench.send("9", "ue-9");
    assert!(timeout(Duration::from_secs(60), ninth).await.is_err(), "it waits");
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
    let config = Config { breaker: eager(), ..Config::default() };
    let mut bench = Bench::start(config, vec![sink]);
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
    assert_eq!(draining.await, DrainReport { delivered: 1, failed: 1, ..DrainReport::default() });
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
    assert_eq!(report, DrainReport { left: 3, ..DrainReport::default() });
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
    assert_eq!(report, DrainReport { delivered: 1, ..DrainReport::default() });
}

#[tokio::test]
async fn a_sink_that_panics_loses_only_the_event_it_panics_on() {
    let sink = acting("buggy", |event| match event.id() {
        "2" => panic!("a bug in a sink"),
        _ => async { Ok(()) }.boxed(),
    });
    let mut bench = Bench::start(Config::default(), vec![sink]);
    for id in ["1", "2", "3"] {
        bench.send(id, "a").await;
    }
    let labels = [bench.outcome().await, bench.outcome().await, bench.outcome().await];
    assert_eq!(labels.map(|outcome| outcome.label()), ["delivered", "rejected", "delivered"]);
    assert_eq!(bench.queued("buggy"), 0.0);
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
    let budget = Duration::ZERO;
    let config = Config { retry: impatient(), breaker: eager(), budget, ..Config::default() };
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
