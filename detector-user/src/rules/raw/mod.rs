//! Rules files as they are written. Each value keeps its place; what belongs together is checked
//! in `check`. `detector rules schema` is made from these types.

mod value;

use schemars::JsonSchema;
use serde::Deserialize;

pub use value::{Data, Methods};

use super::{
    scalar::{EventType, PortRange, Uri, UrlPath},
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
    /// Only packets of this direction; `uplink` if left out. Not for `session` rules.
    #[serde(default)]
    pub direction: Option<Field<DirectionSpec>>,
    /// What must be seen: exactly one term.
    pub r#match: Field<MatchSpec>,
    /// Whether it fires only inside a session that the user began; `optional` if left out.
    #[serde(default)]
    pub session: Option<Field<SessionNeed>>,
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

/// What must be seen: exactly one term.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1, "maxProperties" = 1))]
pub struct MatchSpec {
    /// The start of an HTTP/1 request.
    #[serde(default)]
    pub http: Option<Field<HttpSpec>>,
    /// `opened`: the first SYN of a TCP connection.
    #[serde(default)]
    pub flow: Option<Field<FlowTerm>>,
    /// `first-packet`: the first packet of a UDP flow.
    #[serde(default)]
    pub udp: Option<Field<UdpTerm>>,
    /// `started` or `ended`: the begin or end of a user's session with the application.
    #[serde(default)]
    pub session: Option<Field<SessionTerm>>,
}

/// Which HTTP requests; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// One method or a list; every method if left out.
    #[serde(default)]
    pub method: Option<Field<Methods>>,
    /// Exactly this path, the query not counted.
    #[serde(default)]
    pub path: Option<Field<UrlPath>>,
    /// Paths that begin with this.
    #[serde(default)]
    pub path_prefix: Option<Field<UrlPath>>,
}

/// What a TCP connection does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum FlowTerm {
    /// Its first SYN.
    Opened,
}

/// What a UDP flow does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum UdpTerm {
    /// Its first packet.
    FirstPacket,
}

/// What a session does.
#[derive(Clone, Copy, Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "kebab-case")]
#[schemars(inline)]
pub enum SessionTerm {
    /// It begins.
    Started,
    /// It ends.
    Ended,
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
