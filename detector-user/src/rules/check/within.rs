//! Whether all that some terms match, others match as well, as far as that can be seen from how they
//! are written: a rule that excludes all it asks for, or that a final rule always outweighs, never
//! fires. `false` where it is not sure.

use crate::rules::term::{
    CoapCode, CoapTerm, DnsTerm, Excluded, FlowEventKind, FlowTerm, GtpuTerm, HelloTerm,
    HttpStatus, HttpTerm, MessageTerm, MqttTerm, NamePattern, PathPattern, PayloadTerm, QuicTerm,
    TcpFlags, Terms, TlsTerm, TopicFilter, Wildcard,
};

/// Whether these exclude all that the terms ask for.
pub(super) fn excluded(terms: &Terms, excluded: &Excluded) -> bool {
    let Excluded { message, payload, gtpu, tcp_flags } = excluded;
    optional(&terms.message, message, self::message)
        && optional(&terms.payload, payload, self::payload)
        && optional(&terms.gtpu, gtpu, self::gtpu)
        && list(&flags_of(terms), tcp_flags, flags)
}

/// Whether whatever the inner terms match, the outer ones match at the same moment.
pub(super) fn terms(inner: &Terms, outer: &Terms) -> bool {
    let Terms { session, udp_first, flow, message, payload, gtpu, not, rate } = outer;
    inner.session == *session
        && inner.udp_first == *udp_first
        && same_moments(inner.flow.as_ref(), flow.as_ref())
        && list(&flags_of(inner), flow.as_ref().map_or(&[], |flow| &flow.tcp_flags), flags)
        && side(inner) == side(outer)
        && optional(&inner.message, message, self::message)
        && optional(&inner.payload, payload, self::payload)
        && optional(&inner.gtpu, gtpu, self::gtpu)
        && not.iter().all(|excluded| inner.not.contains(excluded))
        && rate.is_none()
}

/// Which messages are judged: none, requests, responses.
fn side(terms: &Terms) -> (bool, bool) {
    (terms.message.is_some(), terms.http().is_some_and(HttpTerm::is_response))
}

fn same_moments(inner: Option<&FlowTerm>, outer: Option<&FlowTerm>) -> bool {
    match (inner, outer) {
        (None, None) => true,
        (Some(inner), Some(outer)) => {
            inner.events.is_empty() == outer.events.is_empty()
                && inner.events.iter().all(|event| outer.events.contains(event))
                && (!inner.events.contains(&FlowEventKind::Idle) || inner.idle == outer.idle)
        }
        (None, Some(_)) | (Some(_), None) => false,
    }
}

/// The flags of the packets that are asked for; empty is any.
fn flags_of(terms: &Terms) -> Vec<TcpFlags> {
    let Some(flow) = &terms.flow else { return Vec::new() };
    match flow.events.as_slice() {
        // SYN, and no ACK, FIN or RST.
        [FlowEventKind::Opened] if flow.tcp_flags.is_empty() => {
            vec![TcpFlags { set: 0b10, clear: 0b1_0101 }]
        }
        _ => flow.tcp_flags.clone(),
    }
}

fn flags(inner: &TcpFlags, outer: &TcpFlags) -> bool {
    inner.set & outer.set == outer.set && inner.clear & outer.clear == outer.clear
}

/// What is left out takes everything.
fn optional<T>(inner: &Option<T>, outer: &Option<T>, within: fn(&T, &T) -> bool) -> bool {
    match (inner, outer) {
        (_, None) => true,
        (Some(inner), Some(outer)) => within(inner, outer),
        (None, Some(_)) => false,
    }
}

/// Of a list one value is enough; an empty one takes everything.
fn list<T>(inner: &[T], outer: &[T], within: fn(&T, &T) -> bool) -> bool {
    outer.is_empty()
        || (!inner.is_empty()
            && inner.iter().all(|inner| outer.iter().any(|outer| within(inner, outer))))
}

fn same<T: PartialEq>(inner: &T, outer: &T) -> bool {
    inner == outer
}

fn message(inner: &MessageTerm, outer: &MessageTerm) -> bool {
    match (inner, outer) {
        (MessageTerm::Dns(inner), MessageTerm::Dns(outer)) => dns(inner, outer),
        (MessageTerm::Http(inner), MessageTerm::Http(outer)) => http(inner, outer),
        (MessageTerm::Tls(inner), MessageTerm::Tls(outer)) => tls(inner, outer),
        (MessageTerm::Quic(inner), MessageTerm::Quic(outer)) => quic(inner, outer),
        (MessageTerm::Mqtt(inner), MessageTerm::Mqtt(outer)) => mqtt(inner, outer),
        (MessageTerm::Coap(inner), MessageTerm::Coap(outer)) => coap(inner, outer),
        (
            MessageTerm::Dns(_)
            | MessageTerm::Http(_)
            | MessageTerm::Tls(_)
            | MessageTerm::Quic(_)
            | MessageTerm::Mqtt(_)
            | MessageTerm::Coap(_),
            _,
        ) => false,
    }
}

