//! Terms against evidence. Pure.

use crate::{
    detection::{Evidence, Moment, Tunnel},
    l7::fact::Fact,
    rules::term::{Excluded, FlowEventKind, FlowTerm, MessageTerm, Terms},
};

/// Whether what was seen is all that the terms ask for. A rate is not looked at: it is about many
/// matches. Session terms never match here: no packet tells of a session.
pub fn matches(terms: &Terms, seen: &Evidence, tunnel: Option<Tunnel>) -> bool {
    let Terms { session, udp_first: _, flow, message, payload, gtpu, not, rate: _ } = terms;
    session.is_none()
        && its_moment(terms, seen)
        && flow.as_ref().is_none_or(|flow| flags_match(flow, seen))
        && message.as_ref().is_none_or(|message| says(message, seen))
        && payload.as_ref().is_none_or(|payload| payload.matches(&seen.payload))
        && gtpu.as_ref().is_none_or(|gtpu| gtpu.matches(tunnel))
        && !not.iter().any(|excluded| holds(excluded, seen, tunnel))
}

/// Each rule is judged at one kind of moment, or a packet would fire it several times.
fn its_moment(terms: &Terms, seen: &Evidence) -> bool {
    let Terms { udp_first, flow, message, .. } = terms;
    let does = |kind| flow.as_ref().is_some_and(|flow| flow.events.contains(&kind));
    match &seen.moment {
        Moment::UdpFirst => *udp_first || terms.counts_flows(),
        Moment::Opened => does(FlowEventKind::Opened) || terms.counts_flows(),
        Moment::Closed(_) => does(FlowEventKind::Closed),
        Moment::Idle(_) => {
            does(FlowEventKind::Idle)
                && flow.as_ref().is_some_and(|flow| flow.idle == seen.silent_for)
        }
        Moment::Message(_) => message.is_some() && flow.is_none() && !udp_first,
        Moment::Packet => {
            message.is_none()
                && !udp_first
                && !terms.is_rate_alone()
                && flow.as_ref().is_none_or(|flow| flow.events.is_empty())
        }
        Moment::Session => false,
    }
}

fn flags_match(flow: &FlowTerm, seen: &Evidence) -> bool {
    flow.tcp_flags.is_empty()
        || seen.tcp_flags.is_some_and(|flags| flow.tcp_flags.iter().any(|f| f.matches(flags)))
}

/// Whether the message (of a flow that is over: its ClientHello) is such.
fn says(wanted: &MessageTerm, seen: &Evidence) -> bool {
    match (wanted, seen.message()) {
        (MessageTerm::Dns(term), Some(Fact::Dns(message))) => term.matches(message),
        (MessageTerm::Http(term), Some(Fact::HttpRequest(request))) => {
            !term.is_response() && term.matches_request(request)
        }
        (MessageTerm::Http(term), Some(Fact::HttpResponse(response))) => {
            term.is_response() && term.matches_response(response, seen.request.as_deref())
        }
        (MessageTerm::Tls(term), Some(Fact::Tls(hello))) => term.matches(hello),
        (MessageTerm::Quic(term), Some(Fact::Quic(hello))) => term.matches(hello),
        (MessageTerm::Mqtt(term), Some(Fact::Mqtt(packet))) => term.matches(packet),
        (MessageTerm::Coap(term), Some(Fact::Coap(message))) => term.matches(message),
        (
            MessageTerm::Dns(_)
            | MessageTerm::Http(_)
            | MessageTerm::Tls(_)
            | MessageTerm::Quic(_)
            | MessageTerm::Mqtt(_)
            | MessageTerm::Coap(_),
            Some(
                Fact::Dns(_)
                | Fact::HttpRequest(_)
                | Fact::HttpResponse(_)
                | Fact::Tls(_)
                | Fact::Quic(_)
                | Fact::Mqtt(_)
                | Fact::Coap(_),
            )
            | None,
        ) => false,
    }
}

/// Whether all of what is excluded is there.
fn holds(excluded: &Excluded, seen: &Evidence, tunnel: Option<Tunnel>) -> bool {
    let Excluded { message, payload, gtpu, tcp_flags } = excluded;
    message.as_ref().is_none_or(|message| said(message, seen))
        && payload.as_ref().is_none_or(|payload| payload.matches(&seen.payload))
        && gtpu.as_ref().is_none_or(|gtpu| gtpu.matches(tunnel))
        && (tcp_flags.is_empty()
            || seen.tcp_flags.is_some_and(|flags| tcp_flags.iter().any(|f| f.matches(flags))))
}

/// As [`says`], but what is excluded may also be the request that a response answers.
fn said(excluded: &MessageTerm, seen: &Evidence) -> bool {
    match (excluded, seen.message()) {
        (MessageTerm::Http(term), Some(Fact::HttpResponse(response))) => {
            term.matches_response(response, seen.request.as_deref())
        }
        (
            MessageTerm::Http(_)
            | MessageTerm::Dns(_)
            | MessageTerm::Tls(_)
            | MessageTerm::Quic(_)
            | MessageTerm::Mqtt(_)
            | MessageTerm::Coap(_),
            _,
        ) => says(excluded, seen),
    }
}
