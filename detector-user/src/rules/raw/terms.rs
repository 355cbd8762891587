//! `match`: the terms as they are written.

use schemars::JsonSchema;
use serde::Deserialize;

use crate::{
    rules::{
        scalar::{AlpnName, Method, UrlPath},
        term::{
            CoapCode, CoapObserve, CoapType, DnsDirection, DnsRcode, DnsType, FlowEventKind,
            GtpuMessageType, HexBytes, HttpStatus, MqttQos, MqttType, NamePattern, PathGlob,
            PathRegex, Qfi, QuicVersion, TcpFlags, Teid, TlsVersion, TopicFilter, Wildcard,
        },
    },
    yaml::{ByteSize, Field, Keyed, OneOrMany, Period, WordOrMap},
};

/// One value or a list of alternatives, if written at all.
type Values<T> = Option<Field<OneOrMany<T>>>;

/// What must be seen: all terms that stand here.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct MatchSpec {
    /// An HTTP request, or a response if `status` is asked for.
    #[serde(default)]
    pub http: Option<Field<HttpSpec>>,
    /// What a flow does: `opened`, `closed`, `idle`; or TCP flags.
    #[serde(default)]
    pub flow: Option<Field<FlowTermSpec>>,
    /// `first-packet`: the first packet of a UDP flow.
    #[serde(default)]
    pub udp: Option<Field<UdpTerm>>,
    /// `started` or `ended`: the begin or end of a user's session with the application.
    #[serde(default)]
    pub session: Option<Field<SessionTerm>>,
    /// A DNS message.
    #[serde(default)]
    pub dns: Option<Field<DnsSpec>>,
    /// A TLS ClientHello.
    #[serde(default)]
    pub tls: Option<Field<TlsSpec>>,
    /// The ClientHello of a QUIC connection.
    #[serde(default)]
    pub quic: Option<Field<QuicSpec>>,
    /// An MQTT control packet.
    #[serde(default)]
    pub mqtt: Option<Field<MqttSpec>>,
    /// A CoAP message.
    #[serde(default)]
    pub coap: Option<Field<CoapSpec>>,
    /// The start of a packet's payload.
    #[serde(default)]
    pub payload: Values<PayloadSpec>,
    /// The GTP-U tunnel, on N3.
    #[serde(default)]
    pub gtpu: Option<Field<GtpuSpec>>,
    /// None of these may hold.
    #[serde(default)]
    pub not: Values<NotSpec>,
    /// How many matches in which time make the event.
    #[serde(default)]
    pub rate: Option<Field<RateSpec>>,
}

/// What must not be so: all of it together.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
#[schemars(extend("minProperties" = 1))]
pub struct NotSpec {
    /// As in `match`.
    #[serde(default)]
    pub http: Option<Field<HttpSpec>>,
    /// Only `tcpFlags`.
    #[serde(default)]
    pub flow: Option<Field<FlowTermSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub dns: Option<Field<DnsSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub tls: Option<Field<TlsSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub quic: Option<Field<QuicSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub mqtt: Option<Field<MqttSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub coap: Option<Field<CoapSpec>>,
    /// As in `match`.
    #[serde(default)]
    pub payload: Values<PayloadSpec>,
    /// As in `match`.
    #[serde(default)]
    pub gtpu: Option<Field<GtpuSpec>>,
}

/// Which HTTP requests; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct HttpSpec {
    /// Methods; every method if left out.
    #[serde(default)]
    pub method: Values<Method>,
    /// The request's host, without its port.
    #[serde(default)]
    pub host: Values<NamePattern>,
    /// Exactly this path, the query not counted.
    #[serde(default)]
    pub path: Values<UrlPath>,
    /// Paths that begin with this.
    #[serde(default)]
    pub path_prefix: Values<UrlPath>,
    /// Paths by glob.
    #[serde(default)]
    pub path_glob: Values<PathGlob>,
    /// Paths by regular expression.
    #[serde(default)]
    pub path_regex: Values<PathRegex>,
    /// Query parameters, all of them.
    #[serde(default)]
    pub query: Option<Field<Keyed<OneOrMany<Wildcard>>>>,
    /// Request header fields, all of them.
    #[serde(default)]
    pub headers: Option<Field<Keyed<OneOrMany<Wildcard>>>>,
    /// The status of the response; the rule then fires on the response.
    #[serde(default)]
    pub status: Values<HttpStatus>,
}

/// Events of a flow in short, or in full.
pub type FlowTermSpec = WordOrMap<OneOrMany<FlowEventKind>, FlowSpec>;

/// What a flow does.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct FlowSpec {
    /// `opened`, `closed` or `idle`; any packet with `tcpFlags` if left out.
    #[serde(default)]
    pub event: Values<FlowEventKind>,
    /// With `idle`: silent for this long; 60s if left out.
    #[serde(default)]
    pub after: Option<Field<Period>>,
    /// TCP flags of the packet.
    #[serde(default)]
    pub tcp_flags: Values<TcpFlags>,
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

/// Which DNS messages; all queries if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct DnsSpec {
    /// Names asked for.
    #[serde(default)]
    pub name: Values<NamePattern>,
    /// Record types asked for.
    #[serde(default)]
    pub qtype: Values<DnsType>,
    /// `query` or `response`; `query` if left out, but `response` with `rcode`.
    #[serde(default)]
    pub message: Option<Field<DnsDirection>>,
    /// Response codes.
    #[serde(default)]
    pub rcode: Values<DnsRcode>,
}

