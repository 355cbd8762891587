//! The agent at work: config -> rules -> kernel programs -> reader thread -> delivery, until it is
//! told to stop; then everything in the same order is brought to its end.

mod balance;
mod confine;
mod events;
mod handover;
mod heap;
mod ledger;
mod memory;
mod observe;
mod pins;
mod prepare;
mod reader;
mod reload;
mod sinks;
mod traces;
mod watched;

use std::{path::Path, path::PathBuf, sync::Arc, time::Duration};

use anyhow::Context as _;
use tokio::{
    signal::unix::{Signal, SignalKind, signal},
    time::{Instant, interval},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use crate::{
    admin::{Admin, Readiness},
    attach::{Attacher, Changes, State, Watcher, trouble::Level},
    config::{Config, Environment},
    cpu_budget::CpuBudget,
    deliver::Delivery,
    metrics::Metrics,
    own_thread::OwnThread,
    source::kernel::KernelLog,
    trace::Spans,
};

pub use events::Output;
use prepare::Prepared;
use watched::Watched;

/// How long the drain at the end may take; Kubernetes kills after 30 s by default.
const DRAIN: Duration = Duration::from_secs(10);
/// And the last spans.
const FLUSH: Duration = Duration::from_secs(1);
/// Rules files are looked at this often, and devices even if netlink said nothing.
const LOOK: Duration = Duration::from_secs(1);

const ATTACHED: &str = "attached";
const RULES: &str = "rules";

/// Runs the agent until SIGTERM or SIGINT. `rules`, if any, replace those of the config.
///
/// Starts its runtime, and with it other threads, only once it has given up the privileges that it
/// needs no longer: they are each thread's own.
///
/// # Errors
/// Config or rules that cannot be used, missing privileges, a kernel that cannot do it, or an
/// admin address that is taken.
pub fn run(config: &Path, rules: Vec<PathBuf>, output: Output) -> anyhow::Result<()> {
    confine::keep(&confine::TO_ATTACH)?;
    let mut config = Config::load(config, &Environment::of_process())?;
    if !rules.is_empty() {
        config.rules = rules;
    }
    let prepared = Prepared::new(&config)?;
    confine::keep(&confine::TO_WORK)?;
    confine::filter_system_calls();
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
    let ended = runtime.block_on(async {
        let mut signals = Signals::new()?;
        let mut agent = Agent::start(config, output, prepared)?;
        memory::give_back();
        agent.work(&mut signals).await;
        agent.stop().await
    });
    // A thread that still waits, for a file system that hangs, must not keep the process.
    runtime.shutdown_background();
    ended
}

struct Signals {
    hangup: Signal,
    terminate: Signal,
    interrupt: Signal,
}

impl Signals {
    fn new() -> std::io::Result<Self> {
        Ok(Self {
            hangup: signal(SignalKind::hangup())?,
            terminate: signal(SignalKind::terminate())?,
            interrupt: signal(SignalKind::interrupt())?,
        })
    }
}

struct Agent {
    attacher: Attacher,
    devices: observe::Devices,
    reloader: reload::ReloadHandle,
    reader: reader::Reader,
    delivery: Arc<Delivery>,
    delivering: OwnThread,
    spans: Option<Arc<dyn Spans>>,
    readiness: Readiness,
    watched: Watched,
    auditor: observe::Auditor,
    /// Of programs built for debugging.
    kernel_log: Option<KernelLog>,
    /// The reader no longer waits for room in the delivery's queue.
    give_up: CancellationToken,
}

impl Agent {
    fn start(config: Config, output: Output, prepared: Prepared) -> anyhow::Result<Self> {
        let metrics = Metrics::new();
        let readiness = Readiness::requiring([ATTACHED, RULES]);
        readiness.met(RULES);
        let Prepared { listener, control, kernel, reloader, attacher } = prepared;
        let prepare::Tables { read, counters, log } = kernel;
        let spans = traces::start(&config, &metrics)?;
        let cpu = config.limits.cpu.map(CpuBudget::cores).unwrap_or_default();
        let (shown, shown_by) = (cpu.clone(), cpu.clone());
        metrics.collect(move || shown.family().into_iter().collect());
        metrics.collect(heap::families);
        let delivering = OwnThread::start("delivery")?;
        let inside = delivering.enter();
        let delivery = sinks::start(&config, output, spans.clone(), cpu.clone(), &metrics)?;
        let delivery = Arc::new(delivery);
        let give_up = CancellationToken::new();
        let give_up_too = give_up.clone();
        let events =
            events::EventMaker::new(&config, delivery.clone(), output, spans.clone(), give_up_too);
        drop(inside);
        let budgets = reader::Budgets { cpu, memory: config.limits.memory };
        let reader = reader::Reader::start(read, reloader.history(), events, budgets, &metrics)?;
        let devices = observe::Devices::default();
        let ledgers = delivery.ledgers();
        let sinks = ledgers.clone();
        metrics.collect(move || ledger::families(&sinks));
        observe::register(&metrics, counters.clone(), reloader.maps(), reader.counts());
        let auditor = observe::Auditor::new(reloader.maps(), reader.counts(), ledgers.clone());
        let imbalances = auditor.imbalances();
        let shown = imbalances.clone();
        metrics.collect(move || vec![shown.family()]);
        let (maps, counts) = (reloader.maps(), reader.counts());
        let status = observe::status(counters, maps, counts, ledgers, imbalances, devices.clone());
        let admin = Admin::new(metrics, readiness.clone(), status, shown_by);
        let watched = Watched::start(admin, listener, control)?;
        Ok(Self {
            attacher,
            devices,
            reloader: reloader.spawn()?,
            reader,
            delivery,
            delivering,
            spans,
            readiness,
            watched,
            kernel_log: log,
            auditor,
            give_up,
        })
    }

    /// Follows devices and rules files until told to stop.
    async fn work(&mut self, signals: &mut Signals) {
        let mut watcher = match Watcher::start().await {
            Ok(watcher) => Some(watcher),
            Err(error) => {
                warn!("devices are only looked at every {LOOK:?}: {error}");
                None
            }
        };
        // Its first tick comes at once: a device that appeared after the first look, and before the
        // watcher was there, is attached to then.
        let mut look = interval(LOOK);
        loop {
            let changed = async {
                match watcher.as_mut() {
                    Some(watcher) => watcher.changed().await.is_some(),
                    None => std::future::pending().await,
                }
            };
            tokio::select! {
                _ = signals.terminate.recv() => return,
                _ = signals.interrupt.recv() => return,
                _ = signals.hangup.recv() => self.reloader.reload(),
                _ = look.tick() => {
                    if let Some(log) = self.kernel_log.as_mut() {
                        log.flush();
                    }
                    self.auditor.look();
                    self.reloader.look();
                    self.reconcile().await;
                }
                more = changed => {
                    if !more {
                        watcher = None;
                    }
                    self.reconcile().await;
                }
            }
            if self.reader.has_failed() {
                return;
            }
        }
    }

    /// Attaches to what is there now, and says what changed.
    async fn reconcile(&mut self) {
        match self.attacher.reconcile().await {
            Ok(changes) => say(&changes),
            Err(error) => warn!("devices: {error}"),
        }
        let devices = self.attacher.status();
        match observe::unwatched(&devices) {
            None => self.readiness.met(ATTACHED),
            Some(why) => self.readiness.unmet(ATTACHED, why),
        }
        self.devices.set(devices);
    }

    /// Detach, read what the kernel still has, end the sessions, deliver, in this order.
    async fn stop(self) -> anyhow::Result<()> {
        let Self {
            attacher, reader, delivery, delivering, spans, readiness, watched, give_up, ..
        } = self;
        readiness.unmet(ATTACHED, "stopping");
        match attacher.pins() {
            None => info!("stopping: detaching, then delivering what is waiting"),
            Some(pins) => info!(
                "stopping: delivering what is waiting; programs stay attached and go on recording \
                 ({}) until the next start, or `detector detach`",
                pins.path().display()
            ),
        }
        drop(attacher);
        let deadline = Instant::now() + DRAIN;
        // A sink that hangs keeps the queue full, and the reader waiting for room in it.
        tokio::spawn(async move {
            tokio::time::sleep_until(deadline).await;
            give_up.cancel();
        });
        let read = tokio::task::spawn_blocking(move || reader.stop()).await;
        if let Some(delivery) = Arc::into_inner(delivery) {
            let report = delivery.drain(deadline).await;
            info!(
                delivered = report.delivered,
                failed = report.failed,
                left = report.left,
                kept = report.kept,
                "stopped"
            );
        }
        drop(delivering);
        if let Some(spans) = spans {
            let _ = tokio::time::timeout(FLUSH, spans.flush()).await;
        }
        let watched = tokio::task::spawn_blocking(move || watched.stop());
        let _ = tokio::time::timeout(FLUSH, watched).await;
        // What is still in memory only is read again by the next agent.
        read.context("the reader thread")??.release();
        Ok(())
    }
}

fn say(changes: &Changes) {
    for status in &changes.attached {
        if let (Some(device), State::Attached { hook, sees, .. }) = (&status.device, &status.state)
        {
            info!("{device}: {hook}: {sees}");
        }
    }
    for (device, traffic) in &changes.detached {
        info!("{device}: {traffic} packets are no longer seen");
    }
    for notice in &changes.notices {
        match notice.level {
            Level::Info => info!("{notice}"),
            Level::Warning => warn!("{notice}"),
        }
    }
}
