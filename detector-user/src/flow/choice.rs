//! Which protocol a stream speaks: by its port, where ports say it, and by its first bytes.

use super::{Endpoint, Wanted};
use crate::l7::{dns, h2, http1, mqtt, proxy, tls};

/// A protocol over TCP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Protocol {
    Http1,
    /// HTTP/2 in clear, what a client sends.
    Http2Client,
    /// HTTP/2 in clear, what a server sends.
    Http2Server,
    Tls,
    Dns,
    Mqtt,
    Coap,
    /// A load balancer's PROXY header; another protocol follows.
    Proxy,
}

/// What the first bytes say.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Choice {
    Is(Protocol),
    /// Too few bytes to tell.
    Wait,
    Unknown,
}

/// The protocol that IANA has for a port of these ends, the lower port first.
pub(super) fn expected(ends: [Endpoint; 2]) -> Option<Protocol> {
    let [a, b] = ends.map(|end| end.port);
    of_port(a.min(b)).or_else(|| of_port(a.max(b)))
}

const fn of_port(port: u16) -> Option<Protocol> {
    match port {
        // 5353: mDNS is over UDP; over TCP it is DNS to a resolver of one's own.
        53 | 5353 => Some(Protocol::Dns),
        80 | 1900 | 2710 | 2869 | 3128 | 3132 | 5985 | 8080 | 8088 | 11371 => Some(Protocol::Http1),
        443 => Some(Protocol::Tls),
        1883 => Some(Protocol::Mqtt),
        5683 => Some(Protocol::Coap),
        _ => None,
    }
}

/// Chooses by the first bytes of a stream, or by what follows a gap in it; last by what somebody looks
/// for.
pub(super) fn choose(
    ends: [Endpoint; 2],
    http: &http1::Connection,
    wanted: Wanted,
    bytes: &[u8],
) -> Choice {
    match expected(ends) {
        Some(protocol @ (Protocol::Dns | Protocol::Mqtt | Protocol::Coap)) => {
            return Choice::Is(protocol);
        }
        Some(
            Protocol::Http1
            | Protocol::Http2Client
            | Protocol::Http2Server
            | Protocol::Tls
            | Protocol::Proxy,
        )
        | None => {}
    }
    if tls::looks_like(bytes) {
        return if bytes.len() < 5 { Choice::Wait } else { Choice::Is(Protocol::Tls) };
    }
    // The first byte nearly always tells them apart.
    let same = bytes.first().is_none_or(|first| *first == h2::PREFACE[0]);
    if same && (h2::PREFACE.starts_with(bytes) || bytes.starts_with(h2::PREFACE)) {
        let whole = bytes.len() >= h2::PREFACE.len();
        return if whole { Choice::Is(Protocol::Http2Client) } else { Choice::Wait };
    }
    if h2::looks_like_server(bytes) {
        return Choice::Is(Protocol::Http2Server);
    }
    if proxy::looks_like(bytes) {
        return Choice::Is(Protocol::Proxy);
    }
    if proxy::may_become(bytes) {
        return Choice::Wait;
    }
    match http.looks_like(bytes) {
        http1::Likeness::Yes => return Choice::Is(Protocol::Http1),
        http1::Likeness::Perhaps => return Choice::Wait,
        http1::Likeness::No => {}
    }
    if mqtt::looks_like(bytes) {
        return Choice::Is(Protocol::Mqtt);
    }
    match if wanted.dns { choose_dns(bytes) } else { Choice::Unknown } {
        Choice::Unknown if wanted.coap => Choice::Is(Protocol::Coap),
        choice => choice,
    }
}

/// Whether a stream is one of DNS messages, whose first may be cut anywhere.
fn choose_dns(bytes: &[u8]) -> Choice {
    if dns::looks_like_stream(bytes) {
        return Choice::Is(Protocol::Dns);
    }
    let Some((length, message)) = bytes.split_first_chunk() else { return Choice::Wait };
    let goes_on = message.len() < usize::from(u16::from_be_bytes(*length));
    let may_become = message.len() <= dns::HEADER || dns::looks_like(message);
    if goes_on && may_become { Choice::Wait } else { Choice::Unknown }
}