fn dns(inner: &DnsTerm, outer: &DnsTerm) -> bool {
    let DnsTerm { names, qtypes, message, rcodes } = outer;
    list(&inner.names, names, name)
        && list(&inner.qtypes, qtypes, same)
        && (message.is_none() || inner.message == *message)
        && list(&inner.rcodes, rcodes, same)
}

/// What excludes says may also be of the request that a response answers.
fn http(inner: &HttpTerm, outer: &HttpTerm) -> bool {
    let HttpTerm { methods, hosts, paths, query, headers, status } = outer;
    let keyed = |inner: &[(String, Vec<Wildcard>)],
                 outer: &[(String, Vec<Wildcard>)],
                 same_key: fn(&str, &str) -> bool| {
        outer.iter().all(|(key, values)| {
            let mut found = inner.iter().filter(|(other, _)| same_key(other, key));
            found.any(|(_, inner)| list(inner, values, wildcard))
        })
    };
    list(&inner.methods, methods, same)
        && list(&inner.hosts, hosts, name)
        && list(&inner.paths, paths, path)
        && keyed(&inner.query, query, |a, b| a == b)
        && keyed(&inner.headers, headers, |a, b| a.eq_ignore_ascii_case(b))
        && list(&inner.status, status, self::status)
}

fn status(inner: &HttpStatus, outer: &HttpStatus) -> bool {
    match (inner, outer) {
        (HttpStatus::Code(code), HttpStatus::Class(class)) => code / 100 == *class,
        (inner, outer) => inner == outer,
    }
}

fn tls(inner: &TlsTerm, outer: &TlsTerm) -> bool {
    hello(&inner.hello, &outer.hello) && list(&inner.versions, &outer.versions, same)
}

fn quic(inner: &QuicTerm, outer: &QuicTerm) -> bool {
    hello(&inner.hello, &outer.hello) && list(&inner.versions, &outer.versions, same)
}

fn hello(inner: &HelloTerm, outer: &HelloTerm) -> bool {
    let HelloTerm { sni, alpn, ja4, ech } = outer;
    list(&inner.sni, sni, name)
        && list(&inner.alpn, alpn, same)
        && list(&inner.ja4, ja4, wildcard)
        && (ech.is_none() || inner.ech == *ech)
}

fn mqtt(inner: &MqttTerm, outer: &MqttTerm) -> bool {
    let MqttTerm { types, topics, client_ids, qos } = outer;
    list(&inner.types, types, same)
        && list(&inner.topics, topics, topic)
        && list(&inner.client_ids, client_ids, wildcard)
        && list(&inner.qos, qos, same)
}

fn coap(inner: &CoapTerm, outer: &CoapTerm) -> bool {
    let CoapTerm { codes, paths, queries, observe, types } = outer;
    list(&inner.codes, codes, code)
        && list(&inner.paths, paths, path)
        && list(&inner.queries, queries, wildcard)
        && (observe.is_none() || inner.observe == *observe)
        && list(&inner.types, types, same)
}

fn code(inner: &CoapCode, outer: &CoapCode) -> bool {
    match (inner, outer) {
        (CoapCode::Code(code), CoapCode::Class(class)) => code >> 5 == *class,
        (inner, outer) => inner == outer,
    }
}

/// `*` takes names only where there is one: a message without a name is another matter.
fn name(inner: &NamePattern, outer: &NamePattern) -> bool {
    match (inner, outer) {
        (_, NamePattern::Any) => true,
        (NamePattern::Exact(name), _) => outer.matches(name),
        (NamePattern::Below(inner), NamePattern::Below(parent)) => {
            inner == parent || outer.matches(inner)
        }
        (NamePattern::Any | NamePattern::Below(_), _) => false,
    }
}

fn path(inner: &PathPattern, outer: &PathPattern) -> bool {
    match (inner, outer) {
        (PathPattern::Exact(path), outer) => outer.matches(path),
        (PathPattern::Prefix(inner), PathPattern::Prefix(outer)) => inner.starts_with(outer),
        (inner, outer) => inner == outer,
    }
}

fn topic(inner: &TopicFilter, outer: &TopicFilter) -> bool {
    inner == outer || (!inner.text().contains(['+', '#']) && outer.matches(inner.text()))
}

fn wildcard(inner: &Wildcard, outer: &Wildcard) -> bool {
    inner == outer || inner.exact().is_some_and(|text| outer.matches(text))
}

fn gtpu(inner: &GtpuTerm, outer: &GtpuTerm) -> bool {
    let GtpuTerm { teids, qfis, message_types } = outer;
    list(&inner.teids, teids, same)
        && list(&inner.qfis, qfis, same)
        && list(&inner.message_types, message_types, same)
}

/// Each alternative has all pieces of one that is excluded.
fn payload(inner: &PayloadTerm, outer: &PayloadTerm) -> bool {
    inner.any.iter().all(|inner| {
        let mut outer = outer.any.iter();
        outer.any(|outer| outer.all.iter().all(|piece| inner.all.contains(piece)))
    })
}

#[cfg(test)]
mod tests;
