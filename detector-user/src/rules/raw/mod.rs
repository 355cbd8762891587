//! Rules files as they are written. Each value keeps its place; what belongs together is checked
//! in `check`. `detector rules schema` is made from these types.

mod terms;
mod value;

use schemars::JsonSchema;
use serde::Deserialize;

pub use terms::{
    CoapSpec, DnsSpec, FlowSpec, FlowTermSpec, GtpuSpec, HttpSpec, MatchSpec, MqttSpec, NotSpec,
    PayloadSpec, PieceSpec, QuicSpec, RateSpec, SessionTerm, TlsSpec, UdpTerm,
};
pub use value::Data;

use super::{
    scalar::{EventType, PortRange, Uri},
    template::Template,
};
use crate::yaml::{Cidr, Field, Name, Period};

/// The one version there is.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ApiVersion {
    /// `detector.dev/v1alpha1`
    #[serde(rename = "detector.dev/v1alpha1")]
    V1Alpha1,
}

/// A document's name.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(deny_unknown_fields)]
pub struct Metadata {
    /// Unique among the documents of its kind.
    pub name: Field<Name>,
}

/// An application that users reach through N6.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Application")]
pub struct ApplicationDocument {
    /// `detector.dev/v1alpha1`
    pub api_version: Field<ApiVersion>,
    /// `Application`
    pub kind: Field<ApplicationKind>,
    /// Its name.
    pub metadata: Metadata,
    /// Where it is and how long a session with it lasts.
    pub spec: Field<ApplicationSpec>,
}

/// `Application`
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum ApplicationKind {
    /// `Application`
    Application,
}

/// Where an application is and how long a session with it lasts.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct ApplicationSpec {
    /// Where it is served; at least one.
    #[schemars(length(min = 1))]
    pub endpoints: Field<Vec<Field<EndpointSpec>>>,
    /// When a user's session with it ends.
    #[serde(default)]
    pub session: Option<Field<SessionSpec>>,
}

/// Addresses, ports and transport of an application.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EndpointSpec {
    /// An address or a prefix.
    pub cidr: Field<Cidr>,
    /// Ports and port ranges; all ports if left out.
    #[serde(default)]
    pub ports: Option<Field<Vec<Field<PortRange>>>>,
    /// The transport, `tcp` if left out.
    #[serde(default)]
    pub protocol: Option<Field<ProtocolSpec>>,
}

/// A transport.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum ProtocolSpec {
    /// TCP
    Tcp,
    /// UDP
    Udp,
}

/// When a session ends.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct SessionSpec {
    /// After this long without a packet; 30s if left out.
    #[serde(default)]
    pub idle: Option<Field<Period>>,
    /// After this long without a packet once all its TCP connections are closed; 2s if left out.
    #[serde(default)]
    pub linger: Option<Field<Period>>,
}

/// What to detect and which event to make of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(title = "Rule")]
pub struct RuleDocument {
    /// `detector.dev/v1alpha1`
    pub api_version: Field<ApiVersion>,
    /// `Rule`
    pub kind: Field<RuleKind>,
    /// Its name.
    pub metadata: Metadata,
    /// What to detect and which event to make of it.
    pub spec: Field<RuleSpec>,
}

/// `Rule`
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[schemars(inline)]
pub enum RuleKind {
    /// `Rule`
    Rule,
}

/// What to detect and which event to make of it.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RuleSpec {
    /// The application it watches, by name.
    pub application: Field<Name>,
    /// Only these users, by address or prefix; all if left out.
    #[serde(default)]
    pub ue: Option<Field<Vec<Field<Cidr>>>>,
    /// Only packets of this direction; if left out, the one in which such messages go. Not for
    /// `session` rules, nor for flows that are over.
    #[serde(default)]
    pub direction: Option<Field<DirectionSpec>>,
    /// What must be seen: all terms that stand here.
    pub r#match: Field<MatchSpec>,
    /// Whether it fires only inside a session that the user began; `optional` if left out.
    #[serde(default)]
    pub session: Option<Field<SessionNeed>>,
    /// Of the rules that match at the same moment, the highest goes first; 0 if left out.
    #[serde(default)]
    #[schemars(range(min = -1000, max = 1000))]
    pub priority: Option<Field<i64>>,
    /// When it matches, rules of lower priority of its application do not; `false` if left out.
    #[serde(default)]
    pub r#final: Option<Field<bool>>,
    /// At most one event per user in this time.
    #[serde(default)]
    pub every: Option<Field<Period>>,
    /// Payload bytes copied to user space, 0 to 1024; 256 if left out.
    #[serde(default)]
    #[schemars(range(max = 1024))]
    pub capture: Option<Field<u64>>,
    /// The event.
    pub emit: Field<EmitSpec>,
}

/// A direction.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum DirectionSpec {
    /// From the user to the application.
    Uplink,
    /// From the application to the user.
    Downlink,
    /// Both.
    Any,
}

/// Whether a rule needs a session.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, JsonSchema)]
#[serde(rename_all = "lowercase")]
#[schemars(inline)]
pub enum SessionNeed {
    /// Fire only inside one.
    Required,
    /// Fire with or without.
    Optional,
}

/// The event a rule emits.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct EmitSpec {
    /// CloudEvents `type`.
    pub r#type: Field<EventType>,
    /// CloudEvents `subject`; `{ue.ip}` if left out.
    #[serde(default)]
    pub subject: Option<Field<Template>>,
    /// CloudEvents `dataschema`.
    #[serde(default)]
    pub dataschema: Option<Field<Uri>>,
    /// The event's data: any tree, its strings are templates; an object of everything seen if left
    /// out.
    #[serde(default)]
    pub data: Option<Field<Data>>,
}
