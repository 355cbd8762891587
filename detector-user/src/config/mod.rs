//! The agent's configuration: one `kind: Config` document and a few environment variables, checked
//! once.

mod check;
mod device;
mod environment;
mod raw;
mod sinks;
mod stream;

use std::{
    net::SocketAddr,
    path::{Path, PathBuf},
    sync::Arc,
    time::Duration,
};

use ipnet::IpNet;
use url::Url;

pub use environment::Environment;
pub use raw::{ConfigDocument, ContentMode};
pub use stream::{Login, SaslMechanism, StreamAddress, StreamConfig, StreamProtocol};

use crate::{
    attach::DeviceWish,
    cloudevent::{Overrides, Sampler},
    spool,
    yaml::{self, Place, Problem, Problems},
};

/// Everything `detector run` has to know besides the rules.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// The edge site; part of every event's `source`.
    pub site: String,
    /// This machine; part of every event's `source`.
    pub node: String,
    /// Where to look at packets; never empty, tried in this order.
    pub devices: Vec<DeviceWish>,
    /// The users' addresses, which tell uplink from downlink; never empty.
    pub ue_pools: Vec<UePool>,
    /// Rules files and directories; never empty. Relative ones are joined to the config's directory.
    pub rules: Vec<PathBuf>,
    /// Where events go: the config's `sinks` or `sink`, else `K_SINK`. Names are unique.
    pub sinks: Vec<SinkConfig>,
    /// Extension attributes set on every event (`K_CE_OVERRIDES`).
    pub ce_overrides: Overrides,
    /// How events are delivered.
    pub delivery: Delivery,
    /// The address of metrics and health.
    pub admin: Admin,
    /// Which events are traced.
    pub tracing: Tracing,
    /// Sizes of kernel tables, and processor time.
    pub limits: Limits,
    /// Where the kernel side is pinned, if it is to outlive the agent.
    pub pin: Option<PathBuf>,
}

/// Users' addresses.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UePool {
    /// Unique among the pools.
    pub name: String,
    /// Host bits zero.
    pub cidr: IpNet,
}

/// One place where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkConfig {
    /// In metrics, logs and directories.
    pub name: String,
    /// Rules whose events go there; empty means all.
    pub rules: Vec<glob::Pattern>,
    /// Where.
    pub sink: Sink,
}

/// Where events go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Sink {
    /// POSTed.
    Http(Box<HttpConfig>),
    /// Added to a stream.
    Stream(Box<StreamConfig>),
    /// One JSON line each on standard output.
    Stdout,
    /// One JSON line each, appended.
    File {
        /// The file.
        path: PathBuf,
        /// Begun anew when it would get bigger.
        max_bytes: Option<u64>,
        /// Old files that are kept.
        keep: usize,
    },
}

/// How to POST.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpConfig {
    /// `http` or `https`, with a host.
    pub url: Url,
    /// How events are written.
    pub mode: ContentMode,
    /// In batched mode.
    pub batch: Batch,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// Authorities to trust besides, in PEM (`K_CA_CERTS`).
    pub more_ca: Option<String>,
    /// The agent's certificate and private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Where the bearer token is.
    pub token: Option<TokenConfig>,
}

impl HttpConfig {
    /// A URL without further ado.
    pub fn of(url: Url) -> Self {
        let mode = ContentMode::default();
        let batch = Batch::default();
        Self { url, mode, batch, ca: None, more_ca: None, identity: None, token: None }
    }
}

/// How many events go in one request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Batch {
    /// At most.
    pub max_events: usize,
    /// For so long the first one waits for others.
    pub linger: Duration,
}

impl Default for Batch {
    fn default() -> Self {
        Self { max_events: 64, linger: Duration::from_millis(10) }
    }
}

/// A bearer token that somebody else keeps fresh.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TokenConfig {
    /// The file.
    pub file: PathBuf,
    /// That the file is not there is no error: a SinkBinding mounts it only with OIDC.
    pub optional: bool,
    /// What the token must be for.
    pub audience: Option<String>,
}

/// How events are delivered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Delivery {
    /// For one attempt, from connect to the end of the answer.
    pub timeout: Duration,
    /// Attempts after the first.
    pub retries: u32,
    /// Pause before the first retry; doubles with each.
    pub backoff: Duration,
    /// Most requests in flight at a sink.
    pub concurrency: usize,
    /// Events that wait in memory or are being sent.
    pub queue: usize,
    /// An event that is older is not tried again.
    pub budget: Duration,
    /// Where events wait while a sink does not take them.
    pub spool: Option<SpoolConfig>,
    /// Where events go that a sink will never take.
    pub dead_letters: Option<DeadLettersConfig>,
}

