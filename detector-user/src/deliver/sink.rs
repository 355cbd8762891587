//! Where events can go, and how an attempt to bring one there can fail.

use std::{fmt, path::PathBuf, str::FromStr, sync::Arc, time::Duration};

use cloudevents::Event;
use futures::future::BoxFuture;
use reqwest::StatusCode;
use thiserror::Error;
use url::Url;

use super::{
    http::{HttpSettings, HttpSink},
    lines::LineSink,
};
/// A sink as the config has it, or as people write it: `http://...`, `https://...`,
/// `nats://HOST/SUBJECT`, `kafka://HOST/TOPIC`, `stdout` or `file:PATH`.
pub use crate::config::Sink as Target;
#[cfg(any(feature = "nats", feature = "kafka"))]
use crate::config::StreamProtocol;
use crate::config::{HttpConfig, StreamConfig};

/// A place events go. One attempt at a time per worker; retrying is not its business.
pub trait Sink: Send + Sync + 'static {
    /// What metrics and logs call it; differs between the sinks of one agent.
    fn name(&self) -> &str;

    /// What an attempt is called in a trace.
    fn verb(&self) -> &'static str {
        "write"
    }

    /// Tries once. `Ok` means that the sink has taken the event.
    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>>;
}

/// Why one attempt did not succeed.
#[derive(Clone, Debug, PartialEq, Eq, Error)]
pub enum Failure {
    /// The sink answered, but not with 2xx.
    #[error("answered {status}{}", quoted(excerpt))]
    Answer {
        /// The status.
        status: StatusCode,
        /// How long it asked to be left alone.
        retry_after: Option<Duration>,
        /// The beginning of the body, printable.
        excerpt: String,
    },
    /// The connection ended before any answer, as a kept-alive one does that the sink has closed.
    #[error("connection closed before an answer: {0}")]
    Closed(String),
    /// No connection, or a broken one.
    #[error("{0}")]
    Network(String),
    /// No answer in time. The event may have arrived all the same.
    #[error("no answer in time")]
    Timeout,
    /// The sink wants to know who we are, and we cannot say it in a way that it believes.
    #[error("{0}")]
    Credentials(String),
    /// A file or stdout could not be written.
    #[error("{0}")]
    Io(String),
    /// The sink is there and cannot take events now, for this reason.
    #[error("{0}")]
    Unavailable(String),
    /// The sink will never take this event, for this reason.
    #[error("refused: {0}")]
    Refused(String),
    /// The event cannot be written in the form the sink wants.
    #[error("cannot be encoded: {0}")]
    Unsendable(String),
}

impl Failure {
    /// How long the sink asked to be left alone.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Answer { retry_after, .. } => *retry_after,
            Self::Closed(_)
            | Self::Network(_)
            | Self::Timeout
            | Self::Credentials(_)
            | Self::Io(_)
            | Self::Unavailable(_)
            | Self::Refused(_)
            | Self::Unsendable(_) => None,
        }
    }

    /// The value of the label `result` for an attempt that failed like this.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answer { status, .. } if status.is_server_error() => "5xx",
            Self::Answer { status, .. } if status.is_client_error() => "4xx",
            Self::Answer { .. } => "unexpected_status",
            Self::Closed(_) => "closed",
            Self::Network(_) => "network",
            Self::Timeout => "timeout",
            Self::Credentials(_) => "credentials",
            Self::Io(_) => "io",
            Self::Unavailable(_) => "unavailable",
            Self::Refused(_) => "refused",
            Self::Unsendable(_) => "unsendable",
        }
    }
}

pub(super) fn unsendable(error: impl fmt::Display) -> Failure {
    Failure::Unsendable(error.to_string())
}

pub(super) fn quoted(excerpt: &str) -> String {
    if excerpt.is_empty() { String::new() } else { format!(": {excerpt:?}") }
}

/// A sink that cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// None of the known forms.
    #[error(
        "sink {given:?}: {why}; expected an http:// or https:// URL, nats://HOST:PORT/SUBJECT, \
         kafka://HOST:PORT/TOPIC, \"stdout\" or \"file:PATH\""
    )]
    Unknown {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be appended to.
    #[error("sink file {path}: cannot open for appending: {error}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file that the sink needs cannot be read.
    #[error("{path}: {error}", path = path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// The same of a stream, with the field that names the file.
    #[error("{field} {path}: {error}", path = path.display())]
    ReadField {
        /// Below `spec.sink`.
        field: &'static str,
        /// The file.
        path: PathBuf,
        /// What the system said.
        error: std::io::Error,
    },
    /// A file is not what it should be. What it holds is not said: it may be a key.
    #[error("{what}: expected {expected}")]
    Certificate {
        /// Where.
        what: String,
        /// What should be there.
        expected: &'static str,
    },
    /// This program was built without it.
    #[error("sink {url}: needs a detector that was built with the feature {feature:?}")]
    NotBuiltIn {
        /// The sink.
        url: String,
        /// What it was not built with.
        feature: &'static str,
    },
    /// A client of a stream's servers cannot be made.
    #[error("client of {url}: {why}")]
    Stream {
        /// The sink.
        url: String,
        /// What the library said.
        why: String,
    },
    /// The HTTP client cannot be made.
    #[error("HTTP client: {0}")]
    Client(reqwest::Error),
}

