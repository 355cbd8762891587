//! `cargo xtask soak`: the agent under work for minutes, and whether it stays the same size.
//!
//! [`load`] (what the users do), [`sample`] (what the agent's process holds, and the verdict).

mod load;
mod sample;

use std::{
    fs,
    net::SocketAddr,
    process::ExitCode,
    sync::atomic::AtomicBool,
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, bail};
use nix::{sys::signal::Signal, unistd::Uid};
use testbed::{
    agent::Agent,
    app::App,
    bpffs::BpfFs,
    edge::{self, Edge},
};

use self::{
    load::Load,
    sample::{Sample, Samples},
};
use crate::{env::Env, shell, state::State, stop};

/// Options of `cargo xtask soak`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// How long, 1 to 60
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=60))]
    minutes: u64,

    /// Actions per second, all users together
    #[arg(long, default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=1000))]
    rate: u32,
}

const ADMIN: &str = "127.0.0.1:9901";
const SINK: &str = "127.0.0.1:8099";
/// A row in the table.
const ROW: Duration = Duration::from_secs(10);
/// The sink is away for so long, once in each [`OUTAGE_EVERY`].
const OUTAGE: Duration = Duration::from_secs(3);
const OUTAGE_EVERY: Duration = Duration::from_secs(30);
/// Rules are read again. The agent keeps those of some reloads, for records that still name them: it has
/// them all before a third of five minutes is over.
const RELOAD_EVERY: Duration = Duration::from_secs(5);
/// How long the last events may take once the users have stopped.
const SETTLE: Duration = Duration::from_secs(30);

/// Runs it; success only when the agent stayed flat and lost nothing.
pub(crate) fn run(env: &Env, args: &Args) -> Result<ExitCode> {
    if !Uid::effective().is_root() {
        bail!("the soak needs root: it makes network namespaces and loads kernel programs");
    }
    stop::on_signals()?;
    let state = State::create(env)?;
    let network = shell::step("network", edge::routed)?;
    let config = state.path().join("config.yaml");
    let pins = BpfFs::mount()?;
    let path = pins.path("detector");
    fs::write(&config, format!("{CONFIG}  pin: {{path: {}}}\n", path.display()))?;
    fs::write(state.path().join("rules.yaml"), RULES)?;
    let dn = &network.dn;
    let applications = network.applications().into_iter().map(|at| App::start(dn.listen(at)?));
    let _applications = applications.collect::<Result<Vec<_>>>()?;
    let mut sink = Sink::new(&network);
    sink.open()?;
    let mut agent = Agent::start(Some(dn), &config, ADMIN.parse()?)?;

    let done = AtomicBool::new(false);
    let (samples, actions) = std::thread::scope(|scope| {
        let load = Load::start(scope, &network, args.rate, &done);
        let samples = watch(args, &mut agent, &mut sink)?;
        anyhow::Ok((samples, load.finish()?))
    })?;
    sink.open()?;
    let delivered = settle(&agent, actions)?;
    println!("\n{actions} actions, {delivered} events delivered");
    let flat = samples.verdict();
    if delivered != actions {
        println!("LOST: {} events", actions.saturating_sub(delivered));
    }
    Ok(if flat && delivered == actions { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Lets the users work, takes the sink away and gives it back, and samples the agent.
fn watch(args: &Args, agent: &mut Agent<'_>, sink: &mut Sink<'_>) -> Result<Samples> {
    let begun = Instant::now();
    let end = Duration::from_secs(args.minutes * 60);
    let mut samples = Samples::begin();
    let (mut row, mut reload) = (ROW, RELOAD_EVERY);
    loop {
        let now = begun.elapsed();
        if now >= end {
            return Ok(samples);
        }
        stop::check()?;
        agent.must_run()?;
        let in_cycle = Duration::from_secs(now.as_secs() % OUTAGE_EVERY.as_secs());
        match in_cycle >= OUTAGE_EVERY - OUTAGE {
            true => sink.close(),
            false => sink.open()?,
        }
        if now >= reload {
            agent.signal(Signal::SIGHUP)?;
            reload += RELOAD_EVERY;
        }
        if now >= row {
            let shown = metrics(agent)?;
            let events = delivered(&shown)?;
            samples.take(now, &Sample::of(agent.pid(), allocated(&shown)?, events)?);
            row += ROW;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// Waits until every action's event has come, or none has for a while.
fn settle(agent: &Agent<'_>, actions: u64) -> Result<u64> {
    let deadline = Instant::now() + SETTLE;
    loop {
        let delivered = delivered(&metrics(agent)?)?;
        if delivered >= actions || Instant::now() > deadline {
            return Ok(delivered);
        }
        std::thread::sleep(Duration::from_millis(200));
    }
}

fn metrics(agent: &Agent<'_>) -> Result<String> {
    let answer = agent.admin_get("/metrics")?;
    Ok(String::from_utf8(answer.body)?)
}

/// Bytes on the heap.
fn allocated(metrics: &str) -> Result<u64> {
    let value =
        metrics.lines().find_map(|line| line.strip_prefix("detector_heap_allocated_bytes "));
    value.context("/metrics has no detector_heap_allocated_bytes")?.parse().context("no number")
}

/// Events of the rule that the sink has taken.
fn delivered(metrics: &str) -> Result<u64> {
    let of_rule = |line: &&str| {
        line.starts_with("detector_delivery_events_total{")
            && line.contains("rule=\"buy\"")
            && line.contains("outcome=\"delivered\"")
    };
    let value = metrics.lines().find(of_rule).and_then(|line| line.rsplit(' ').next());
    value.map_or(Ok(0), |value| value.parse().context("a metric that is no number"))
}

/// The place where events go, which comes and goes.
struct Sink<'n> {
    network: &'n Edge,
    app: Option<App>,
}

impl<'n> Sink<'n> {
    fn new(network: &'n Edge) -> Self {
        Self { network, app: None }
    }

    fn open(&mut self) -> Result<()> {
        if self.app.is_none() {
            let at: SocketAddr = SINK.parse()?;
            self.app = Some(App::start(self.network.dn.listen(at)?)?);
        }
        Ok(())
    }

    fn close(&mut self) {
        self.app = None;
    }
}

const CONFIG: &str = "apiVersion: detector.dev/v1alpha1
kind: Config
metadata: {name: soak}
spec:
  devices: [{name: n6}]
  uePools: [{name: v4, cidr: 10.60.0.0/24}, {name: v6, cidr: \"fd00:60::/64\"}]
  rules: [rules.yaml]
  sink: {url: \"http://127.0.0.1:8099/api/buttons/buy\"}
  delivery: {retries: 12, spool: {directory: spool}}
";

const RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  endpoints: [{cidr: 10.45.0.10, ports: [80]}, {cidr: \"fd00:45::10\", ports: [80]}]
  session: {idle: 2s, linger: 1s}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: buy}
spec:
  application: shop
  match: {http: {method: POST, path: /api/buttons/buy}}
  emit: {type: com.example.buy}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: over}
spec:
  application: shop
  match: {flow: closed}
  emit: {type: com.example.over}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: often}
spec:
  application: shop
  match: {http: {pathPrefix: /api/}, rate: {packets: 10, within: 2s}}
  emit: {type: com.example.often}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: seldom}
spec:
  application: shop
  every: 5s
  match: {http: {pathPrefix: /api/, headers: {host: '*'}}}
  emit: {type: com.example.seldom}
";
