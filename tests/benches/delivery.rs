//! What delivery costs: beside a bare reqwest loop and a bare hyper loop with as many requests under
//! way, and the spool beside a plain buffered file. It prints; it never judges.
//!
//! `cargo bench -p detector-tests --bench delivery`; it needs no root. `-- rates` and the like for one
//! part of it.

use std::{
    convert::Infallible,
    fs::{self, File},
    io::{BufReader, BufWriter, Read, Write},
    net::SocketAddr,
    path::Path,
    sync::{
        Arc, Mutex,
        atomic::{AtomicUsize, Ordering},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result, anyhow};
use bytes::Bytes;
use cloudevents::{Event, EventBuilder, EventBuilderV10};
use detector_user::{
    config::HttpConfig,
    deliver::{Config, Delivery, HttpSettings, HttpSink, Lane, Outcome, Outgoing, Settled, Sink},
    metrics::Metrics,
    own_thread::OwnThread,
    spool::{Class, Directory, Fsync, Given, Limits, NewRecord, Spool},
};
use http_body_util::{BodyExt, Empty, Full};
use hyper::{Request, Response, body::Incoming, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::{
    net::TcpListener,
    sync::{Notify, mpsc},
    time::sleep_until,
};

const UNDER_WAY: usize = 8;
const EVENTS: usize = 8_000;
const ROUNDS: usize = 21;
/// One stall of the machine is the 99th percentile of a round.
const LATENCY_ROUNDS: usize = 5;
const SPOOLED: usize = 40_000;
const BATCH: usize = 64;

fn main() -> Result<()> {
    // `cargo test` runs benches too, without `--bench`; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let receiver = receiver()?;
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let named: Vec<String> = std::env::args().skip(1).filter(|it| !it.starts_with('-')).collect();
    let wanted = |part: &str| named.is_empty() || named.iter().any(|name| name == part);
    // First, as what others have freed would be used again.
    if wanted("memory") {
        memory()?;
    }
    if wanted("rates") {
        runtime.block_on(rates(receiver))?;
    }
    if wanted("latencies") {
        runtime.block_on(latencies(receiver.address))?;
    }
    if wanted("spool") {
        spool()?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
struct Receiver {
    address: SocketAddr,
    /// The thread.
    id: nix::unistd::Pid,
}

impl Receiver {
    /// CPU time of its thread.
    fn time(&self) -> Result<Duration> {
        let text = fs::read_to_string(format!("/proc/self/task/{}/schedstat", self.id))?;
        let nanos = text.split(' ').next().context("schedstat")?;
        Ok(Duration::from_nanos(nanos.parse()?))
    }
}

/// A receiver that answers 202, in a runtime of its own.
fn receiver() -> Result<Receiver> {
    let listener = std::net::TcpListener::bind("127.0.0.1:0")?;
    let address = listener.local_addr()?;
    listener.set_nonblocking(true)?;
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let (sender, id) = std::sync::mpsc::channel();
    std::thread::spawn(move || {
        let _ = sender.send(nix::unistd::gettid());
        runtime.block_on(async move {
            let Ok(listener) = TcpListener::from_std(listener) else { return };
            while let Ok((stream, _)) = listener.accept().await {
                let take = service_fn(async |request: Request<Incoming>| {
                    let _ = request.into_body().collect().await;
                    let mut response = Response::new(Empty::<Bytes>::new());
                    *response.status_mut() = hyper::StatusCode::ACCEPTED;
                    Ok::<_, Infallible>(response)
                });
                let builder = hyper::server::conn::http1::Builder::new();
                tokio::spawn(builder.serve_connection(TokioIo::new(stream), take));
            }
        });
    });
    Ok(Receiver { address, id: id.recv()? })
}

const SOURCE: &str = "/mec/site-7/mec-1/n6";
const TYPE: &str = "com.example.arshop.buy.clicked";
const TIME: &str = "2026-06-19T12:00:00.123456789+00:00";
const TRACE: &str = "00-7be133cdc1135d6798e12deec8039cac-b7ad6b7169203331-00";

fn ue(number: usize) -> String {
    format!("10.60.{}.{}", number / 250 % 250, number % 250)
}

fn id(number: usize) -> String {
    format!("7be133cd-c113-5d67-98e1-{number:012x}")
}

fn event(number: usize) -> Event {
    let ue = ue(number);
    let built = EventBuilderV10::new()
        .id(id(number))
        .source(SOURCE)
        .ty(TYPE)
        .subject(ue.as_str())
        .time(TIME)
        .extension("partitionkey", ue.as_str())
        .extension("ueip", ue.as_str())
        .extension("application", "ar-shop")
        .extension("rule", "buy-click")
        .extension("direction", "uplink")
        .extension("traceparent", TRACE)
        .data("application/json", serde_json::json!({"ue": ue, "path": "/api/buttons/buy"}))
        .build();
    built.expect("an event")
}

fn http_sink(address: SocketAddr) -> Result<Arc<dyn Sink>> {
    let url = format!("http://{address}/edge/default").parse()?;
    Ok(Arc::new(HttpSink::new("http", &HttpConfig::of(url), &HttpSettings::default())?))
}

/// On a thread of its own, as the agent has it.
fn start(
    address: SocketAddr,
    taken: impl Fn(Duration) + Send + Sync + 'static,
) -> Result<(Delivery, OwnThread)> {
    let observer = move |settled: Settled<'_>| {
        if *settled.outcome == Outcome::Delivered {
            taken(settled.after);
        }
    };
    let config =
        Config { concurrency: UNDER_WAY, observer: Some(Arc::new(observer)), ..Config::default() };
    let thread = OwnThread::start("delivery")?;
    let inside = thread.enter();
    let delivery = Delivery::start(&config, vec![Lane::from(http_sink(address)?)], &Metrics::new());
    drop(inside);
    Ok((delivery, thread))
}

fn outgoing(delivery: &Delivery, event: Event) -> Outgoing {
    let rule = delivery.rule("buy-click");
    Outgoing { event, rule, read_at: Instant::now(), packet_time: None, class: Class::Normal }
}

async fn ours(address: SocketAddr) -> Result<f64> {
    let (count, all) = (AtomicUsize::new(0), Arc::new(Notify::new()));
    let told = all.clone();
    // A thread that is woken for each event would be measured too.
    let (delivery, _thread) = start(address, move |_| {
        if count.fetch_add(1, Ordering::AcqRel) + 1 == EVENTS {
            told.notify_one();
        }
    })?;
    let rule = delivery.rule("buy-click");
    let events: Vec<Event> = (0..EVENTS).map(event).collect();
    let begin = Instant::now();
    let send = async {
        for event in events {
            let rule = rule.clone();
            let read_at = Instant::now();
            let class = Class::Normal;
            delivery.send(Outgoing { event, rule, read_at, packet_time: None, class }).await;
        }
    };
    send.await;
    all.notified().await;
    Ok(EVENTS as f64 / begin.elapsed().as_secs_f64())
}

/// What the delivery sends of an event, made before the time begins as events are.
struct Prepared {
    headers: Vec<(&'static str, String)>,
    body: String,
}

fn prepared(number: usize) -> Prepared {
    let ue = ue(number);
    let headers = vec![
        ("ce-specversion", "1.0".to_owned()),
        ("ce-id", id(number)),
        ("ce-source", SOURCE.to_owned()),
        ("ce-type", TYPE.to_owned()),
        ("ce-subject", ue.clone()),
        ("ce-time", TIME.to_owned()),
        ("ce-partitionkey", ue.clone()),
        ("ce-ueip", ue.clone()),
        ("ce-application", "ar-shop".to_owned()),
        ("ce-rule", "buy-click".to_owned()),
        ("ce-direction", "uplink".to_owned()),
        ("ce-traceparent", TRACE.to_owned()),
        ("user-agent", "detector/0.1.0".to_owned()),
        ("content-type", "application/json".to_owned()),
    ];
    Prepared { headers, body: format!(r#"{{"path":"/api/buttons/buy","ue":"{ue}"}}"#) }
}

/// For each that is under way at once.
fn shares() -> Vec<Vec<Prepared>> {
    let share = EVENTS / UNDER_WAY;
    (0..UNDER_WAY).map(|it| (it * share..(it + 1) * share).map(prepared).collect()).collect()
}

async fn bare_post(
    client: &reqwest::Client,
    url: &reqwest::Url,
    prepared: Prepared,
) -> reqwest::Result<()> {
    let request = client.post(url.clone()).body(prepared.body);
    let add = |request: reqwest::RequestBuilder, (name, value)| request.header(name, value);
    let request = prepared.headers.into_iter().fold(request, add);
    request.send().await?.bytes().await.map(drop)
}

async fn bare_reqwest(address: SocketAddr) -> Result<f64> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url: reqwest::Url = format!("http://{address}/edge/default").parse()?;
    let shares = shares();
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for share in shares {
        let (client, url) = (client.clone(), url.clone());
        tasks.spawn(async move {
            for prepared in share {
                bare_post(&client, &url, prepared).await?;
            }
            reqwest::Result::Ok(())
        });
    }
    tasks.join_all().await.into_iter().collect::<reqwest::Result<()>>()?;
    Ok(EVENTS as f64 / begin.elapsed().as_secs_f64())
}

async fn bare_hyper(address: SocketAddr) -> Result<f64> {
    let shares = shares();
    let begin = Instant::now();
    let mut tasks = tokio::task::JoinSet::new();
    for share in shares {
        tasks.spawn(async move {
            let stream = tokio::net::TcpStream::connect(address).await?;
            let handshake = hyper::client::conn::http1::handshake(TokioIo::new(stream));
            let (mut sender, connection) = handshake.await?;
            tokio::spawn(connection);
            for prepared in share {
                let request = Request::post("/edge/default").header("host", "b");
                let add = |request: hyper::http::request::Builder, (name, value)| {
                    request.header(name, value)
                };
                let request = prepared.headers.into_iter().fold(request, add);
                let request = request.body(Full::new(Bytes::from(prepared.body)))?;
                sender.ready().await?;
                sender.send_request(request).await?.into_body().collect().await?;
            }
            Ok::<_, anyhow::Error>(())
        });
    }
    tasks.join_all().await.into_iter().collect::<Result<()>>()?;
    Ok(EVENTS as f64 / begin.elapsed().as_secs_f64())
}

fn print(what: &str, mut ratios: Vec<f64>, goal: &str, note: &str) {
    ratios.sort_by(f64::total_cmp);
    let (least, most) = (ratios[0], ratios[ratios.len() - 1]);
    let median = ratios[ratios.len() / 2];
    println!("{what:<72} {median:>6.2}  {least:>5.2}..{most:<5.2} {goal:>5}   {note}");
}

/// What so many events took.
#[derive(Clone, Copy)]
struct Cost {
    /// Events a second.
    rate: f64,
    /// Microseconds of CPU for each: the sender's, the receiver's.
    sender: f64,
    receiver: f64,
}

async fn cost(receiver: Receiver, send: impl Future<Output = Result<f64>>) -> Result<Cost> {
    let (all, receiving) = (process_time()?, receiver.time()?);
    let rate = send.await?;
    let receiver = receiver.time()? - receiving;
    let each = |spent: Duration| spent.as_secs_f64() * 1e6 / EVENTS as f64;
    let sender = (process_time()? - all).saturating_sub(receiver);
    Ok(Cost { rate, sender: each(sender), receiver: each(receiver) })
}

/// Events a second, measured in turn.
async fn rates(receiver: Receiver) -> Result<()> {
    let address = receiver.address;
    let (mut to_reqwest, mut to_hyper, mut time, mut last) = (vec![], vec![], vec![], None);
    for round in 0..=ROUNDS {
        let reqwest = cost(receiver, bare_reqwest(address)).await?;
        let hyper = cost(receiver, bare_hyper(address)).await?;
        let ours = cost(receiver, ours(address)).await?;
        if round > 0 {
            to_reqwest.push(ours.rate / reqwest.rate);
            to_hyper.push(ours.rate / hyper.rate);
            time.push(ours.sender / reqwest.sender);
            last = Some((ours, reqwest));
        }
    }
    let (ours, bare) = last.context("rounds")?;
    let note = format!("{:.0} events/s, {UNDER_WAY} under way", ours.rate);
    print("events/s: delivery / bare reqwest loop", to_reqwest, "0.9", &note);
    print("events/s: delivery / bare hyper loop", to_hyper, "", "");
    let note = format!(
        "{:.1} / {:.1} us; receiver {:.1}, {:.1} us",
        ours.sender, bare.sender, ours.receiver, bare.receiver
    );
    print("CPU time of an event's sender: delivery / bare reqwest loop", time, "", &note);
    Ok(())
}

/// CPU time of all threads.
fn process_time() -> Result<Duration> {
    Ok(nix::time::ClockId::CLOCK_PROCESS_CPUTIME_ID.now()?.into())
}

/// From the record read to the event taken, beside a bare POST, at several rates.
async fn latencies(address: SocketAddr) -> Result<()> {
    for rate in [10, 100, 1_000, 5_000] {
        let count = (rate * 2).clamp(40, 2_000) as usize;
        let at = |sorted: &[Duration], percent: usize| sorted[(sorted.len() - 1) * percent / 100];
        let mut rounds = Vec::new();
        for _ in 0..LATENCY_ROUNDS {
            let bare = bare_latency(address, rate, count).await?;
            let ours = our_latency(address, rate, count).await?;
            let added = at(&ours, 99).saturating_sub(at(&bare, 99));
            rounds.push((added, [at(&ours, 50), at(&bare, 50), at(&ours, 99), at(&bare, 99)]));
        }
        rounds.sort();
        let (added, [ours_50, bare_50, ours_99, bare_99]) = rounds[LATENCY_ROUNDS / 2];
        println!(
            "{:<72} {added:>9.0?} {:>13}   p50 {ours_50:.0?} / {bare_50:.0?}, p99 {ours_99:.0?} / {bare_99:.0?}",
            format!("added latency, p99, at {rate} events/s"),
            if rate == 1_000 { "1ms" } else { "" },
        );
    }
    Ok(())
}

async fn bare_latency(address: SocketAddr, rate: u32, count: usize) -> Result<Vec<Duration>> {
    let client = reqwest::Client::builder().no_proxy().build()?;
    let url: reqwest::Url = format!("http://{address}/edge/default").parse()?;
    let took = Arc::new(Mutex::new(Vec::new()));
    let mut tasks = tokio::task::JoinSet::new();
    let begin = tokio::time::Instant::now();
    for number in 0..count {
        sleep_until(begin + Duration::from_secs(1) / rate * number as u32).await;
        let (client, url, took) = (client.clone(), url.clone(), took.clone());
        tasks.spawn(async move {
            let begin = Instant::now();
            if bare_post(&client, &url, prepared(number)).await.is_ok() {
                took.lock().expect("times").push(begin.elapsed());
            }
        });
    }
    tasks.join_all().await;
    let mut took = took.lock().map_err(|_| anyhow!("times"))?.clone();
    took.sort();
    Ok(took)
}

async fn our_latency(address: SocketAddr, rate: u32, count: usize) -> Result<Vec<Duration>> {
    let (sender, mut taken) = mpsc::unbounded_channel();
    let (delivery, _thread) = start(address, move |after| {
        let _ = sender.send(after);
    })?;
    let begin = tokio::time::Instant::now();
    for number in 0..count {
        sleep_until(begin + Duration::from_secs(1) / rate * number as u32).await;
        delivery.send(outgoing(&delivery, event(number))).await;
    }
    let mut took = Vec::new();
    for _ in 0..count {
        took.push(taken.recv().await.context("an outcome")?);
    }
    took.sort();
    Ok(took)
}

fn spool() -> Result<()> {
    let text = vec![b'x'; 600];
    let (mut append, mut replay, mut synced) = (vec![], vec![], vec![]);
    for round in 0..=ROUNDS {
        let directory = tempfile::tempdir()?;
        let plain_write = plain_write(&directory.path().join("plain"), &text)?;
        let plain_read = plain_read(&directory.path().join("plain"), text.len())?;
        let ours = append_all(&directory.path().join("spool"), &text, Fsync::Never, SPOOLED)?;
        let (_, reread) = replay_all(&directory.path().join("spool"))?;
        let sync =
            append_all(&directory.path().join("synced"), &text, Fsync::Always, SPOOLED / 20)?;
        if round > 0 {
            append.push(plain_write.as_secs_f64() / ours.as_secs_f64());
            replay.push(plain_read.as_secs_f64() / reread.as_secs_f64());
            synced.push(SPOOLED as f64 / 20.0 / sync.as_secs_f64());
        }
    }
    print("spool: plain buffered write / append, batches of 64", append, "", "600 bytes each");
    print("spool: plain buffered read / replay", replay, "", "");
    synced.sort_by(f64::total_cmp);
    println!(
        "{:<72} {:>9.0}",
        "spool: events/s with fsync always, batches of 64",
        synced[ROUNDS / 2]
    );
    Ok(())
}

fn plain_write(path: &Path, text: &[u8]) -> Result<Duration> {
    let begin = Instant::now();
    let mut file = BufWriter::new(File::create(path)?);
    for _ in 0..SPOOLED {
        file.write_all(text)?;
    }
    file.flush()?;
    Ok(begin.elapsed())
}

fn plain_read(path: &Path, length: usize) -> Result<Duration> {
    let begin = Instant::now();
    let mut file = BufReader::new(File::open(path)?);
    for _ in 0..SPOOLED {
        let mut event = vec![0; length];
        file.read_exact(&mut event)?;
        std::hint::black_box(event);
    }
    Ok(begin.elapsed())
}

fn append_all(path: &Path, text: &[u8], fsync: Fsync, count: usize) -> Result<Duration> {
    let limits = Limits { fsync, ..Limits::default() };
    let (mut spool, _) = Spool::open(Directory::open(path)?, limits)?;
    let at = SystemTime::now();
    let batch = vec![NewRecord { rule: "buy-click", class: Class::Normal, at, event: text }; BATCH];
    let begin = Instant::now();
    for _ in 0..count / BATCH {
        spool.append(&batch, false, at);
    }
    Ok(begin.elapsed())
}

/// How many, and how long from opening to the last.
fn replay_all(path: &Path) -> Result<(usize, Duration)> {
    let begin = Instant::now();
    let limits = Limits { fsync: Fsync::Never, ..Limits::default() };
    let (mut spool, _) = Spool::open(Directory::open(path)?, limits)?;
    let mut count = 0;
    loop {
        let given = spool.give(BATCH, SystemTime::now());
        let mut done = Vec::with_capacity(given.len());
        for given in given {
            if let Given::Event { number, .. } = given {
                done.push(number);
            }
        }
        if done.is_empty() {
            return Ok((count, begin.elapsed()));
        }
        count += done.len();
        spool.done(&done)?;
    }
}

/// What a full spool costs in memory: buffers and index.
fn memory() -> Result<()> {
    let directory = tempfile::tempdir()?;
    let before = resident()?;
    append_all(directory.path(), &vec![b'x'; 600], Fsync::Never, 200_000)?;
    let limits = Limits { fsync: Fsync::Never, ..Limits::default() };
    let (spool, recovered) = Spool::open(Directory::open(directory.path())?, limits)?;
    println!(
        "{:<72} {:>6.1} MiB   {} events, {} MiB on disk",
        "memory to fill a spool and open it again",
        (resident()? - before) / 1_024.0,
        recovered.waiting,
        spool.bytes() >> 20
    );
    Ok(())
}

/// In KiB.
fn resident() -> Result<f64> {
    let status = fs::read_to_string("/proc/self/status")?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").trim().parse()?)
}
