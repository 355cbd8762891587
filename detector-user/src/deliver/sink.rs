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

/// A place events go. One attempt at a time per worker; retrying is not its business.
pub trait Sink: Send + Sync + 'static {
    /// What metrics and logs call it; differs between the sinks of one agent.
    fn name(&self) -> &str;

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
    /// A file or stdout could not be written.
    #[error("{0}")]
    Io(String),
    /// The event cannot be written in the form the sink wants.
    #[error("cannot be encoded: {0}")]
    Unsendable(String),
}

impl Failure {
    /// The value of the label `result` for an attempt that failed like this.
    pub fn label(&self) -> &'static str {
        match self {
            Self::Answer { status, .. } if status.is_server_error() => "5xx",
            Self::Answer { status, .. } if status.is_client_error() => "4xx",
            Self::Answer { .. } => "unexpected_status",
            Self::Closed(_) => "closed",
            Self::Network(_) => "network",
            Self::Timeout => "timeout",
            Self::Io(_) => "io",
            Self::Unsendable(_) => "unsendable",
        }
    }
}

fn quoted(excerpt: &str) -> String {
    if excerpt.is_empty() { String::new() } else { format!(": {excerpt:?}") }
}

/// A sink as people write it: `http://...`, `https://...`, `stdout` or `file:PATH`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// POST to a URL, one event a request.
    Http(Url),
    /// One event a line on standard output.
    Stdout,
    /// One event a line at the end of a file.
    File(PathBuf),
}

/// A sink that cannot be used.
#[derive(Debug, Error)]
pub enum TargetError {
    /// None of the known forms.
    #[error(
        "sink {given:?}: {why}; expected an http:// or https:// URL, \"stdout\" or \"file:PATH\""
    )]
    Unknown {
        /// What was given.
        given: String,
        /// What is wrong with it.
        why: String,
    },
    /// The file cannot be appended to.
    #[error("sink file {path}: cannot open for appending: {source}", path = path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The HTTP client cannot be made.
    #[error("HTTP client: {0}")]
    Client(#[from] reqwest::Error),
}

impl Target {
    /// Opens it: a file must be writable now; a URL need not answer yet.
    pub fn open(&self, http: &HttpSettings) -> Result<Arc<dyn Sink>, TargetError> {
        Ok(match self {
            Self::Http(url) => Arc::new(HttpSink::new("http", url.clone(), http)?),
            Self::Stdout => Arc::new(LineSink::stdout()),
            Self::File(path) => Arc::new(
                LineSink::append(path)
                    .map_err(|source| TargetError::File { path: path.clone(), source })?,
            ),
        })
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
                path => Ok(Self::File(path.into())),
            };
        }
        let url = Url::parse(given).map_err(|error| unknown(&error.to_string()))?;
        match url.scheme() {
            "http" | "https" => Ok(Self::Http(url)),
            other => Err(unknown(&format!("unknown scheme {other:?}"))),
        }
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Http(url) => url.fmt(f),
            Self::Stdout => f.write_str("stdout"),
            Self::File(path) => write!(f, "file:{}", path.display()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_is_a_url_stdout_or_a_file() {
        let file = |path: &str| Target::File(path.into());
        for (text, target) in [
            ("stdout", Target::Stdout),
            ("-", Target::Stdout),
            ("file:events.jsonl", file("events.jsonl")),
            ("file:/tmp/e", file("/tmp/e")),
            ("file:///tmp/e", file("/tmp/e")),
            ("http://b/ns/default", Target::Http("http://b/ns/default".parse().unwrap())),
            ("https://b/", Target::Http("https://b/".parse().unwrap())),
        ] {
            assert_eq!(text.parse::<Target>().unwrap(), target, "{text}");
        }
    }

    #[test]
    fn other_sinks_are_refused_with_what_was_given_and_what_is_expected() {
        for (text, why) in [
            ("kafka://b", "unknown scheme \"kafka\""),
            ("file:", "no path"),
            ("broker", "relative URL"),
        ] {
            let message = text.parse::<Target>().unwrap_err().to_string();
            assert!(message.contains(&format!("{text:?}: {why}")), "{message}");
            assert!(message.contains("expected an http://"), "{message}");
        }
    }
}
