//! The Kubernetes objects the Broker understands, field by field as their CRDs have them
//! (Knative Eventing 1.22). A field a cluster would refuse is refused here too; fields that mean
//! nothing on one box (`status`, `config`, CA certificates, audiences) are read and ignored.

use std::{collections::BTreeMap, fmt, time::Duration};

use serde::{Deserialize, de::IgnoredAny};

use super::filter::{Filter, attribute_name};

/// Any namespaced object: Broker, Trigger, Channel or Subscription, by its `spec`.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Object<Spec> {
    #[serde(rename = "apiVersion")]
    _api_version: String,
    #[serde(rename = "kind")]
    _kind: String,
    /// Name, namespace and annotations.
    pub metadata: Metadata,
    /// What is wanted.
    pub spec: Spec,
    #[serde(default, rename = "status")]
    _status: IgnoredAny,
}

/// The part of `metadata` that matters here.
#[derive(Debug, Deserialize)]
pub struct Metadata {
    /// `metadata.name`.
    pub name: String,
    /// `metadata.namespace`; `default` if left out, as kubectl does.
    #[serde(default = "default_namespace")]
    pub namespace: String,
    /// `metadata.annotations`.
    #[serde(default)]
    pub annotations: BTreeMap<String, String>,
}

fn default_namespace() -> String {
    "default".into()
}

impl Metadata {
    /// Namespace and name.
    pub fn full_name(&self) -> Name {
        Name { namespace: self.namespace.clone(), name: self.name.clone() }
    }
}

/// Namespace and name; printed as `edge/default`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Name {
    /// Namespace.
    pub namespace: String,
    /// Name in it.
    pub name: String,
}

impl Name {
    /// From its two parts.
    pub fn new(namespace: impl Into<String>, name: impl Into<String>) -> Self {
        Self { namespace: namespace.into(), name: name.into() }
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}/{}", self.namespace, self.name)
    }
}

/// `eventing.knative.dev/v1` Broker.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct BrokerSpec {
    #[serde(default, rename = "config")]
    _config: IgnoredAny,
    /// For every Trigger that has no `delivery` of its own.
    pub delivery: Option<DeliverySpec>,
}

/// `eventing.knative.dev/v1` Trigger.
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TriggerSpec {
    /// Name of the Broker, in the Trigger's namespace.
    pub broker: Option<String>,
    /// The same as a reference.
    pub broker_ref: Option<Reference>,
    /// The older filter: exact match on attributes.
    pub filter: Option<TriggerFilter>,
    /// The newer filters; when there are any, `filter` is not looked at.
    pub filters: Option<Vec<Filter>>,
    /// Where to.
    pub subscriber: Destination,
    /// How hard to try; replaces the Broker's as a whole.
    pub delivery: Option<DeliverySpec>,
}

/// `spec.filter` of a Trigger.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TriggerFilter {
    /// Attribute name to value; an empty value means "is there".
    #[serde(default, deserialize_with = "attributes")]
    pub attributes: BTreeMap<String, String>,
}

fn attributes<'de, D: serde::Deserializer<'de>>(
    deserializer: D,
) -> Result<BTreeMap<String, String>, D::Error> {
    let map = BTreeMap::<String, String>::deserialize(deserializer)?;
    map.keys().try_for_each(|name| attribute_name(name)).map_err(serde::de::Error::custom)?;
    Ok(map)
}

/// `messaging.knative.dev/v1` Channel, and InMemoryChannel.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ChannelSpec {
    #[serde(default, rename = "channelTemplate")]
    _channel_template: IgnoredAny,
    /// For every Subscription that has no `delivery` of its own.
    pub delivery: Option<DeliverySpec>,
}

/// `messaging.knative.dev/v1` Subscription.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct SubscriptionSpec {
    /// Where events come from.
    pub channel: Reference,
    /// Where to.
    pub subscriber: Destination,
    /// Where the subscriber's replies go.
    pub reply: Option<Destination>,
    /// How hard to try.
    pub delivery: Option<DeliverySpec>,
}

