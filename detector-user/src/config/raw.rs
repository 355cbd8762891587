//! The config as it is written. `detector rules schema --kind config` is made from these types.

use schemars::{JsonSchema, Schema};
use serde::Deserialize;
use url::Url;

use crate::{
    attach::{DevicePattern, Directions, Hook},
    rules::raw::{ApiVersion, Metadata},
    spool::{Fsync, WhenFull},
    yaml::{ByteSize, Cidr, Field, Name, Period, Scalar, scalar},
};

/// The agent's configuration.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Config")]
pub struct ConfigDocument {
    /// `detector.dev/v1alpha1`
    pub api_version: Field<ApiVersion>,
    /// `Config`
    pub kind: Field<ConfigKind>,
    /// Its name, for people.
    #[serde(default)]
    pub metadata: Option<Metadata>,
    /// The settings.
    pub spec: Field<ConfigSpec>,
}

/// `Config`
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ConfigKind {
    /// `Config`
    Config,
}

/// The settings.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ConfigSpec {
    /// The edge site, part of every event's source; `edge` if left out.
    #[serde(default)]
    pub site: Option<Field<Name>>,
    /// This machine, part of every event's source; the host name if left out. DETECTOR_NODE and
    /// NODE_NAME go before it.
    #[serde(default)]
    pub node: Option<Field<NodeName>>,
    /// The devices to watch; at least one.
    #[schemars(length(min = 1))]
    pub devices: Field<Vec<Field<DeviceSpec>>>,
    /// The users' addresses, which tell uplink from downlink; at least one.
    #[schemars(length(min = 1))]
    pub ue_pools: Field<Vec<Field<UePoolSpec>>>,
    /// Rules files and directories, relative to this file; at least one.
    #[schemars(length(min = 1))]
    pub rules: Field<Vec<Field<String>>>,
    /// Where events go; K_SINK if neither this nor `sinks` is there.
    #[serde(default)]
    pub sink: Option<Field<SinkSpec>>,
    /// Where events go, if to several places.
    #[serde(default)]
    #[schemars(length(min = 1))]
    pub sinks: Option<Field<Vec<Field<SinkSpec>>>>,
    /// How events are delivered.
    #[serde(default)]
    pub delivery: Option<Field<DeliverySpec>>,
    /// The agent's own HTTP server.
    #[serde(default)]
    pub admin: Option<Field<AdminSpec>>,
    /// Sizes of kernel tables.
    #[serde(default)]
    pub limits: Option<Field<LimitsSpec>>,
    /// Keeps programs, tables and the ring buffer in the kernel while no agent runs; not if left
    /// out. `pin: {}` is enough.
    #[serde(default)]
    pub pin: Option<Field<PinSpec>>,
}

/// Devices to watch.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeviceSpec {
    /// A device name, or a pattern with `*`, `?` or `[0-9]`.
    pub name: Field<DevicePattern>,
    /// `auto` if left out.
    #[serde(default)]
    pub hook: Option<Field<Hook>>,
    /// `both` if left out.
    #[serde(default)]
    pub directions: Option<Field<Directions>>,
}

/// Users' addresses.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct UePoolSpec {
    /// Unique among the pools.
    pub name: Field<Name>,
    /// Their prefix.
    pub cidr: Field<Cidr>,
}

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
    /// POSTed to this URL.
    #[serde(default)]
    pub url: Option<Field<SinkUrl>>,
    /// How events are written to a URL: `binary` if left out.
    #[serde(default)]
    pub mode: Option<Field<ContentMode>>,
    /// Certificates for an https URL.
    #[serde(default)]
    pub tls: Option<Field<TlsSpec>>,
    /// A token for the URL.
    #[serde(default)]
    pub oidc: Option<Field<OidcSpec>>,
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

/// How events are delivered.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySpec {
    /// For one attempt; 10s if left out.
    #[serde(default)]
    pub timeout: Option<Field<Period>>,
    /// Attempts after the first; 5 if left out.
    #[serde(default)]
    pub retries: Option<Field<u64>>,
    /// Pause before the first retry, doubled for each; 50ms if left out.
    #[serde(default)]
    pub backoff: Option<Field<Period>>,
    /// Most requests in flight at a sink; begins with 8 and adapts; 64 if left out.
    #[serde(default)]
    pub concurrency: Option<Field<u64>>,
    /// Events waiting in memory; 4096 if left out.
    #[serde(default)]
    pub queue: Option<Field<u64>>,
    /// An event that is older is not tried again; 24h if left out.
    #[serde(default)]
    pub budget: Option<Field<Period>>,
    /// Where events wait while a sink does not take them; in memory only if left out.
    #[serde(default)]
    pub spool: Option<Field<SpoolSpec>>,
    /// Where events go that a sink will never take; beside the spool if left out, and counted only
    /// if there is none.
    #[serde(default)]
    pub dead_letters: Option<Field<DeadLettersSpec>>,
}