/// Events on disk; each sink has a directory of its own below.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SpoolConfig {
    /// The directory.
    pub directory: PathBuf,
    /// Of each sink.
    pub limits: spool::Limits,
}

/// Dead letter files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLettersConfig {
    /// The directory; the file of a sink is `<sink>.jsonl`.
    pub directory: PathBuf,
    /// Of each file.
    pub max_bytes: u64,
}

impl DeadLettersConfig {
    /// The file of a sink.
    pub fn file(&self, sink: &str) -> PathBuf {
        self.directory.join(format!("{sink}.jsonl"))
    }
}

/// Knative's own sources: 5 retries, exponential from 50 ms.
impl Default for Delivery {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            retries: 5,
            backoff: Duration::from_millis(50),
            concurrency: 64,
            queue: 4_096,
            budget: Duration::from_secs(86_400),
            spool: None,
            dead_letters: None,
        }
    }
}

/// The agent's own HTTP server.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Admin {
    /// Loopback by default: it has no authentication.
    pub listen: SocketAddr,
    /// The control socket; `None` is the usual place if it can be had.
    pub socket: Option<PathBuf>,
}

impl Default for Admin {
    fn default() -> Self {
        Self { listen: SocketAddr::from(([127, 0, 0, 1], 9_901)), socket: None }
    }
}

/// Which events are traced.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Tracing {
    /// Says so in the events.
    pub sampler: Sampler,
    /// Where spans go, by OTLP over HTTP.
    pub otlp: Option<Url>,
}

/// Sizes of kernel tables, and what the agent may use of the machine.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Limits {
    /// Cores' processor time; `None` for as much as it needs.
    pub cpu: Option<f64>,
    /// Bytes of resident memory, without the kernel's tables; `None` for as much as it needs.
    pub memory: Option<u64>,
    /// Sessions tracked at once; the longest unused gives way.
    pub sessions: u32,
    /// Flows tracked at once; the longest unused gives way.
    pub flows: u32,
    /// Bytes of the ring buffer; a power of two, at least a page.
    pub ring_bytes: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { cpu: None, memory: None, sessions: 65_536, flows: 65_536, ring_bytes: 4 << 20 }
    }
}

impl Config {
    /// Reads a config file: a regular one that not everybody can write.
    pub fn load(path: &Path, environment: &Environment) -> Result<Self, Problems> {
        let bytes = yaml::read_trusted(path)?;
        Self::parse(path, &bytes, environment)
    }

    /// As [`Config::load`], from text that is there already; relative paths are joined to `path`'s
    /// directory.
    pub fn parse(path: &Path, bytes: &[u8], environment: &Environment) -> Result<Self, Problems> {
        let file: Arc<str> = path.display().to_string().into();
        let mut problems = Vec::new();
        let document = document(&file, bytes, &mut problems);
        let directory = path.parent().unwrap_or(Path::new(""));
        let config = document.map(|d| check::check(&d, directory, environment, &mut problems));
        Problems::refuse_if_any(problems)?;
        config.flatten().ok_or_else(|| Problem::whole(file, "is no config").into())
    }
}

/// The file's one document.
fn document(file: &Arc<str>, bytes: &[u8], problems: &mut Vec<Problem>) -> Option<ConfigDocument> {
    let documents = yaml::parse(file, bytes, problems);
    let (document, more) = match documents.split_first() {
        Some(split) => split,
        None => {
            if problems.is_empty() {
                problems
                    .push(Problem::whole(Arc::clone(file), "is empty; expected a Config document"));
            }
            return None;
        }
    };
    if let Some(second) = more.first() {
        problems.push(Problem {
            place: Place { file: Arc::clone(file), line: second.line, column: second.column },
            field: String::new(),
            message: "is a second document; expected one Config document (rules have files of \
                      their own, named under spec.rules)"
                .to_owned(),
        });
    }
    match yaml::kind(file, document, &["Config"]) {
        Ok(_) => yaml::typed(file, document, problems),
        Err(problem) => {
            problems.push(problem);
            None
        }
    }
}

#[cfg(test)]
mod tests;
