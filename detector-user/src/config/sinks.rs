//! Where events go: raw to checked.

mod stream;

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{
    Batch, HttpConfig, Sink, SinkConfig, TokenConfig,
    check::{Checker, items},
    environment::{self, Environment},
    raw::{
        BatchSpec, ConfigSpec, ContentMode, FileSpec, OidcSpec, SinkAddress, SinkSpec, SinkUrl,
        TlsSpec,
    },
};
use crate::yaml::{Field, Problem, Scalar};
use url::Url;

/// Where a SinkBinding mounts the token when OIDC is on (Knative eventing, "OIDC authentication").
const TOKEN: &str = "/oidc/token";

pub(super) fn sinks(
    spec: &ConfigSpec,
    directory: &Path,
    environment: &Environment,
    problems: &mut Vec<Problem>,
) -> Vec<SinkConfig> {
    let reader = Reader { directory, more_ca: environment.get("K_CA_CERTS") };
    match (&spec.sink, &spec.sinks) {
        (Some(field), None) => reader.one(field, problems).into_iter().collect(),
        (None, Some(list)) => reader.list(list, problems),
        (Some(field), Some(_)) => {
            problems.push(field.problem("stands beside spec.sinks; expected one of them"));
            Vec::new()
        }
        (None, None) => {
            let Some(text) = environment.get("K_SINK") else { return Vec::new() };
            match SinkUrl::parse(text) {
                Ok(url) => vec![reader.k_sink(url)],
                Err(message) => {
                    problems.push(environment::problem("K_SINK", message));
                    Vec::new()
                }
            }
        }
    }
}

/// Files of certificates.
struct Certificates {
    ca: Option<PathBuf>,
    identity: Option<(PathBuf, PathBuf)>,
}

struct Reader<'a> {
    directory: &'a Path,
    more_ca: Option<&'a str>,
}

