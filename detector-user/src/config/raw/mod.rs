//! The config as it is written. `detector rules schema --kind config` is made from these types.

mod delivery;
mod sink;
mod word;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    attach::{DevicePattern, Directions, Hook},
    rules::raw::{ApiVersion, Metadata},
    yaml::{ByteSize, Cidr, Field, Name},
};

pub(super) use delivery::{DeadLettersSpec, DeliverySpec, SpoolSpec};
pub use sink::ContentMode;
pub(super) use sink::{BatchSpec, FileSpec, LoginSpec, OidcSpec, SinkSpec, TlsSpec};
pub(super) use word::{
    Cores, FsyncSpec, Listen, NodeName, Ratio, RulePattern, SinkAddress, SinkUrl,
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
    /// Which events are traced; none if left out.
    #[serde(default)]
    pub tracing: Option<Field<TracingSpec>>,
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

/// The agent's own HTTP server: metrics and health.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct AdminSpec {
    /// Address and port; 127.0.0.1:9901 if left out.
    #[serde(default)]
    pub listen: Option<Field<Listen>>,
    /// The control socket, for root only, relative to this file; /run/detector/detector.sock if left
    /// out.
    #[serde(default)]
    pub socket: Option<Field<String>>,
}

/// Which events are traced.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TracingSpec {
    /// How many of all events are, from 0 to 1.
    pub sample_ratio: Field<Ratio>,
    /// Where their spans go, by OTLP over HTTP, e.g. http://127.0.0.1:4318/v1/traces; nowhere if
    /// left out.
    #[serde(default)]
    pub otlp: Option<Field<SinkUrl>>,
}

/// Keeps programs, tables and the ring buffer in the kernel while no agent runs.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PinSpec {
    /// A directory on a BPF file system, made if it is not there; /sys/fs/bpf/detector if left out.
    #[serde(default)]
    pub path: Option<Field<String>>,
}

/// Sizes of kernel tables, and what the agent may use of the machine.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct LimitsSpec {
    /// Processor time in cores, e.g. 0.5 or 500m; as much as it needs if left out.
    #[serde(default)]
    pub cpu: Option<Field<Cores>>,
    /// Resident memory of the agent, at least 32Mi; as much as it needs if left out.
    #[serde(default)]
    pub memory: Option<Field<ByteSize>>,
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
