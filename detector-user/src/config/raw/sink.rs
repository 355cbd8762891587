//! A sink, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::{RulePattern, SinkAddress};
use crate::config::SaslMechanism;
use crate::yaml::{ByteSize, Field, Name, Period};

/// Where events go: exactly one of url, stdout and file.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SinkSpec {
    /// Unique among the sinks; needed in `sinks`.
    #[serde(default)]
    pub name: Option<Field<Name>>,
    /// Rules whose events go there, names or patterns with `*`; all if left out.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub rules: Option<Field<Vec<Field<RulePattern>>>>,
    /// POSTed to this URL (http, https), or added to a stream: `nats://HOST:PORT,.../SUBJECT`,
    /// `kafka://HOST:PORT,.../TOPIC`.
    #[serde(default)]
    pub url: Option<Field<SinkAddress>>,
    /// How events are written to an http URL: `binary` if left out.
    #[serde(default)]
    pub mode: Option<Field<ContentMode>>,
    /// How many events go in one request; with `mode: batched` only.
    #[serde(default)]
    pub batch: Option<Field<BatchSpec>>,
    /// Certificates for an https URL; that a stream's servers are to be spoken to by TLS.
    #[serde(default)]
    pub tls: Option<Field<TlsSpec>>,
    /// A token for an http URL.
    #[serde(default)]
    pub oidc: Option<Field<OidcSpec>>,
    /// Who the agent is to a stream's servers.
    #[serde(default)]
    pub login: Option<Field<LoginSpec>>,
    /// One JSON line each on standard output: `stdout: {}`.
    #[serde(default)]
    pub stdout: Option<Field<StdoutSpec>>,
    /// One JSON line each, appended to a file.
    #[serde(default)]
    pub file: Option<Field<FileSpec>>,
}

/// Content mode of the CloudEvents HTTP binding.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum ContentMode {
    /// Attributes in headers, data in the body.
    #[default]
    Binary,
    /// The whole event as JSON in the body.
    Structured,
    /// Several events as a JSON array in the body. A Knative Broker refuses it.
    Batched,
}

/// How many events go in one request.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct BatchSpec {
    /// At most, one of each user; 64 if left out.
    #[serde(default)]
    pub max_events: Option<Field<u64>>,
    /// For so long the first one waits for others; 10ms if left out.
    #[serde(default)]
    pub linger: Option<Field<Period>>,
}

/// Certificates, in PEM. Changed files are read again.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// Authorities to trust, instead of the system's.
    #[serde(default)]
    pub ca: Option<Field<String>>,
    /// The agent's own certificate, for mutual TLS; with `key`.
    #[serde(default)]
    pub cert: Option<Field<String>>,
    /// Its private key.
    #[serde(default)]
    pub key: Option<Field<String>>,
}

/// A bearer token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct OidcSpec {
    /// A file that somebody keeps fresh, as Kubernetes does with a projected token.
    pub token_file: Field<String>,
    /// The audience that the token must be for; it is not sent to another.
    #[serde(default)]
    pub audience: Option<Field<String>>,
}

/// Who the agent is: a user with a password, or for NATS a credentials file or a token.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LoginSpec {
    /// The user; with `passwordFile`.
    #[serde(default)]
    pub user: Option<Field<String>>,
    /// A file with the password.
    #[serde(default)]
    pub password_file: Option<Field<String>>,
    /// How Kafka is shown the password: `SCRAM-SHA-512` if left out.
    #[serde(default)]
    pub mechanism: Option<Field<SaslMechanism>>,
    /// A NATS credentials file, instead of a user.
    #[serde(default)]
    pub credentials: Option<Field<String>>,
    /// A file with a NATS token, instead of a user.
    #[serde(default)]
    pub token_file: Option<Field<String>>,
}

/// Standard output has no settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct StdoutSpec {}

/// A file of events.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FileSpec {
    /// Its path, relative to this file.
    pub path: Field<String>,
    /// It is renamed and begun anew when it would get bigger than this; never if left out.
    #[serde(default)]
    pub max_size: Option<Field<ByteSize>>,
    /// Renamed files that are kept; 3 if left out.
    #[serde(default)]
    pub keep: Option<Field<u64>>,
}
