//! An hour without a sink, on a paused clock: all of it passes, and none of it is waited for.

use std::sync::Mutex;

use super::{spool::lane, *};
use crate::spool::{Fsync, Limits};

const HOUR: u64 = 3_600;

/// A sink that is away, then back; when each attempt came, and what was taken.
#[derive(Clone)]
struct Away {
    until: tokio::time::Instant,
    attempts: Arc<Mutex<Vec<tokio::time::Instant>>>,
    took: Arc<Mutex<Vec<(String, u32)>>>,
}

impl Away {
    fn sink(&self) -> Arc<dyn Sink> {
        let this = self.clone();
        acting("away", move |event| {
            let now = tokio::time::Instant::now();
            this.attempts.lock().unwrap().push(now);
            if now < this.until {
                return async { Err(Failure::Network("nobody listens".into())) }.boxed();
            }
            let ue = event.extension("partitionkey").unwrap().to_string();
            this.took.lock().unwrap().push((ue, event.id().parse().unwrap()));
            async { Ok(()) }.boxed()
        })
    }
}

#[tokio::test(start_paused = true)]
async fn an_hour_without_a_sink_costs_probes_now_and_then_and_no_event() {
    let directory = tempfile::tempdir().unwrap();
    let begun = tokio::time::Instant::now();
    let until = begun + Duration::from_secs(HOUR);
    let away = Away { until, attempts: Arc::default(), took: Arc::default() };
    // The process's own kill is not the matter here; a sync a second would be.
    let limits = Limits { fsync: Fsync::Never, ..Limits::default() };
    let lanes = vec![lane(away.sink(), directory.path(), limits)];
    let bench = Bench::of(Config::default(), lanes);
    for second in 0..HOUR {
        bench.send(&second.to_string(), &format!("ue-{}", second % 7)).await;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let probes = away.attempts.lock().unwrap().len();
    let row = bench.books("away");
    assert_eq!((row.entered, row.delivered, row.in_memory + row.in_spool), (HOUR, 0, HOUR));
    // Five failures, then after 1, 2, 4, 8, 16 s and every 30 s.
    assert!((100..=130).contains(&probes), "{probes} attempts in an hour");

    while bench.books("away").delivered < HOUR {
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    let row = bench.books("away");
    assert_eq!((row.in_memory, row.in_spool, row.lost.len()), (0, 0, 0), "{row:?}");
    let back = away.attempts.lock().unwrap()[probes] - until;
    assert!(back <= Duration::from_secs(30), "the sink was back for {back:?} before a probe");
    let took = away.took.lock().unwrap();
    assert_eq!(took.len() as u64, HOUR, "none twice");
    for ue in 0..7 {
        let of = took.iter().filter(|(of, _)| *of == format!("ue-{ue}"));
        assert!(of.map(|(_, id)| id).is_sorted(), "ue-{ue} in order");
    }
}
