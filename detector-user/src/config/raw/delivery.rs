//! How events are delivered, as it is written.

use schemars::JsonSchema;
use serde::Deserialize;

use super::FsyncSpec;
use crate::{
    spool::WhenFull,
    yaml::{ByteSize, Field, Period},
};

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
