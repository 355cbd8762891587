//! The fields a template can name: one table, from which the checks, the rendering and
//! `docs/rules.md` (by a test) come.

mod available;
mod message;
mod words;

use std::fmt;

use serde_json::Value;

pub use available::Available;
pub use words::{direction, protocol};

use self::{
    message::{coap, dns, mqtt, quic, request, tls},
    words::{ended, flow_event, hex, milliseconds, number, reason, text, timestamp},
};
use super::term::{
    CoapCode, CoapType, DnsType, MessageKind, MqttType, QuicVersion, RateOf, TlsVersion, coap_path,
    flag_names,
};
use crate::detection::Detection;

/// One row of the table.
pub struct Row {
    /// The name in templates.
    pub name: &'static str,
    /// Which rules can have it.
    pub available: Available,
    /// What it is, as in `docs/rules.md`.
    pub what: &'static str,
    /// What was seen; `None` if it was not.
    value: fn(&Detection) -> Option<Value>,
}

const DNS: Available = Available::Message(MessageKind::Dns);
const HTTP: Available = Available::Message(MessageKind::Http);
const TLS: Available = Available::Message(MessageKind::Tls);
const QUIC: Available = Available::Message(MessageKind::Quic);
const MQTT: Available = Available::Message(MessageKind::Mqtt);
const COAP: Available = Available::Message(MessageKind::Coap);