/// Which TLS ClientHellos; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct TlsSpec {
    /// Server names.
    #[serde(default)]
    pub sni: Values<NamePattern>,
    /// Application protocols offered.
    #[serde(default)]
    pub alpn: Values<AlpnName>,
    /// The highest version offered.
    #[serde(default)]
    pub version: Values<TlsVersion>,
    /// JA4 fingerprints.
    #[serde(default)]
    pub ja4: Values<Wildcard>,
    /// Whether there is an Encrypted Client Hello (then `sni` is the outer name).
    #[serde(default)]
    pub ech: Option<Field<bool>>,
}

/// Which QUIC connections; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct QuicSpec {
    /// Server names.
    #[serde(default)]
    pub sni: Values<NamePattern>,
    /// Application protocols offered.
    #[serde(default)]
    pub alpn: Values<AlpnName>,
    /// QUIC versions.
    #[serde(default)]
    pub version: Values<QuicVersion>,
    /// JA4 fingerprints.
    #[serde(default)]
    pub ja4: Values<Wildcard>,
    /// Whether there is an Encrypted Client Hello (then `sni` is the outer name).
    #[serde(default)]
    pub ech: Option<Field<bool>>,
}

/// Which MQTT control packets; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct MqttSpec {
    /// Control packet types.
    #[serde(default)]
    pub r#type: Values<MqttType>,
    /// Topic filters.
    #[serde(default)]
    pub topic: Values<TopicFilter>,
    /// Client identifiers.
    #[serde(default)]
    pub clientid: Values<Wildcard>,
    /// QoS of a PUBLISH.
    #[serde(default)]
    pub qos: Values<MqttQos>,
}

/// Which CoAP messages; all if empty.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct CoapSpec {
    /// Methods and response codes.
    #[serde(default)]
    pub code: Values<CoapCode>,
    /// Exactly this path.
    #[serde(default)]
    pub uri_path: Values<UrlPath>,
    /// Paths that begin with this.
    #[serde(default)]
    pub uri_path_prefix: Values<UrlPath>,
    /// Paths by glob.
    #[serde(default)]
    pub uri_path_glob: Values<PathGlob>,
    /// Paths by regular expression.
    #[serde(default)]
    pub uri_path_regex: Values<PathRegex>,
    /// Uri-Query options.
    #[serde(default)]
    pub uri_query: Values<Wildcard>,
    /// Whether there is an Observe option, or its value.
    #[serde(default)]
    pub observe: Option<Field<CoapObserve>>,
    /// Message types.
    #[serde(default)]
    pub r#type: Values<CoapType>,
}

/// Bytes at a place, or several pieces that must all be there.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PayloadSpec {
    /// Pieces that must all be there.
    #[serde(default)]
    pub all: Option<Field<Vec<Field<PieceSpec>>>>,
    /// The bytes in hexadecimal.
    #[serde(default)]
    pub hex: Option<Field<HexBytes>>,
    /// The bytes as text.
    #[serde(default)]
    pub text: Option<Field<String>>,
    /// With `hex`: which bits count.
    #[serde(default)]
    pub mask: Option<Field<HexBytes>>,
    /// This many bytes from the payload's start; 0 if left out.
    #[serde(default)]
    pub at: Option<Field<u64>>,
    /// Anywhere within this many bytes from the payload's start.
    #[serde(default)]
    pub within: Option<Field<u64>>,
}

/// Bytes at a place.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct PieceSpec {
    /// The bytes in hexadecimal.
    #[serde(default)]
    pub hex: Option<Field<HexBytes>>,
    /// The bytes as text.
    #[serde(default)]
    pub text: Option<Field<String>>,
    /// With `hex`: which bits count.
    #[serde(default)]
    pub mask: Option<Field<HexBytes>>,
    /// This many bytes from the payload's start; 0 if left out.
    #[serde(default)]
    pub at: Option<Field<u64>>,
    /// Anywhere within this many bytes from the payload's start.
    #[serde(default)]
    pub within: Option<Field<u64>>,
}

/// Which GTP-U tunnels.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct GtpuSpec {
    /// Tunnel endpoint identifiers.
    #[serde(default)]
    pub teid: Values<Teid>,
    /// QoS flow identifiers.
    #[serde(default)]
    pub qfi: Values<Qfi>,
    /// Message types.
    #[serde(default)]
    pub message_type: Values<GtpuMessageType>,
}

/// How many matches in which time make the event; exactly one of `packets`, `bytes`, `flows`.
#[derive(Debug, Deserialize, JsonSchema)]
#[serde(rename_all = "camelCase", deny_unknown_fields)]
pub struct RateSpec {
    /// At least so many matches.
    #[serde(default)]
    pub packets: Option<Field<u64>>,
    /// At least so many bytes of packets that match (of flows, with `flow: closed` or `idle`).
    #[serde(default)]
    pub bytes: Option<Field<ByteSize>>,
    /// Matches in at least so many different flows.
    #[serde(default)]
    pub flows: Option<Field<u64>>,
    /// In this time.
    pub within: Field<Period>,
}
