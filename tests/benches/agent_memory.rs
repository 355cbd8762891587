//! What the agent takes in memory while its spool is full and its sink is away. It prints; it never
//! judges.
//!
//! `cargo xtask bench` builds the agent and runs this as root, in a network namespace.

use std::{
    fs,
    path::Path,
    time::{Duration, SystemTime},
};

use anyhow::{Context, Result};
use cloudevents::{EventBuilder, EventBuilderV10};
use detector_user::spool::{Class, Directory, Fsync, Limits, NewRecord, Spool};
use testbed::{
    agent::{Agent, BUY_RULES},
    netns,
    netns::Netns,
    root, wait,
};

const ADMIN: &str = "127.0.0.1:9901";
const LIMIT: Duration = Duration::from_secs(60);
const BATCH: usize = 256;

fn main() -> Result<()> {
    // `cargo test` runs benches too, without `--bench`; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    if !root::is_root() {
        println!("agent_memory: needs root");
        return Ok(());
    }
    let (ue, dn) = (Netns::new("bench-ue")?, Netns::new("bench-dn")?);
    netns::veth((&ue, "n3"), (&dn, "n6"))?;
    dn.ip("link set lo up")?;
    let directory = tempfile::tempdir()?;
    fs::write(directory.path().join("rules.yaml"), BUY_RULES)?;
    let config = directory.path().join("config.yaml");

    fs::write(&config, config_for(""))?;
    let empty = with_agent(&dn, &config, |agent| resident(agent.pid()))?;
    fs::write(&config, config_for("  delivery: {spool: {directory: spool}}\n"))?;
    let (events, bytes) = fill(&directory.path().join("spool/http"))?;
    let (now, most) = with_agent(&dn, &config, |agent| {
        wait::until("the sink given up", LIMIT, || {
            let up = agent.metric("detector_delivery_sink_up{sink=\"http\"}")?;
            Ok((up == Some(0.0)).then_some(()))
        })?;
        resident(agent.pid())
    })?;
    println!(
        "{:<72} {now:>6.1} MiB {:>12}   at most {most:.1}; {:.1} without a spool; {events} events, {} MiB on disk",
        "resident memory of the agent with a full spool, sink away",
        "40",
        empty.0,
        bytes >> 20,
    );
    Ok(())
}

fn with_agent<R>(
    dn: &Netns,
    config: &Path,
    act: impl FnOnce(&Agent<'_>) -> Result<R>,
) -> Result<R> {
    let mut agent = Agent::start(Some(dn), config, ADMIN.parse()?)?;
    let result = act(&agent);
    agent.terminate(LIMIT)?;
    result
}

/// As much as the default size takes.
fn fill(directory: &Path) -> Result<(u64, u64)> {
    let limits = Limits { fsync: Fsync::Never, ..Limits::default() };
    let (mut spool, _) = Spool::open(Directory::open(directory)?, limits)?;
    let at = SystemTime::now();
    let text = serde_json::to_vec(&event()?)?;
    let batch = vec![NewRecord { rule: "buy", class: Class::Normal, at, event: &text }; BATCH];
    // A spool that is full gives up its oldest segment.
    while spool.append(&batch, false, at).lost.is_empty() {}
    Ok((spool.waiting(), spool.bytes()))
}

fn event() -> Result<cloudevents::Event> {
    let ue = "10.60.0.2";
    let data = serde_json::json!({"ue": {"ip": ue, "port": 40_312}, "app": {"ip": "10.45.0.10", "port": 80},
        "application": "shop", "rule": "buy", "device": "n6", "protocol": "tcp"});
    Ok(EventBuilderV10::new()
        .id("7be133cd-c113-5d67-98e1-2deec8039cac")
        .source("/mec/site-7/mec-1/n6")
        .ty("com.example.buy")
        .subject(ue)
        .time("2026-06-19T12:00:00.123456789Z")
        .extension("partitionkey", ue)
        .extension("ueip", ue)
        .extension("application", "shop")
        .extension("rule", "buy")
        .extension("direction", "uplink")
        .data("application/json", data)
        .build()?)
}

/// Now, and the most so far, in MiB.
fn resident(pid: u32) -> Result<(f64, f64)> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let read = |name: &str| -> Result<f64> {
        let line = status.lines().find_map(|line| line.strip_prefix(name)).context("no memory")?;
        let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
        Ok(kib / 1_024.0)
    };
    Ok((read("VmRSS")?, read("VmHWM")?))
}

/// Nobody listens at port 9.
fn config_for(more: &str) -> String {
    format!(
        "apiVersion: detector.dev/v1alpha1
kind: Config
metadata: {{name: bench}}
spec:
  devices: [{{name: n6}}]
  uePools: [{{name: phones, cidr: 10.60.0.0/24}}]
  rules: [rules.yaml]
  sink: {{url: 'http://127.0.0.1:9/'}}
  admin: {{listen: '{ADMIN}', socket: detector.sock}}
{more}"
    )
}
