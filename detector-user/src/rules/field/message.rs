//! What the message that was seen says.

use crate::{
    detection::Detection,
    l7::fact::{
        ClientHello, CoapMessage, DnsMessage, DnsQuestion, Fact, HttpRequest, HttpResponse,
        MqttPacket, QuicHello,
    },
    rules::term::{DnsRcode, MessageTerm},
};

macro_rules! fact {
    ($(#[$doc:meta])* $name:ident, $variant:ident, $type:ty) => {
        $(#[$doc])*
        pub(super) fn $name(seen: &Detection) -> Option<&$type> {
            if let Some(Fact::$variant(found)) = seen.evidence.message() { Some(found) } else { None }
        }
    };
}

fact!(dns, Dns, DnsMessage);
fact!(response, HttpResponse, HttpResponse);
fact!(tls, Tls, ClientHello);
fact!(quic, Quic, QuicHello);
fact!(mqtt, Mqtt, MqttPacket);
fact!(coap, Coap, CoapMessage);

pub(super) fn request(seen: &Detection) -> Option<&HttpRequest> {
    seen.evidence.http_request()
}

/// The question that the rule asks for, else the first.
pub(super) fn question(seen: &Detection) -> Option<&DnsQuestion> {
    let message = dns(seen)?;
    let asked = match &seen.rule.terms.message {
        Some(MessageTerm::Dns(term)) => message.questions.iter().find(|q| term.asks(q)),
        Some(
            MessageTerm::Http(_)
            | MessageTerm::Tls(_)
            | MessageTerm::Quic(_)
            | MessageTerm::Mqtt(_)
            | MessageTerm::Coap(_),
        )
        | None => None,
    };
    asked.or(message.questions.first())
}

pub(super) fn dns_word(message: &DnsMessage) -> &'static str {
    if message.response { "response" } else { "query" }
}

pub(super) fn rcode(message: &DnsMessage) -> Option<String> {
    message.response.then(|| DnsRcode(message.rcode).text())
}

pub(super) fn coap_query(message: &CoapMessage) -> Option<String> {
    (!message.query.is_empty()).then(|| message.query.join("&"))
}
