//! Random schedules of faults, kills and restarts. Whatever happens: the books balance, nothing that
//! was on disk is lost, each UE's events arrive in order, and what comes twice has the same id.

use std::{
    collections::{BTreeSet, HashMap},
    sync::Mutex,
};

use proptest::prelude::*;

use super::*;
use crate::spool::Limits;

/// What happens next.
#[derive(Clone, Debug)]
enum Act {
    /// So many events, of so many UEs in turn.
    Send(usize, usize),
    /// From now on the sink does this.
    Sink(Fault),
    /// So many milliseconds pass.
    Pass(u64),
    /// Stop as on SIGTERM, with so long to drain, and start again.
    Restart(u64),
    /// As SIGKILL does: tasks are gone from one moment to the next.
    Kill,
}

#[derive(Clone, Copy, Debug)]
enum Fault {
    None,
    Refuse,
    Hang,
    Slow(u64),
    /// Every so many-th attempt is answered 500 although it was taken.
    Flaky(u64),
}

fn fault() -> impl Strategy<Value = Fault> {
    prop_oneof![
        3 => Just(Fault::None),
        2 => Just(Fault::Refuse),
        1 => Just(Fault::Hang),
        1 => (1u64..200).prop_map(Fault::Slow),
        2 => (2u64..5).prop_map(Fault::Flaky),
    ]
}

fn act() -> impl Strategy<Value = Act> {
    prop_oneof![
        4 => (1usize..60, 1usize..6).prop_map(|(count, ues)| Act::Send(count, ues)),
        3 => fault().prop_map(Act::Sink),
        3 => (1u64..5_000).prop_map(Act::Pass),
        1 => (0u64..500).prop_map(Act::Restart),
        1 => Just(Act::Kill),
    ]
}

#[derive(Default)]
struct World {
    fault: Mutex<Option<Fault>>,
    attempts: Mutex<u64>,
    /// UE and id, as taken.
    took: Mutex<Vec<(String, String)>>,
}

fn sink(world: &Arc<World>) -> Arc<dyn Sink> {
    let world = world.clone();
    acting("world", move |event| {
        let ue = event.extension("partitionkey").unwrap().to_string();
        let (world, id) = (world.clone(), event.id().to_owned());
        async move {
            let attempt = {
                let mut attempts = world.attempts.lock().unwrap();
                *attempts += 1;
                *attempts
            };
            let fault = world.fault.lock().unwrap().unwrap_or(Fault::None);
            let take = || world.took.lock().unwrap().push((ue, id));
            match fault {
                Fault::None => take(),
                Fault::Refuse => return Err(Failure::Network("refused".into())),
                Fault::Hang => {
                    tokio::time::sleep(Duration::from_secs(10)).await;
                    return Err(Failure::Timeout);
                }
                Fault::Slow(ms) => {
                    tokio::time::sleep(Duration::from_millis(ms)).await;
                    take();
                }
                Fault::Flaky(every) => {
                    take();
                    if attempt % every == 0 {
                        return Err(Failure::Timeout);
                    }
                }
            }
            Ok(())
        }
        .boxed()
    })
}

fn start(world: &Arc<World>, directory: &std::path::Path) -> Bench {
    let (kept, recovered) = Kept::open(directory, Limits::default()).unwrap();
    assert_eq!((recovered.damage.len(), recovered.missing), (0, 0));
    let lane = Lane { spool: Some((kept, recovered)), ..Lane::from(sink(world)) };
    // No event is given up: that has tests of its own.
    let retry = retry::Policy { retries: u32::MAX, ..retry::Policy::default() };
    Bench::of(Config { capacity: 64, retry, ..Config::default() }, vec![lane])
}

