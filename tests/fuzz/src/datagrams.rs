//! Readers of protocols over datagrams; those that also have a stream are asked to read it in
//! pieces.

use detector_user::l7::{coap, dns, quic};

use super::{input, streams};

/// A message, and a stream of messages.
pub(crate) fn dns(bytes: &[u8]) {
    let _ = dns::looks_like(bytes);
    let _ = dns::message(bytes);
    streams::any_split(bytes, || {
        let mut stream = dns::Stream;
        move |bytes: &[u8]| stream.step(bytes)
    });
}

/// Datagrams of one flow.
pub(crate) fn quic(bytes: &[u8]) {
    let mut initials = quic::Initials::default();
    for datagram in input::pieces(bytes) {
        let _ = quic::looks_like(datagram);
        let facts = initials.datagram(datagram);
        assert!(facts.len() <= datagram.len(), "more hellos than bytes");
    }
}

/// Datagrams of one flow, and a stream of messages.
pub(crate) fn coap(bytes: &[u8]) {
    let mut exchanges = coap::Exchanges::default();
    for datagram in input::pieces(bytes) {
        let _ = coap::looks_like(datagram);
        let _ = exchanges.datagram(datagram);
    }
    streams::any_split(bytes, || {
        let mut exchanges = coap::Exchanges::default();
        move |bytes: &[u8]| exchanges.step(bytes)
    });
}
