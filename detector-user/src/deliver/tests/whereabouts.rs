//! Where an event waits, in memory or on disk, and from when on; and that the books are compared with it.
//! On a paused clock: what has no time to pass comes at once.

use std::{
    fs, io,
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
};

use super::{spool::lane, *};
use crate::spool::{Directory, Disk, Limits};

/// One failure is enough for it to open, and then it stays open.
fn hasty() -> Config {
    let hour = Duration::from_secs(3_600);
    let breaker = breaker::Policy { threshold: 1, first_pause: hour, longest_pause: hour };
    Config { breaker, ..Config::default() }
}

/// What segments hold of these ids.
fn on_disk(directory: &Path, ids: &[&str]) -> Vec<String> {
    let files = fs::read_dir(directory.join("spool")).unwrap().flatten();
    let segments = files.filter(|file| file.path().extension().is_some_and(|it| it == "spool"));
    let bytes: Vec<u8> = segments.flat_map(|file| fs::read(file.path()).unwrap()).collect();
    let text = String::from_utf8_lossy(&bytes);
    let there = ids.iter().filter(|id| text.contains(&format!("\"id\":\"{id}\"")));
    there.map(ToString::to_string).collect()
}

/// How long it takes until they are there.
async fn until_on_disk(directory: &Path, ids: &[&str]) -> Duration {
    let begun = tokio::time::Instant::now();
    let there = async {
        while on_disk(directory, ids).len() < ids.len() {
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    };
    timeout(PATIENCE, there).await.expect("on disk");
    begun.elapsed()
}

#[tokio::test]
async fn while_the_sink_is_well_nothing_is_written_to_disk() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().to_owned();
    let sink = acting("well", move |event| {
        let there = on_disk(&path, &[event.id()]);
        assert!(there.is_empty(), "{there:?} is on disk while it is sent");
        async { Ok(()) }.boxed()
    });
    let mut bench =
        Bench::of(Config::default(), vec![lane(sink, directory.path(), Limits::default())]);
    for number in 0..50 {
        bench.send(&number.to_string(), &format!("ue-{}", number % 5)).await;
    }
    for _ in 0..50 {
        assert_eq!(bench.outcome().await, Outcome::Delivered);
    }
}

#[tokio::test(start_paused = true)]
async fn what_is_in_memory_when_the_sink_is_given_up_goes_to_disk_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let gate = Arc::new(Notify::new());
    let opened = gate.clone();
    let sink = acting("away", move |_| {
        let gate = opened.clone();
        async move {
            gate.notified().await;
            Err(Failure::Network("down".into()))
        }
        .boxed()
    });
    let bench = Bench::of(hasty(), vec![lane(sink, directory.path(), Limits::default())]);
    for id in ["a1", "a2", "b1"] {
        bench.send(id, &id[..1]).await;
    }
    tokio::time::sleep(Duration::from_millis(100)).await;
    assert_eq!(on_disk(directory.path(), &["a1", "a2", "b1"]), Vec::<String>::new());
    gate.notify_one();
    let took = until_on_disk(directory.path(), &["a1", "a2", "b1"]).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_the_sink_is_given_up_goes_to_disk_at_once() {
    let directory = tempfile::tempdir().unwrap();
    let sink = acting("away", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let bench = Bench::of(hasty(), vec![lane(sink, directory.path(), Limits::default())]);
    bench.send("first", "a").await;
    until_on_disk(directory.path(), &["first"]).await;
    bench.send("later", "b").await;
    let took = until_on_disk(directory.path(), &["later"]).await;
    assert!(took < Duration::from_millis(500), "{took:?}");
}

#[tokio::test(start_paused = true)]
async fn what_the_sink_keeps_waiting_for_a_second_goes_to_disk() {
    let directory = tempfile::tempdir().unwrap();
    let lanes = vec![lane(stuck(), directory.path(), Limits::default())];
    let bench = Bench::of(Config::default(), lanes);
    for id in ["a1", "a2", "b1"] {
        bench.send(id, &id[..1]).await;
    }
    tokio::time::sleep(Duration::from_millis(900)).await;
    assert_eq!(on_disk(directory.path(), &["a1", "a2", "b1"]), Vec::<String>::new());
    let took = until_on_disk(directory.path(), &["a1", "a2", "b1"]).await;
    assert!(took <= Duration::from_millis(400), "{took:?} after 900 ms");
}

#[tokio::test(start_paused = true)]
async fn books_that_do_not_say_what_is_here_are_counted_as_mistakes() {
    let bench = Bench::start(Config::default(), vec![stuck()]);
    bench.send("1", "a").await;
    let mistakes = || bench.samples()["detector_ledger_mistakes_total{sink=\"stuck\"}"];
    let a_while = Duration::from_secs(2);
    tokio::time::sleep(a_while).await;
    assert_eq!(mistakes(), 0.0);
    // An event that is booked, and nowhere.
    let (_, ledger, _) = bench.delivery.ledgers().remove(0);
    ledger.row("press").lock().enter();
    tokio::time::sleep(a_while).await;
    let found = mistakes();
    assert!(found > 0.0);
    tokio::time::sleep(a_while).await;
    assert!(mistakes() > found, "as long as they are wrong");
}

/// A directory on a disk that may be full.
struct Filling {
    directory: Directory,
    full: Arc<AtomicBool>,
}

impl Disk for Filling {
    fn list(&self) -> io::Result<Vec<String>> {
        self.directory.list()
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.directory.create(name)
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        match self.full.load(Ordering::Relaxed) {
            true => Err(io::ErrorKind::StorageFull.into()),
            false => self.directory.append(name, bytes),
        }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.directory.truncate(name, length)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.directory.length(name)
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.directory.read(name, offset, buffer)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.directory.sync(name)
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.directory.sync_names()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.directory.remove(name)
    }
}

#[tokio::test(start_paused = true)]
async fn what_arrives_while_the_disk_is_full_stays_in_memory_until_there_is_room() {
    let directory = tempfile::tempdir().unwrap();
    let full = Arc::<AtomicBool>::default();
    let disk = Directory::open(&directory.path().join("spool")).unwrap();
    let disk = Filling { directory: disk, full: full.clone() };
    let spool = Some(Kept::on(Box::new(disk), Limits::default()).unwrap());
    let sink = acting("away", |_| async { Err(Failure::Network("down".into())) }.boxed());
    let bench = Bench::of(hasty(), vec![Lane { spool, ..Lane::from(sink) }]);
    // All that is in memory is on disk too; then there is no room for what comes.
    bench.send("first", "a").await;
    until_on_disk(directory.path(), &["first"]).await;
    full.store(true, Ordering::Relaxed);
    bench.send("later", "b").await;
    tokio::time::sleep(Duration::from_secs(5)).await;
    let row = bench.books("away");
    assert_eq!((row.entered, row.in_memory, row.lost.len()), (2, 2, 0), "{row:?}");
    assert_eq!(on_disk(directory.path(), &["later"]), Vec::<String>::new());
    let errors = "detector_spool_errors_total{sink=\"away\",reason=\"disk_full\"}";
    assert!(bench.samples()[errors] > 1.0, "tried again and again");
    full.store(false, Ordering::Relaxed);
    let took = until_on_disk(directory.path(), &["later"]).await;
    assert!(took < Duration::from_secs(1), "{took:?}");
}