/// Every field.
#[rustfmt::skip]
pub static FIELDS: [Row; 59] = [
    Row { name: "ue.ip", available: Available::Always, what: "the user's address", value: |seen| text(&seen.flow.ue_ip.to_string()) },
    Row { name: "ue.port", available: Available::Packet, what: "the user's port (number)", value: |seen| number(seen.flow.ue_port) },
    Row { name: "app.ip", available: Available::Always, what: "the application's address", value: |seen| text(&seen.flow.app_ip.to_string()) },
    Row { name: "app.port", available: Available::Always, what: "the application's port (number)", value: |seen| number(seen.flow.app_port) },
    Row { name: "application", available: Available::Always, what: "the application's name", value: |seen| text(&seen.rule.application.name) },
    Row { name: "rule", available: Available::Always, what: "the rule's name", value: |seen| text(&seen.rule.name) },
    Row { name: "device", available: Available::Always, what: "the network device that saw it", value: |seen| text(&seen.device) },
    Row { name: "protocol", available: Available::Always, what: "`tcp` or `udp`", value: |seen| text(protocol(seen.flow.protocol)) },
    Row { name: "direction", available: Available::Packet, what: "`uplink` or `downlink`", value: |seen| text(direction(seen.flow.direction)) },
    Row { name: "time", available: Available::Always, what: "when the packet passed (RFC 3339, UTC)", value: |seen| text(&timestamp(seen.time)) },
    Row { name: "http.method", available: HTTP, what: "the request's method", value: |seen| text(&request(seen)?.method) },
    Row { name: "http.path", available: HTTP, what: "the request's path, without the query", value: |seen| text(request(seen)?.path()) },
    Row { name: "http.query", available: HTTP, what: "what stands after `?`; absent without one", value: |seen| text(request(seen)?.query()?) },
    Row { name: "http.host", available: HTTP, what: "the Host header; absent if it lies beyond the capture", value: |seen| text(request(seen)?.authority()?) },
    Row { name: "http.user_agent", available: HTTP, what: "the User-Agent header; absent if it lies beyond the capture", value: |seen| text(request(seen)?.header("user-agent")?) },
    Row { name: "http.status", available: Available::HttpStatus, what: "the response's status (number)", value: |seen| number(message::response(seen)?.status) },
    Row { name: "dns.name", available: DNS, what: "the name asked for: the one that matched, else the first", value: |seen| text(&message::question(seen)?.name) },
    Row { name: "dns.qtype", available: DNS, what: "the type asked for, e.g. `AAAA`", value: |seen| text(&DnsType(message::question(seen)?.qtype).text()) },
    Row { name: "dns.message", available: DNS, what: "`query` or `response`", value: |seen| text(message::dns_word(dns(seen)?)) },
    Row { name: "dns.rcode", available: DNS, what: "the response code, e.g. `NXDOMAIN`; absent in queries", value: |seen| text(&message::rcode(dns(seen)?)?) },
    Row { name: "tls.sni", available: TLS, what: "the server name; absent without one", value: |seen| text(tls(seen)?.sni.as_ref()?) },
    Row { name: "tls.alpn", available: TLS, what: "the application protocols offered (list)", value: |seen| Some(tls(seen)?.alpn.clone().into()) },
    Row { name: "tls.version", available: TLS, what: "the highest version offered, e.g. `1.3`", value: |seen| text(&TlsVersion(tls(seen)?.version).text()) },
    Row { name: "tls.ja4", available: TLS, what: "the JA4 fingerprint; absent if the hello is damaged", value: |seen| text(tls(seen)?.ja4.as_ref()?) },
    Row { name: "tls.ech", available: TLS, what: "whether there is an Encrypted Client Hello (true or false)", value: |seen| Some(tls(seen)?.ech.into()) },
    Row { name: "quic.sni", available: QUIC, what: "the server name; absent without one", value: |seen| text(quic(seen)?.hello.sni.as_ref()?) },
    Row { name: "quic.alpn", available: QUIC, what: "the application protocols offered (list)", value: |seen| Some(quic(seen)?.hello.alpn.clone().into()) },
    Row { name: "quic.version", available: QUIC, what: "the QUIC version, e.g. `1`", value: |seen| text(&QuicVersion(quic(seen)?.version).text()) },
    Row { name: "quic.ja4", available: QUIC, what: "the JA4 fingerprint; absent if the hello is damaged", value: |seen| text(quic(seen)?.hello.ja4.as_ref()?) },
    Row { name: "quic.ech", available: QUIC, what: "whether there is an Encrypted Client Hello (true or false)", value: |seen| Some(quic(seen)?.hello.ech.into()) },
    Row { name: "mqtt.type", available: MQTT, what: "the control packet type, e.g. `PUBLISH`", value: |seen| text(&MqttType(mqtt(seen)?.kind).text()) },
    Row { name: "mqtt.topic", available: MQTT, what: "the topic, or the first topic filter; absent without one", value: |seen| text(mqtt(seen)?.topics.first()?) },
    Row { name: "mqtt.clientid", available: MQTT, what: "the client id; absent if the CONNECT was not seen", value: |seen| text(mqtt(seen)?.client_id.as_ref()?) },
    Row { name: "mqtt.qos", available: MQTT, what: "the QoS of a PUBLISH (number)", value: |seen| number(mqtt(seen)?.qos?) },
    Row { name: "coap.code", available: COAP, what: "the method or response code, e.g. `GET` or `2.05`", value: |seen| text(&CoapCode::Code(coap(seen)?.code).text()) },
    Row { name: "coap.path", available: COAP, what: "the Uri-Path, in responses of the request that was answered; absent if that was not seen", value: |seen| text(coap_path(coap(seen)?)?) },
    Row { name: "coap.query", available: COAP, what: "the Uri-Query options, joined by `&`; absent without one", value: |seen| text(&message::coap_query(coap(seen)?)?) },
    Row { name: "coap.observe", available: COAP, what: "the Observe option (number); absent without one", value: |seen| number(coap(seen)?.observe?) },
    Row { name: "coap.type", available: COAP, what: "`CON`, `NON`, `ACK` or `RST`; absent over TCP", value: |seen| text(&CoapType(coap(seen)?.kind?).text()) },
    Row { name: "flow.event", available: Available::Flow, what: "`opened`, `closed` or `idle`", value: |seen| text(flow_event(seen)?) },
    Row { name: "flow.duration_ms", available: Available::FlowOver, what: "milliseconds from first to last packet (number)", value: |seen| number(milliseconds(seen.evidence.totals()?.duration)) },
    Row { name: "flow.packets", available: Available::FlowOver, what: "packets, both directions (number)", value: |seen| number(seen.evidence.totals()?.packets) },
    Row { name: "flow.bytes", available: Available::FlowOver, what: "bytes at the hook, both directions (number)", value: |seen| number(seen.evidence.totals()?.bytes) },
    Row { name: "flow.tcp_flags", available: Available::TcpFlags, what: "the packet's flags, e.g. `SYN,ACK`", value: |seen| text(&flag_names(seen.evidence.tcp_flags?)) },
    Row { name: "payload.hex", available: Available::Payload, what: "the payload as far as it was captured, in hexadecimal", value: |seen| text(&hex(&seen.evidence.payload)) },
    Row { name: "rate.packets", available: Available::Rate(RateOf::Packets), what: "matches in the window (number)", value: |seen| number(seen.evidence.rate?) },
    Row { name: "rate.bytes", available: Available::Rate(RateOf::Bytes), what: "bytes in the window (number)", value: |seen| number(seen.evidence.rate?) },
    Row { name: "rate.flows", available: Available::Rate(RateOf::Flows), what: "different flows in the window (number)", value: |seen| number(seen.evidence.rate?) },
    Row { name: "session.id", available: Available::Always, what: "the session's id; absent outside a session", value: |seen| text(&seen.session.as_ref()?.id) },
    Row { name: "session.started", available: Available::Always, what: "when the session began (RFC 3339, UTC); absent outside a session", value: |seen| text(&timestamp(seen.session.as_ref()?.started)) },
    Row { name: "session.duration_ms", available: Available::SessionEnded, what: "milliseconds from first to last packet (number)", value: |seen| number(milliseconds(ended(seen)?.duration)) },
    Row { name: "session.packets", available: Available::SessionEnded, what: "packets, both directions (number)", value: |seen| number(ended(seen)?.packets) },
    Row { name: "session.bytes", available: Available::SessionEnded, what: "bytes at the hook, both directions (number)", value: |seen| number(ended(seen)?.bytes) },
    Row { name: "session.detections", available: Available::SessionEnded, what: "detections in the session (number)", value: |seen| number(ended(seen)?.detections) },
    Row { name: "session.reason", available: Available::SessionEnded, what: "`idle`, `closed`, `evicted` or `stopped`", value: |seen| text(reason(ended(seen)?.reason)) },
    Row { name: "gtp.teid", available: Available::Always, what: "the GTP-U tunnel (number); absent outside N3", value: |seen| number(seen.tunnel?.teid) },
    Row { name: "gtp.qfi", available: Available::Always, what: "the QoS flow (number); absent outside N3", value: |seen| number(seen.tunnel?.qfi?) },
    Row { name: "gtp.message_type", available: Available::Always, what: "the GTP-U message type (number), 255 for a user's packet; absent outside N3", value: |seen| number(seen.tunnel?.message_type) },
    Row { name: "vlan", available: Available::Always, what: "the outermost VLAN id (number); absent without a tag", value: |seen| number(seen.vlan?) },
];