impl From<reqwest::Error> for TargetError {
    fn from(error: reqwest::Error) -> Self {
        Self::Client(error)
    }
}

impl Target {
    /// Opens it: a file must be writable now; a URL need not answer yet.
    ///
    /// # Errors
    /// What is wrong with the file, or with the certificates.
    pub fn open(&self, name: &str, http: &HttpSettings) -> Result<Arc<dyn Sink>, TargetError> {
        Ok(match self {
            Self::Http(config) => Arc::new(HttpSink::new(name, config, http)?),
            Self::Stream(config) => open_stream(name, config, http.timeout)?,
            Self::Stdout => Arc::new(LineSink::stdout(name)),
            Self::File { path, max_bytes, keep } => Arc::new(
                LineSink::append(name, path, *max_bytes, *keep)
                    .map_err(|error| TargetError::File { path: path.clone(), error })?,
            ),
        })
    }
}

fn open_stream(
    name: &str,
    config: &StreamConfig,
    timeout: Duration,
) -> Result<Arc<dyn Sink>, TargetError> {
    match config.address.protocol {
        #[cfg(feature = "nats")]
        StreamProtocol::Nats => Ok(Arc::new(super::nats::NatsSink::new(name, config, timeout)?)),
        #[cfg(feature = "kafka")]
        StreamProtocol::Kafka => Ok(Arc::new(super::kafka::KafkaSink::new(name, config, timeout)?)),
        #[cfg(not(all(feature = "nats", feature = "kafka")))]
        missing => {
            let _ = (name, timeout);
            let feature = missing.name();
            Err(TargetError::NotBuiltIn { url: config.address.to_string(), feature })
        }
    }
}

impl FromStr for Target {
    type Err = TargetError;

    fn from_str(given: &str) -> Result<Self, TargetError> {
        let unknown = |why: &str| TargetError::Unknown { given: given.into(), why: why.into() };
        if given == "stdout" || given == "-" {
            return Ok(Self::Stdout);
        }
        if let Some(path) = given.strip_prefix("file:") {
            // file:///var/x as in a URI, file:var/x as in a shell.
            let path = path.strip_prefix("//").unwrap_or(path);
            return match path {
                "" => Err(unknown("no path after \"file:\"")),
                path => Ok(Self::File { path: path.into(), max_bytes: None, keep: 0 }),
            };
        }
        if ["nats://", "kafka://"].iter().any(|scheme| given.starts_with(scheme)) {
            let address = given.parse().map_err(|why: String| unknown(&why))?;
            return Ok(Self::Stream(Box::new(StreamConfig::of(address))));
        }
        let url = Url::parse(given).map_err(|error| unknown(&error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Http(Box::new(HttpConfig::of(url)))),
            other => Err(unknown(&format!("unknown scheme {other:?}"))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(http) => http.url.fmt(f),
            Self::Stream(stream) => stream.address.fmt(f),
            Self::Stdout => f.write_str("stdout"),
            Self::File { path, .. } => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_a_url_stdout_or_a_file() {
        let file = |path: &str| Target::File { path: path.into(), max_bytes: None, keep: 0 };
        let http = |url: &str| Target::Http(Box::new(HttpConfig::of(url.parse().unwrap())));
        for (text, target) in [
            ("stdout", Target::Stdout),
            ("-", Target::Stdout),
            ("file:events.jsonl", file("events.jsonl")),
            ("file:/tmp/e", file("/tmp/e")),
            ("file:///tmp/e", file("/tmp/e")),
            ("http://b/ns/default", http("http://b/ns/default")),
            ("https://b/", http("https://b/")),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
        }
    }

    #[test]
    fn other_sinks_are_refused_with_what_was_given_and_what_is_expected() {
        for (text, why) in [
            ("kafka://b", "has no usable topic"),
            ("amqp://b", "unknown scheme \"amqp\""),
            ("file:", "no path"),
            ("broker", "relative URL"),
        ] {
            let message = text.parse::<Target>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}: {why}")), "{message}");
            assert!(message.contains("expected an http://"), "{message}");
        }
    }
}