/// Events on disk.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SpoolSpec {
    /// Its directory, relative to this file; /var/lib/detector/spool if left out.
    #[serde(default)]
    pub directory: Option<Field<String>>,
    /// For each sink; 64Mi if left out.
    #[serde(default)]
    pub max_size: Option<Field<ByteSize>>,
    /// Older events are dropped; 24h if left out.
    #[serde(default)]
    pub max_age: Option<Field<Period>>,
    /// `always`, a period, or `never`; `always` if left out.
    #[serde(default)]
    pub fsync: Option<Field<FsyncSpec>>,
    /// What gives way; `drop-oldest` if left out.
    #[serde(default)]
    pub when_full: Option<Field<WhenFull>>,
}

/// Dead letter files, one for each sink.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeadLettersSpec {
    /// Their directory, relative to this file.
    pub directory: Field<String>,
    /// Of each file; 16Mi if left out.
    #[serde(default)]
    pub max_size: Option<Field<ByteSize>>,
}

/// The agent's own HTTP server: metrics and health.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminSpec {
    /// Address and port; 127.0.0.1:9901 if left out.
    #[serde(default)]
    pub listen: Option<Field<Listen>>,
}

/// Keeps programs, tables and the ring buffer in the kernel while no agent runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PinSpec {
    /// A directory on a BPF file system, made if it is not there; /sys/fs/bpf/detector if left out.
    #[serde(default)]
    pub path: Option<Field<String>>,
}

/// Sizes of kernel tables.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// Sessions tracked at once; 65536 if left out.
    #[serde(default)]
    pub sessions: Option<Field<u64>>,
    /// Flows tracked at once; 65536 if left out.
    #[serde(default)]
    pub flows: Option<Field<u64>>,
    /// Bytes of the ring buffer, a power of two; 4Mi if left out.
    #[serde(default)]
    pub ring_bytes: Option<Field<ByteSize>>,
}

/// A machine's name: what Kubernetes takes as one (a DNS subdomain), upper case allowed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeName(pub String);
scalar!(NodeName);

impl Scalar for NodeName {
    const EXPECTED: &'static str = "a host name of letters, digits, dots, dashes and underscores";

    fn parse(text: &str) -> Result<Self, String> {
        // It becomes one segment of the event's source, a URI reference.
        let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'-' | b'_');
        let dots = text.bytes().all(|b| b == b'.');
        match !dots && text.len() <= 253 && text.bytes().all(letter) {
            true => Ok(Self(text.to_owned())),
            false => Err(format!("\"{text}\" is no usable node name; expected {}", Self::EXPECTED)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,253}$"})
    }
}

/// An address that events can be POSTed to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SinkUrl(pub Url);
scalar!(SinkUrl);

impl Scalar for SinkUrl {
    const EXPECTED: &'static str = "an http or https URL, e.g. http://127.0.0.1:8081/edge/default";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("\"{text}\" {why}; expected {}", Self::EXPECTED));
        match Url::parse(text) {
            Err(e) => refuse(&format!("is no URL ({e})")),
            Ok(url) if !matches!(url.scheme(), "http" | "https") => {
                refuse(&format!("has the scheme {}", url.scheme()))
            }
            Ok(url) if url.fragment().is_some() => refuse("has a fragment, which is never sent"),
            Ok(url) => Ok(Self(url)),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "format": "uri", "pattern": "^https?://"})
    }
}

/// A rule's name, or a pattern.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RulePattern(pub glob::Pattern);
scalar!(RulePattern);

impl Scalar for RulePattern {
    const EXPECTED: &'static str = "a rule's name such as buy-click, or a pattern such as buy-*";

    fn parse(text: &str) -> Result<Self, String> {
        let letter = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "-*".contains(c);
        let refuse = || format!("\"{text}\" is no rule's name; expected {}", Self::EXPECTED);
        if text.is_empty() || !text.chars().all(letter) {
            return Err(refuse());
        }
        glob::Pattern::new(text).map(Self).map_err(|_| refuse())
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "pattern": "^[a-z0-9*-]+$"})
    }
}

/// When an append to the spool waits for the disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FsyncSpec(pub Fsync);
scalar!(FsyncSpec);

impl Scalar for FsyncSpec {
    const EXPECTED: &'static str = "always, never, or a duration such as 1s";

    fn parse(text: &str) -> Result<Self, String> {
        match text {
            "always" => Ok(Self(Fsync::Always)),
            "never" => Ok(Self(Fsync::Never)),
            _ => match humantime::parse_duration(text) {
                Ok(period) => Ok(Self(Fsync::Every(period))),
                Err(_) => Err(format!("cannot be \"{text}\"; expected {}", Self::EXPECTED)),
            },
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "examples": ["always", "1s", "never"]})
    }
}

/// An address and a port to listen on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Listen(pub std::net::SocketAddr);
scalar!(Listen);

impl Scalar for Listen {
    const EXPECTED: &'static str = "an address and a port, e.g. 127.0.0.1:9901 or \"[::1]:9901\"";

    fn parse(text: &str) -> Result<Self, String> {
        let parsed = text.parse().map(Self);
        parsed.map_err(|_| format!("\"{text}\" is no listen address; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "string", "examples": ["127.0.0.1:9901"]})
    }
}