impl Reader<'_> {
    fn list(
        &self,
        list: &Field<Vec<Field<SinkSpec>>>,
        problems: &mut Vec<Problem>,
    ) -> Vec<SinkConfig> {
        let _ = items(list, "sink", problems);
        let (mut names, mut sinks) = (BTreeSet::new(), Vec::new());
        for field in list.get().into_iter().flatten() {
            let Some(spec) = field.get() else { continue };
            let Some(name) = &spec.name else {
                problems.push(field.problem("the field \"name\" is missing"));
                continue;
            };
            if let Some(text) = name.get()
                && !names.insert(text)
            {
                problems.push(name.problem(format!("\"{}\" is listed twice", text.0)));
            }
            sinks.extend(self.one(field, problems));
        }
        sinks
    }

    fn one(&self, field: &Field<SinkSpec>, problems: &mut Vec<Problem>) -> Option<SinkConfig> {
        let spec = field.get()?;
        let there = [spec.url.is_some(), spec.stdout.is_some(), spec.file.is_some()];
        let count = there.into_iter().filter(|there| *there).count();
        if count != 1 {
            problems.push(field.problem(format!(
                "names {count} sinks; expected exactly one of url, stdout: {{}}, file"
            )));
            return None;
        }
        say_misplaced(field, spec, problems);
        let (kind, sink) = self.sink(spec, problems)?;
        let name = spec.name.as_ref().and_then(Field::get);
        let rules = spec.rules.as_ref().map(|rules| items(rules, "rule", problems));
        Some(SinkConfig {
            name: name.map_or_else(|| kind.to_owned(), |name| name.0.clone()),
            rules: rules.unwrap_or_default().into_iter().map(|rule| rule.0.clone()).collect(),
            sink,
        })
    }

    /// With the name of its kind.
    fn sink(&self, spec: &SinkSpec, problems: &mut Vec<Problem>) -> Option<(&'static str, Sink)> {
        if let Some(field) = &spec.url {
            return Some(match field.get()? {
                SinkAddress::Http(url) => {
                    ("http", Sink::Http(Box::new(self.http(spec, url, problems)?)))
                }
                SinkAddress::Stream(address) => {
                    let stream = self.stream(spec, field, address, problems)?;
                    (address.protocol.name(), Sink::Stream(Box::new(stream)))
                }
            });
        }
        if let Some(file) = &spec.file {
            return Some(("file", self.file(file.get()?, problems)?));
        }
        spec.stdout.as_ref()?.get().map(|_| ("stdout", Sink::Stdout))
    }

    fn file(&self, spec: &FileSpec, problems: &mut Vec<Problem>) -> Option<Sink> {
        let mut checker = Checker { problems };
        let max_bytes = spec.max_size.is_some();
        let size = checker.bytes(&spec.max_size, u64::MAX, 4 << 10, 1 << 40);
        let keep = checker.number(&spec.keep, 3, 0, 1_000);
        let path = self.directory.join(spec.path.get()?);
        Some(Sink::File { path, max_bytes: max_bytes.then_some(size), keep })
    }

    fn http(&self, spec: &SinkSpec, url: &Url, problems: &mut Vec<Problem>) -> Option<HttpConfig> {
        let mut http = HttpConfig::of(url.clone());
        http.mode = spec.mode.as_ref().and_then(Field::get).copied().unwrap_or_default();
        if let Some(field) = &spec.batch {
            http.batch = batch(field, http.mode, problems)?;
        }
        http.more_ca = self.more_ca.map(str::to_owned);
        if let Some(field) = &spec.tls
            && let Some(tls) = field.get()
        {
            let Certificates { ca, identity } = self.certificates(tls, field, problems);
            (http.ca, http.identity) = (ca, identity);
            if http.url.scheme() != "https" {
                problems.push(field.problem("needs an https url"));
            }
        }
        if let Some(oidc) = &spec.oidc {
            http.token = self.token(oidc.get()?);
        }
        Some(http)
    }

    fn certificates(
        &self,
        tls: &TlsSpec,
        field: &Field<TlsSpec>,
        problems: &mut Vec<Problem>,
    ) -> Certificates {
        let identity = match (self.path(&tls.cert), self.path(&tls.key)) {
            (Some(cert), Some(key)) => Some((cert, key)),
            (None, None) => None,
            (Some(_), None) | (None, Some(_)) => {
                problems.push(field.problem("has one of cert and key; expected both"));
                None
            }
        };
        Certificates { ca: self.path(&tls.ca), identity }
    }

    fn path(&self, field: &Option<Field<String>>) -> Option<PathBuf> {
        Some(self.directory.join(field.as_ref()?.get()?))
    }

    fn token(&self, oidc: &OidcSpec) -> Option<TokenConfig> {
        let audience = oidc.audience.as_ref().and_then(Field::get).cloned();
        let file = self.directory.join(oidc.token_file.get()?);
        Some(TokenConfig { file, optional: false, audience })
    }

    fn k_sink(&self, url: SinkUrl) -> SinkConfig {
        let mut http = HttpConfig::of(url.0);
        http.more_ca = self.more_ca.map(str::to_owned);
        http.token = Some(TokenConfig { file: TOKEN.into(), optional: true, audience: None });
        SinkConfig { name: "http".to_owned(), rules: Vec::new(), sink: Sink::Http(Box::new(http)) }
    }
}

/// What is written of a sink and does not belong to its kind.
fn say_misplaced(field: &Field<SinkSpec>, spec: &SinkSpec, problems: &mut Vec<Problem>) {
    let address = spec.url.as_ref().map(|url| url.get());
    // Of a URL that was refused nobody knows the kind.
    let http = address.is_some_and(|address| !matches!(address, Some(SinkAddress::Stream(_))));
    let stream = address.is_some_and(|address| !matches!(address, Some(SinkAddress::Http(_))));
    for (name, given, fits, needs) in [
        ("mode", spec.mode.is_some(), http, "an http or https url"),
        ("batch", spec.batch.is_some(), http, "an http or https url"),
        ("oidc", spec.oidc.is_some(), http, "an http or https url"),
        ("tls", spec.tls.is_some(), http || stream, "a url"),
        ("login", spec.login.is_some(), stream, "a nats or kafka url"),
    ] {
        if given && !fits {
            problems.push(field.problem(format!("has \"{name}\", which needs {needs}")));
        }
    }
}

fn batch(
    field: &Field<BatchSpec>,
    mode: ContentMode,
    problems: &mut Vec<Problem>,
) -> Option<Batch> {
    if mode != ContentMode::Batched {
        problems.push(field.problem("needs mode: batched"));
    }
    let (spec, default) = (field.get()?, Batch::default());
    let mut checker = Checker { problems };
    let (least, most) = (Duration::from_millis(1), Duration::from_secs(10));
    Some(Batch {
        max_events: checker.number(&spec.max_events, default.max_events, 1, 1_024),
        linger: checker.period(&spec.linger, default.linger, least, most),
    })
}