/// What stands before a header field's name in a template: `{http.header.content-type}`.
pub const HEADER: &str = "http.header.";
/// Where a rule can have header fields.
pub const HEADER_AVAILABLE: Available = HTTP;

/// The request's first header field of that name.
pub fn header(seen: &Detection, name: &str) -> Option<Value> {
    text(request(seen)?.header(name)?)
}

/// Something that was seen, by the name templates use.
#[derive(Clone, Copy)]
pub struct Field(&'static Row);

impl Field {
    /// The field of that name.
    pub fn by_name(name: &str) -> Option<Self> {
        FIELDS.iter().find(|row| row.name == name).map(Self)
    }

    /// `ue.ip`.
    pub fn ue_ip() -> Self {
        Self(&FIELDS[0])
    }

    /// Every field, in the order of the table.
    pub fn all() -> impl Iterator<Item = Self> {
        FIELDS.iter().map(Self)
    }

    /// Its name in templates.
    pub fn name(self) -> &'static str {
        self.0.name
    }

    /// Which rules can have it.
    pub fn available(self) -> Available {
        self.0.available
    }

    /// What was seen; `None` if it was not.
    pub fn value(self, seen: &Detection) -> Option<Value> {
        self.available().with(&seen.rule.terms).then(|| (self.0.value)(seen)).flatten()
    }
}

impl PartialEq for Field {
    fn eq(&self, other: &Self) -> bool {
        self.name() == other.name()
    }
}

impl fmt::Debug for Field {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Field({})", self.name())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_are_unique_and_the_first_is_the_ue() {
        for (i, row) in FIELDS.iter().enumerate() {
            let found = FIELDS.iter().position(|other| other.name == row.name);
            assert_eq!(found, Some(i), "{}", row.name);
        }
        assert_eq!(Field::ue_ip().name(), "ue.ip");
    }

    #[test]
    fn table_is_the_one_in_the_docs() {
        let docs = include_str!("../../../../docs/rules.md");
        let rows: Vec<&str> = docs
            .lines()
            .filter(|line| line.starts_with("| `{") && !line.contains("{http.header.NAME}"))
            .collect();
        let row = |row: &Row| {
            format!("| `{{{}}}` | {} | {} |", row.name, row.available.words(), row.what)
        };
        assert_eq!(rows, FIELDS.iter().map(row).collect::<Vec<_>>());
        assert!(docs.contains("| `{http.header.NAME}` |"));
    }
}
