//! Memory, spool, restart: nothing is lost, and each UE's order holds.

use std::{collections::HashMap, path::Path, sync::Mutex};

use super::*;
use crate::spool::Limits;

/// A sink that can be taken down and brought up, and remembers what it took, by UE.
#[derive(Clone, Default)]
struct Switch {
    down: Arc<Mutex<bool>>,
    took: Arc<Mutex<Vec<(String, String)>>>,
}

impl Switch {
    fn down(&self, down: bool) {
        *self.down.lock().unwrap() = down;
    }

    fn sink(&self) -> Arc<dyn Sink> {
        let this = self.clone();
        acting("switch", move |event| {
            if *this.down.lock().unwrap() {
                return async { Err(Failure::Network("down".into())) }.boxed();
            }
            let ue = event.extension("partitionkey").unwrap().to_string();
            this.took.lock().unwrap().push((ue, event.id().to_owned()));
            async { Ok(()) }.boxed()
        })
    }

    fn ids(&self) -> Vec<String> {
        self.took.lock().unwrap().iter().map(|(_, id)| id.clone()).collect()
    }
}

pub(super) fn lane(sink: Arc<dyn Sink>, directory: &Path, limits: Limits) -> Lane {
    let spool = Some(Kept::open(&directory.join("spool"), limits).unwrap());
    let dead_letters = Some(DeadLetters::new(directory.join("dead.jsonl"), 1 << 20));
    Lane { spool, dead_letters, ..Lane::from(sink) }
}

fn quick() -> Config {
    let breaker = breaker::Policy {
        threshold: 3,
        first_pause: Duration::from_millis(2),
        longest_pause: Duration::from_millis(10),
    };
    let retry = retry::Policy { first_wait: Duration::from_millis(1), ..retry::Policy::default() };
    Config { breaker, retry, ..Config::default() }
}

fn soon() -> tokio::time::Instant {
    tokio::time::Instant::now() + PATIENCE
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    let wait = async {
        while !condition() {
            tokio::time::sleep(Duration::from_millis(2)).await;
        }
    };
    timeout(PATIENCE, wait).await.unwrap_or_else(|_| panic!("{what}"));
}

#[tokio::test]
async fn events_wait_on_disk_while_the_sink_is_down_and_survive_a_kill() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    switch.down(true);
    let bench = Bench::of(quick(), vec![lane(switch.sink(), directory.path(), Limits::default())]);
    for id in 0..20 {
        bench.send(&id.to_string(), &format!("ue-{}", id % 3)).await;
    }
    // A kill: nothing of this process gets to say goodbye. Its copy is what the kernel has.
    until("the breaker opens", || {
        bench.samples()["detector_delivery_sink_up{sink=\"switch\"}"] == 0.0
    })
    .await;
    bench.send("20", "ue-0").await;
    let copy = tempfile::tempdir().unwrap();
    until("all are on disk", || {
        let _ = std::fs::remove_dir_all(copy.path().join("spool"));
        std::fs::create_dir_all(copy.path().join("spool")).unwrap();
        for entry in std::fs::read_dir(directory.path().join("spool")).unwrap() {
            let entry = entry.unwrap();
            std::fs::copy(entry.path(), copy.path().join("spool").join(entry.file_name())).unwrap();
        }
        let (kept, _) = Kept::open(&copy.path().join("spool"), Limits::default()).unwrap();
        kept.waiting() == 21
    })
    .await;
    switch.down(false);
    let again = Switch::default();
    let mut bench = Bench::of(quick(), vec![lane(again.sink(), copy.path(), Limits::default())]);
    for _ in 0..21 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    let row = bench.books("switch");
    assert_eq!((row.entered, row.recovered, row.delivered), (0, 21, 21));
    for ue in 0..3 {
        let ids: Vec<u32> = again
            .took
            .lock()
            .unwrap()
            .iter()
            .filter(|(of, _)| *of == format!("ue-{ue}"))
            .map(|(_, id)| id.parse().unwrap())
            .collect();
        assert!(ids.is_sorted() && ids.len() >= 6, "{ids:?}");
    }
}

#[tokio::test]
async fn what_is_not_delivered_when_the_agent_stops_is_delivered_after_the_next_start() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    let first = Bench::of(quick(), vec![lane(stuck(), directory.path(), Limits::default())]);
    for id in 0..5 {
        first.send(&id.to_string(), "a").await;
    }
    let now = tokio::time::Instant::now();
    let report = first.delivery.drain(now + Duration::from_millis(20)).await;
    assert_eq!(report, DrainReport { kept: 5, ..DrainReport::default() });
    let again = lane(switch.sink(), directory.path(), Limits::default());
    let second = Bench::of(quick(), vec![again]);
    second.send("5", "a").await;
    let report = second.delivery.drain(soon()).await;
    assert_eq!(report, DrainReport { delivered: 6, ..DrainReport::default() });
    assert_eq!(switch.ids(), ["0", "1", "2", "3", "4", "5"]);
    let third = Bench::of(quick(), vec![lane(stuck(), directory.path(), Limits::default())]);
    assert_eq!(third.books("stuck"), ledger::Row::default(), "nothing comes twice");
}

