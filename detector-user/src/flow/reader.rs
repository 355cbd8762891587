//! The reader of the protocol that one direction of a connection speaks.

use super::{choice::Protocol, connection::Shared};
use crate::l7::{Fact, Step, Way, dns, h2, http1, proxy, tls};

/// What reads the bytes.
#[derive(Default)]
pub(super) enum Reader {
    /// Not known yet.
    #[default]
    Undecided,
    Http1(http1::Reader),
    Http2(Box<h2::Reader>),
    Tls(Box<tls::Records>),
    Dns(dns::Stream),
    Mqtt,
    Coap,
    Proxy(proxy::Header),
}

impl Reader {
    pub(super) fn of(protocol: Protocol) -> Self {
        match protocol {
            Protocol::Http1 => Self::Http1(http1::Reader::default()),
            Protocol::Http2Client => Self::Http2(Box::new(h2::Reader::client())),
            Protocol::Http2Server => Self::Http2(Box::new(h2::Reader::server())),
            Protocol::Tls => Self::Tls(Box::default()),
            Protocol::Dns => Self::Dns(dns::Stream),
            Protocol::Mqtt => Self::Mqtt,
            Protocol::Coap => Self::Coap,
            Protocol::Proxy => Self::Proxy(proxy::Header::default()),
        }
    }

    pub(super) fn step(&mut self, shared: &mut Shared, way: Way, bytes: &[u8]) -> Step {
        match self {
            Self::Undecided => Step::Not,
            Self::Http1(reader) => reader.step(shared.http_mut(), bytes),
            Self::Http2(reader) => reader.step(bytes),
            Self::Tls(records) => records.step(bytes),
            Self::Dns(stream) => stream.step(bytes),
            Self::Mqtt => shared.mqtt().step(way, bytes),
            Self::Coap => shared.coap().step(bytes),
            Self::Proxy(header) => header.step(bytes),
        }
    }

    /// Ends the stream where bytes were not captured: what the message that has begun says so far.
    pub(super) fn cut(&mut self, shared: &mut Shared, bytes: &[u8]) -> Option<Fact> {
        match self {
            Self::Http1(reader) => reader.cut(shared.http_mut(), bytes),
            Self::Undecided => http1::Reader::default().cut(shared.http_mut(), bytes),
            Self::Tls(records) => records.cut(),
            Self::Http2(_) | Self::Dns(_) | Self::Mqtt | Self::Coap | Self::Proxy(_) => None,
        }
    }

    /// Bytes that it keeps for messages to come.
    pub(super) fn kept(&self) -> usize {
        match self {
            Self::Http2(reader) => reader.kept(),
            Self::Undecided
            | Self::Http1(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Mqtt
            | Self::Coap
            | Self::Proxy(_) => 0,
        }
    }

    /// Bytes that it keeps of the message that goes on.
    pub(super) fn waiting(&self) -> usize {
        match self {
            Self::Tls(records) => records.waiting(),
            Self::Undecided
            | Self::Http1(_)
            | Self::Http2(_)
            | Self::Dns(_)
            | Self::Mqtt
            | Self::Coap
            | Self::Proxy(_) => 0,
        }
    }

    /// Bytes of a body that come next, where nobody will see them. Only HTTP/1 has such.
    pub(super) fn take_body(&mut self) -> u64 {
        if let Self::Http1(reader) = self { reader.take_body() } else { 0 }
    }

    /// Whether a body goes on whose end is not known yet, as in HTTP/1 only.
    pub(super) fn in_body(&self) -> bool {
        matches!(self, Self::Http1(reader) if reader.in_body())
    }

    /// Whether another protocol follows.
    pub(super) fn switched(&self) -> bool {
        match self {
            Self::Http1(reader) => reader.switched(),
            Self::Proxy(header) => header.is_read(),
            Self::Undecided
            | Self::Http2(_)
            | Self::Tls(_)
            | Self::Dns(_)
            | Self::Mqtt
            | Self::Coap => false,
        }
    }
}
