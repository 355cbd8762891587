//! Rules and sink of `replay` and `capture`, and where their events go: printed as they are made, or
//! handed to the delivery that the agent has.

use std::{
    collections::{BTreeMap, HashMap},
    io::{self, BufWriter, ErrorKind, StdoutLock, Write, stderr, stdout},
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use clap::Args;
use ipnet::IpNet;
use thiserror::Error;
use tokio::{runtime::Handle, time::Instant};
use tokio_util::sync::CancellationToken;

use super::rules::config_of_rules;
use crate::{
    cloudevent::{self, Identity, Overrides, Sampler},
    config::Config,
    deliver::{self, Delivery, HttpSettings, Lane, Outcome, Outgoing, RuleHandle, Settled, Target},
    detection::Detection,
    metrics::Metrics,
    replay::output::{Format, Lines},
    rules::{self, file::RulesError, model::RuleSet},
};

/// Some events were not delivered.
pub(super) const UNDELIVERED: u8 = 3;
/// How long what is waiting at the end is delivered, as the agent does.
const DRAIN: Duration = Duration::from_secs(10);
/// An event that is older is not tried again, however the sink is.
const BUDGET: Duration = Duration::from_secs(60);

/// How rules are tried on packets.
#[derive(Debug, Args)]
#[command(next_help_heading = "With rules")]
pub(super) struct EventArgs {
    /// A rules file or directory to try on the packets; may be given several times
    #[arg(long, value_name = "PATH")]
    pub(super) rules: Vec<PathBuf>,
    /// An agent's config: its rules (unless --rules are given), UE pools, site and node; events go
    /// to --sink all the same
    #[arg(long, value_name = "FILE", conflicts_with = "facts")]
    pub(super) config: Option<PathBuf>,
    /// Users' addresses, as `uePools` in the config; without either, every peer of an application is a
    /// user
    #[arg(long, value_name = "CIDR", conflicts_with = "facts")]
    ue_pool: Vec<IpNet>,
    /// Where events go: stdout, an http:// or https:// URL (one POST each, in binary mode, tried
    /// again as the agent does), or file:PATH
    #[arg(long, default_value = "stdout", value_name = "SINK", conflicts_with = "facts")]
    sink: Target,
    /// How events are written to stdout
    #[arg(long, value_enum, default_value_t, conflicts_with = "facts")]
    format: Format,
    /// The site in the events' `source`; without, the config's, else "edge"
    #[arg(long, conflicts_with = "facts")]
    site: Option<String>,
    /// The node in the events' `source`; without, the config's, else the host's name for `capture`,
    /// "replay" for `replay`
    #[arg(long, conflicts_with = "facts")]
    node: Option<String>,
}

/// The rules that are to be tried, for whom, and what goes into the events' `source`.
pub(super) struct Trial {
    pub(super) set: RuleSet,
    pub(super) ue_pools: Vec<IpNet>,
    pub(super) identity: Identity,
}

impl EventArgs {
    /// What the arguments come to, `node` being the default; `None` if rules or config were refused,
    /// which has been said.
    pub(super) fn load(&self, node: &str) -> io::Result<Option<Trial>> {
        match self.trial(node) {
            Ok(trial) => Ok(Some(trial)),
            Err(problems) => {
                writeln!(stderr(), "{problems}")?;
                Ok(None)
            }
        }
    }

    /// What is given beside the config goes before it.
    fn trial(&self, node: &str) -> Result<Trial, RulesError> {
        let config = self.config.as_deref().map(config_of_rules).transpose()?;
        let config = config.as_ref();
        let pools = |config: &Config| config.ue_pools.iter().map(|pool| pool.cidr).collect();
        let ue_pools = match self.ue_pool.as_slice() {
            [] => config.map_or_else(Vec::new, pools),
            given => given.to_vec(),
        };
        let rules = match self.rules.as_slice() {
            [] => config.map_or(&[][..], |config| &config.rules),
            given => given,
        };
        let set = rules::file::load_untrusted(rules, &ue_pools)?.set;
        let site = self.site.clone().or_else(|| Some(config?.site.clone()));
        let own = self.node.clone().or_else(|| Some(config?.node.clone()));
        let identity = Identity {
            site: site.unwrap_or_else(|| "edge".to_owned()),
            node: own.unwrap_or_else(|| node.to_owned()),
        };
        Ok(Trial { set, ue_pools, identity })
    }
}

/// An event could not be handed on, so nothing further is read.
#[derive(Debug, Error)]
pub(super) enum EventError {
    /// Standard output was closed or cannot be written.
    #[error("standard output: {0}")]
    Output(io::Error),
    /// No room in the queue for as long as can be waited.
    #[error("the sink takes no events: gave up")]
    Stuck,
}

impl From<io::Error> for EventError {
    fn from(error: io::Error) -> Self {
        Self::Output(error)
    }
}

impl EventError {
    /// Whoever read the output has seen enough.
    pub(super) fn is_broken_pipe(&self) -> bool {
        matches!(self, Self::Output(error) if error.kind() == ErrorKind::BrokenPipe)
    }
}

/// How long a full queue is waited for.
pub(super) enum Patience {
    /// From event to event.
    For(Duration),
    /// As the agent waits: what passes meanwhile is lost.
    Until(CancellationToken),
}

/// Detections become events here, and go out.
pub(super) struct EventOutput {
    identity: Identity,
    way: Way,
}

enum Way {
    Printed { lines: Lines, out: BufWriter<StdoutLock<'static>> },
    Sent(Box<Sending>),
}

struct Sending {
    runtime: Handle,
    delivery: Delivery,
    handles: HashMap<String, RuleHandle>,
    ended: Arc<Ended>,
    patience: Patience,
    sink: String,
}

/// How events have ended, by outcome.
#[derive(Default)]
struct Ended(Mutex<BTreeMap<&'static str, u64>>);

impl Ended {
    fn note(&self, outcome: &Outcome) {
        let mut counts = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        *counts.entry(outcome.label()).or_default() += 1;
    }

    fn counts(&self) -> BTreeMap<&'static str, u64> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

impl EventOutput {
    /// Opens the sink.
    ///
    /// # Errors
    /// When it cannot be opened, or standard output cannot be written.
    pub(super) fn open(
        args: &EventArgs,
        identity: Identity,
        runtime: &Handle,
        patience: Patience,
    ) -> anyhow::Result<Self> {
        let way = match &args.sink {
            Target::Stdout => {
                let mut out = BufWriter::with_capacity(1 << 16, stdout().lock());
                let lines = Lines::new(args.format);
                lines.head(&mut out)?;
                Way::Printed { lines, out }
            }
            target @ (Target::Http(_) | Target::Stream(_) | Target::File { .. }) => {
                Way::Sent(Box::new(Sending::start(target, runtime, patience)?))
            }
        };
        Ok(Self { identity, way })
    }

    /// Makes the detections' events and hands them on.
    pub(super) fn send(&mut self, detections: &[Detection]) -> Result<(), EventError> {
        for detection in detections {
            let event = cloudevent::build(
                detection,
                &self.identity,
                &Overrides::default(),
                Sampler::default(),
            );
            match &mut self.way {
                Way::Printed { lines, out } => lines.event(out, &event, detection)?,
                Way::Sent(sending) => sending.send(event, detection)?,
            }
        }
        Ok(())
    }

    /// What was printed is to be seen now.
    pub(super) fn flush(&mut self) -> Result<(), EventError> {
        match &mut self.way {
            Way::Printed { out, .. } => Ok(out.flush()?),
            Way::Sent(_) => Ok(()),
        }
    }

    /// Waits until events have ended; what became of them, if they were sent. How many were not
    /// delivered.
    pub(super) fn finish(mut self) -> Result<(Option<String>, u64), EventError> {
        self.flush()?;
        match self.way {
            Way::Printed { .. } => Ok((None, 0)),
            Way::Sent(sending) => Ok(sending.finish()),
        }
    }
}

impl Sending {
    fn start(target: &Target, runtime: &Handle, patience: Patience) -> anyhow::Result<Self> {
        let sink = target.open("sink", &HttpSettings::default())?;
        let ended = Arc::new(Ended::default());
        let noting = ended.clone();
        let config = deliver::Config {
            budget: BUDGET,
            observer: Some(Arc::new(move |settled: Settled<'_>| noting.note(settled.outcome))),
            ..deliver::Config::default()
        };
        let _inside = runtime.enter();
        let delivery = Delivery::start(&config, vec![Lane::from(sink)], &Metrics::new());
        let sink = match target {
            target @ (Target::Http(_) | Target::Stream(_)) => target.to_string(),
            Target::File { path, .. } => path.display().to_string(),
            Target::Stdout => "stdout".to_owned(),
        };
        let runtime = runtime.clone();
        Ok(Self { runtime, delivery, handles: HashMap::new(), ended, patience, sink })
    }

    fn send(&mut self, event: cloudevents::Event, detection: &Detection) -> Result<(), EventError> {
        let name = &detection.rule.name;
        let handle = match self.handles.get(name) {
            Some(handle) => handle.clone(),
            None => self.handles.entry(name.clone()).or_insert(self.delivery.rule(name)).clone(),
        };
        let room = self.delivery.send(Outgoing::new(event, handle, detection));
        let patience = &self.patience;
        self.runtime.block_on(async {
            tokio::select! {
                () = room => Ok(()),
                () = patience.over() => Err(EventError::Stuck),
            }
        })
    }

    fn finish(self: Box<Self>) -> (Option<String>, u64) {
        let Self { runtime, delivery, ended, sink, .. } = *self;
        runtime.block_on(delivery.drain(Instant::now() + DRAIN));
        let counts = ended.counts();
        let delivered = counts.get("delivered").copied().unwrap_or(0);
        let undelivered = counts.values().sum::<u64>() - delivered;
        let mut text = format!("{sink}: {delivered} events delivered");
        for (outcome, count) in counts.iter().filter(|(outcome, _)| **outcome != "delivered") {
            text += &format!(", {count} {outcome}");
        }
        (Some(text), undelivered)
    }
}

impl Patience {
    async fn over(&self) {
        match self {
            Self::For(time) => tokio::time::sleep(*time).await,
            Self::Until(token) => token.cancelled().await,
        }
    }
}