/// What was sent; ids that may be lost, as they were in memory only when the process was killed.
async fn play(acts: &[Act], directory: &std::path::Path) -> (Vec<String>, BTreeSet<String>, World) {
    let world = Arc::new(World::default());
    let mut bench = start(&world, directory);
    let (mut sent, mut may_be_lost) = (vec![], BTreeSet::new());
    for act in acts {
        match act {
            Act::Send(count, ues) => {
                for _ in 0..*count {
                    let id = sent.len().to_string();
                    bench.send(&id, &format!("ue-{}", sent.len() % ues)).await;
                    sent.push((id, tokio::time::Instant::now()));
                }
            }
            Act::Sink(fault) => *world.fault.lock().unwrap() = Some(*fault),
            Act::Pass(ms) => tokio::time::sleep(Duration::from_millis(*ms)).await,
            Act::Restart(ms) => {
                let deadline = tokio::time::Instant::now() + Duration::from_millis(*ms);
                let report = bench.delivery.drain(deadline).await;
                assert_eq!((report.failed, report.left), (0, 0));
                bench = start(&world, directory);
            }
            Act::Kill => {
                // What is neither taken nor on disk by now.
                let books = bench.books("world");
                let metrics = bench.metrics.clone();
                drop(bench);
                // The spool's lock goes with the task.
                while Kept::open(directory, Limits::default()).is_err() {
                    tokio::task::yield_now().await;
                }
                let (kept, _) = Kept::open(directory, Limits::default()).unwrap();
                assert!(kept.waiting() >= books.in_spool, "what was on disk is on disk");
                let (on_disk, _) = kept.give(usize::MAX).await;
                let on_disk = on_disk.iter().map(|it| it.event.as_ref().unwrap().id().to_owned());
                let mut there: BTreeSet<String> = on_disk.collect();
                drop((kept, metrics));
                there.extend(world.took.lock().unwrap().iter().map(|(_, id)| id.clone()));
                there.extend(may_be_lost.iter().cloned());
                for (id, at) in sent.iter().filter(|(id, _)| !there.contains(id)) {
                    assert!(at.elapsed() < Duration::from_secs(2), "{id} was not kept in time");
                    may_be_lost.insert(id.clone());
                }
                bench = start(&world, directory);
            }
        }
        let row = bench.books("world");
        assert_eq!(row.lost(), 0, "{row:?}");
    }
    *world.fault.lock().unwrap() = Some(Fault::None);
    // Longer than the longest pause between probes, and than all attempts that hang.
    tokio::time::sleep(Duration::from_secs(300)).await;
    let report = bench.delivery.drain(tokio::time::Instant::now() + Duration::from_secs(600)).await;
    assert_eq!((report.failed, report.left, report.kept), (0, 0, 0));
    let sent = sent.into_iter().map(|(id, _)| id).collect();
    (sent, may_be_lost, Arc::into_inner(world).unwrap())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 48, ..ProptestConfig::default() })]
    #[test]
    fn whatever_happens_nothing_on_disk_is_lost_and_order_holds(
        acts in prop::collection::vec(act(), 1..16)
    ) {
        let directory = tempfile::tempdir().unwrap();
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .start_paused(true)
            .build()
            .unwrap();
        let (sent, may_be_lost, world) = runtime.block_on(play(&acts, directory.path()));
        let took = world.took.lock().unwrap();
        let there: BTreeSet<&String> = took.iter().map(|(_, id)| id).collect();
        for id in &sent {
            prop_assert!(there.contains(id) || may_be_lost.contains(id), "{} is lost", id);
        }
        if !acts.iter().any(|act| matches!(act, Act::Kill)) {
            prop_assert_eq!(there.len(), sent.len());
        }
        // First arrivals of each UE are in order; a repetition has an id that was there.
        let mut last = HashMap::<&str, usize>::new();
        let mut seen = BTreeSet::new();
        for (ue, id) in took.iter().filter(|(_, id)| seen.insert(id.clone())) {
            let number: usize = id.parse().unwrap();
            // The number of UEs changes between acts, so an id's UE is what it was sent with.
            let before = last.insert(ue, number);
            prop_assert!(before.is_none_or(|before| before < number), "{} after {:?}", id, before);
        }
    }
}