/// Where events go: a URI, or an object that has an address.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Destination {
    /// The object.
    pub r#ref: Option<Reference>,
    /// Absolute, or relative to the object's address.
    pub uri: Option<String>,
    #[serde(default, rename = "CACerts")]
    _ca_certs: IgnoredAny,
    #[serde(default, rename = "audience")]
    _audience: IgnoredAny,
}

/// A reference to another object (KReference).
#[derive(Debug, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct Reference {
    #[serde(default, rename = "apiVersion")]
    _api_version: IgnoredAny,
    #[serde(default, rename = "group")]
    _group: IgnoredAny,
    #[serde(default, rename = "address")]
    _address: IgnoredAny,
    /// E.g. `Service`, `Broker`, `Channel`.
    pub kind: String,
    /// Its name.
    pub name: String,
    /// Its namespace; by default that of the object holding the reference.
    pub namespace: Option<String>,
}

/// How hard to try, and where what could not be delivered goes.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DeliverySpec {
    /// Where undeliverable events go.
    pub dead_letter_sink: Option<Destination>,
    /// Attempts after the first.
    pub retry: Option<u32>,
    /// Of one attempt.
    pub timeout: Option<IsoDuration>,
    /// How the wait grows.
    pub backoff_policy: Option<BackoffPolicy>,
    /// What it grows from.
    pub backoff_delay: Option<IsoDuration>,
    /// Content mode the subscriber gets.
    pub format: Option<Format>,
}

/// How the wait between attempts grows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum BackoffPolicy {
    /// delay x number of retries so far
    Linear,
    /// delay x 2 ^ number of retries so far
    Exponential,
}

/// Content mode of a delivery.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Format {
    /// Attributes as `ce-` headers.
    #[default]
    Binary,
    /// One JSON document.
    Json,
}

/// An ISO 8601 duration with days and smaller, e.g. `PT0.2S`, `PT1M30S`, `P1DT12H`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub struct IsoDuration(pub Duration);

impl TryFrom<String> for IsoDuration {
    type Error = String;

    fn try_from(text: String) -> Result<Self, String> {
        parse_iso(&text).map(Self).ok_or_else(|| {
            format!("`{text}` is not a duration: expected ISO 8601 such as PT0.2S or PT1M30S")
        })
    }
}

fn parse_iso(text: &str) -> Option<Duration> {
    let (date, time) = match text.strip_prefix('P')?.split_once('T') {
        Some((_, "")) => return None,
        Some(parts) => parts,
        None => (text.strip_prefix('P')?, ""),
    };
    if date.is_empty() && time.is_empty() {
        return None;
    }
    let seconds = sum_units(date, &[('D', 86_400.0)])?
        + sum_units(time, &[('H', 3600.0), ('M', 60.0), ('S', 1.0)])?;
    Duration::try_from_secs_f64(seconds).ok()
}

/// `1H30M` with the units in this order, each at most once.
fn sum_units(mut text: &str, units: &[(char, f64)]) -> Option<f64> {
    let mut sum = 0.0;
    for (unit, seconds) in units {
        if let Some((number, rest)) = text.split_once(*unit) {
            if !number.bytes().all(|b| b.is_ascii_digit() || b == b'.') {
                return None;
            }
            sum += number.parse::<f64>().ok()? * seconds;
            text = rest;
        }
    }
    text.is_empty().then_some(sum)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_as_knative_writes_them() {
        for (text, millis) in [
            ("PT0.2S", 200),
            ("PT1M30S", 90_000),
            ("P1DT12H", 129_600_000),
            ("PT0S", 0),
            ("P2D", 172_800_000),
        ] {
            assert_eq!(parse_iso(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in
            ["", "P", "PT", "5s", "PT5", "PT-1S", "PT1S2M", "PTS", "P1M", "PT1e3S", "PTinfS"]
        {
            assert_eq!(parse_iso(text), None, "{text}");
        }
    }
}
