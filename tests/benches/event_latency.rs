//! From the packet at the hook to the request at a local receiver, at 1,000 events/s, beside a bare
//! reqwest loop that POSTs to the same receiver at the same rate. It prints; it never judges.
//!
//! `cargo xtask bench` builds what this needs and runs it as root, in network namespaces.

use std::{
    fs,
    net::IpAddr,
    thread,
    time::{Duration, Instant, SystemTime},
};

use anyhow::{Context, Result};
use cloudevents::AttributesReader;
use testbed::{
    agent::{Agent, BUY_RULES},
    app::App,
    client::Client,
    netns,
    netns::Netns,
    receiver::Receiver,
};

const RATE: u32 = 1_000;
const SECONDS: u32 = 3;
const ROUNDS: usize = 5;
/// Users that take turns: events of one user are delivered one after the other.
const UES: u8 = 50;

fn main() -> Result<()> {
    // `cargo test` runs benches too, without `--bench`; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let (ue, dn) = (Netns::new("bench-ue")?, Netns::new("bench-dn")?);
    netns::veth((&ue, "n3"), (&dn, "n6"))?;
    dn.ip("address add 10.45.0.10/8 dev n6")?;
    for user in 0..UES {
        ue.ip(&format!("address add {}/8 dev n3", address(user)))?;
    }
    let _app = App::start(dn.listen("10.45.0.10:80".parse()?)?)?;
    let receiver = Receiver::start(dn.listen("127.0.0.1:0".parse()?)?)?;
    let directory = tempfile::tempdir()?;
    let config = directory.path().join("config.yaml");
    fs::write(&config, config_for(&receiver.url()))?;
    fs::write(directory.path().join("rules.yaml"), BUY_RULES)?;
    let _agent = Agent::start(Some(&dn), &config, "127.0.0.1:9901".parse()?)?;

    let mut ratios = Vec::new();
    let mut rows = Vec::new();
    for round in 0..=ROUNDS {
        let bare = bare_loop(&dn, &receiver.url())?;
        let ours = hook_to_request(&ue, &receiver)?;
        if round == 0 {
            continue; // warm-up
        }
        ratios.push(median(&ours).as_secs_f64() / median(&bare).as_secs_f64());
        rows.push((median(&ours), ours[ours.len() * 99 / 100], median(&bare)));
    }
    ratios.sort_by(f64::total_cmp);
    let (ours, p99, bare) = rows[rows.len() / 2];
    println!(
        "{:<72} {:>6.2}  {:>5.2}..{:<5.2} {:>5}   {ours:.0?} (p99 {p99:.0?}) / {bare:.0?}",
        "packet at the hook to request at the receiver, p50 / bare reqwest POST, p50",
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1],
        "2",
    );
    Ok(())
}

fn address(user: u8) -> IpAddr {
    IpAddr::from([10, 60, 0, 2 + user])
}

/// Waits for each tick of the rate, then acts.
fn paced(mut act: impl FnMut() -> Result<()>) -> Result<()> {
    let start = Instant::now();
    for number in 0..RATE * SECONDS {
        let due = start + Duration::from_secs(1) / RATE * number;
        thread::sleep(due.saturating_duration_since(Instant::now()));
        act()?;
    }
    Ok(())
}

/// Sorted times of a POST and its answer.
fn bare_loop(dn: &Netns, url: &str) -> Result<Vec<Duration>> {
    let took = dn.enter(|| -> Result<Vec<Duration>> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let client = reqwest::Client::builder().build()?;
        let mut took = Vec::new();
        paced(|| {
            let start = Instant::now();
            let body = "{\"path\":\"/api/buttons/buy\",\"ue\":\"10.60.0.2\"}";
            runtime.block_on(
                client.post(url).header("content-type", "application/json").body(body).send(),
            )?;
            took.push(start.elapsed());
            Ok(())
        })?;
        Ok(took)
    })??;
    Ok(sorted(took))
}

/// Sorted times from a packet's own time to its event's request at the receiver.
fn hook_to_request(ue: &Netns, receiver: &Receiver) -> Result<Vec<Duration>> {
    let before = receiver.recorded().len();
    let mut users = Vec::new();
    for user in 0..UES {
        users.push(Client::over(ue.connect(Some(address(user)), "10.45.0.10:80".parse()?)?)?);
    }
    let mut turn = 0;
    paced(|| {
        turn = (turn + 1) % users.len();
        users[turn].post("/api/buttons/buy", "{}").map(|_| ())
    })?;
    let all = before + (RATE * SECONDS) as usize;
    let recorded = receiver.wait_for(all, Duration::from_secs(10))?;
    let (now, wall) = (Instant::now(), SystemTime::now());
    let latency = |request: &testbed::receiver::Recorded| -> Result<Duration> {
        let arrived = wall - now.duration_since(request.at);
        let event = cloudevents::binding::http::to_event(&request.headers, request.body.to_vec())?;
        let seen = SystemTime::from(*event.time().context("an event has a time")?);
        Ok(arrived.duration_since(seen).unwrap_or_default())
    };
    Ok(sorted(recorded[before..].iter().map(latency).collect::<Result<_>>()?))
}

fn sorted(mut times: Vec<Duration>) -> Vec<Duration> {
    times.sort();
    times
}

fn median(sorted: &[Duration]) -> Duration {
    sorted[sorted.len() / 2]
}

fn config_for(sink: &str) -> String {
    format!(
        "apiVersion: detector.dev/v1alpha1
kind: Config
metadata: {{name: bench}}
spec:
  devices: [{{name: n6}}]
  uePools: [{{name: phones, cidr: 10.60.0.0/24}}]
  rules: [rules.yaml]
  sink: {{url: \"{sink}\"}}
"
    )
}