#[tokio::test]
async fn a_drain_does_not_wait_for_a_sink_that_is_down() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    switch.down(true);
    let bench = Bench::of(quick(), vec![lane(switch.sink(), directory.path(), Limits::default())]);
    for ue in 0..5 {
        bench.send(&ue.to_string(), &format!("ue-{ue}")).await;
    }
    let report = bench.delivery.drain(soon()).await;
    assert_eq!(report, DrainReport { kept: 5, ..DrainReport::default() });
}

#[tokio::test]
async fn when_memory_is_short_events_go_to_disk_and_the_sender_does_not_wait() {
    let directory = tempfile::tempdir().unwrap();
    let (gate, took) = (Arc::new(Notify::new()), Switch::default());
    let (held, taken) = (gate.clone(), took.took.clone());
    let sink = acting("slow", move |event| {
        let (held, taken) = (held.clone(), taken.clone());
        let event = event.clone();
        async move {
            held.notified().await;
            held.notify_one();
            let ue = event.extension("partitionkey").unwrap().to_string();
            taken.lock().unwrap().push((ue, event.id().to_owned()));
            Ok(())
        }
        .boxed()
    });
    let config = Config { capacity: 16, ..quick() };
    let mut bench = Bench::of(config, vec![lane(sink, directory.path(), Limits::default())]);
    for id in 0..500 {
        let (id, ue) = (id.to_string(), format!("ue-{}", id % 4));
        let send = bench.send(&id, &ue);
        timeout(PATIENCE, send).await.expect("room");
    }
    until("most of them are on disk", || bench.books("slow").in_spool > 470).await;
    gate.notify_one();
    for _ in 0..500 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
    let mut by_ue = HashMap::<String, Vec<usize>>::new();
    for (ue, id) in took.took.lock().unwrap().iter() {
        by_ue.entry(ue.clone()).or_default().push(id.parse().unwrap());
    }
    assert!(by_ue.values().all(|ids| ids.is_sorted() && ids.len() == 125), "{by_ue:?}");
    assert_eq!(bench.books("slow").entered, 500);
}

#[tokio::test]
async fn an_event_that_the_sink_rejects_is_in_the_dead_letter_file_with_the_answer() {
    let directory = tempfile::tempdir().unwrap();
    let mut receiver = Receiver::start([receiver::Answer::With(400, "", "no such type")]).await;
    let sink = http_sink(&receiver, Duration::from_secs(60));
    let mut bench = Bench::of(quick(), vec![lane(sink, directory.path(), Limits::default())]);
    bench.send("bad", "a").await;
    bench.send("good", "a").await;
    assert_eq!(bench.outcome().await.label(), "rejected");
    assert_eq!(bench.outcome().await, Outcome::Delivered);
    let (letters, _) = DeadLetters::new(directory.path().join("dead.jsonl"), 0).read().unwrap();
    let [letter] = &letters[..] else { panic!("{letters:?}") };
    assert_eq!(letter.event, event("bad", "a"));
    assert_eq!(letter.reason, "answered 400 Bad Request: \"no such type\"");
    assert_eq!((letter.rule.as_str(), letter.attempts), ("press", 1));
    let row = bench.books("http");
    assert_eq!((row.dead_lettered, row.delivered, row.lost()), (1, 1, 0));
    assert_eq!(receiver.next().await.headers["ce-id"], "bad");
}

#[tokio::test]
async fn a_full_spool_is_in_the_books() {
    let directory = tempfile::tempdir().unwrap();
    let switch = Switch::default();
    switch.down(true);
    let limits = Limits { max_bytes: 64 << 10, ..Limits::default() };
    let config = Config { capacity: 16, ..quick() };
    let bench = Bench::of(config, vec![lane(switch.sink(), directory.path(), limits)]);
    for id in 0..1_000 {
        bench.send(&id.to_string(), &format!("ue-{}", id % 4)).await;
    }
    until("all are on disk or gone", || bench.books("switch").in_memory <= 16).await;
    let row = bench.books("switch");
    assert!(row.lost[&("spool", "full")] > 700, "{row:?}");
    assert_eq!(row.lost() + row.in_memory + row.in_spool, 1_000);
    switch.down(false);
    let report = bench.delivery.drain(soon()).await;
    assert_eq!(report.delivered + report.kept + row.lost() + report.left, 1_000);
    let ids: Vec<usize> = switch.ids().iter().map(|id| id.parse().unwrap()).collect();
    for ue in 0..4 {
        assert!(ids.iter().filter(|id| *id % 4 == ue).is_sorted(), "{ids:?}");
    }
}

#[test]
fn an_event_is_the_same_after_it_was_on_disk() {
    for detection in
        [crate::cloudevent::tests::buy_click(), crate::cloudevent::tests::ended_session()]
    {
        let identity = crate::cloudevent::Identity { site: "s".into(), node: "n".into() };
        let before = crate::cloudevent::build(
            &detection,
            &identity,
            &crate::cloudevent::Overrides::default(),
            crate::cloudevent::Sampler::default(),
        );
        let text = serde_json::to_vec(&before).unwrap();
        assert_eq!(serde_json::from_slice::<Event>(&text).unwrap(), before);
    }
}
