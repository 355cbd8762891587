//! Terms that can be seen at one moment.

use std::time::Duration;

use crate::{
    rules::{
        raw::MatchSpec,
        term::{FlowEventKind, GtpuTerm, MessageKind, Terms},
    },
    yaml::{Field, Problem},
};

const TERMS: &str = "at least one of http, flow, udp, session, dns, tls, quic, mqtt, coap, payload, \
                     or gtpu with a messageType, or a rate alone";

/// A shorter window of all that passes would have the kernel asked too often.
const SUM_LEAST: Duration = Duration::from_secs(1);

/// The moment a rule fires at is one, and the other terms can be seen at that moment.
pub(super) fn check(
    field: &Field<MatchSpec>,
    spec: &MatchSpec,
    terms: &Terms,
    problems: &mut Vec<Problem>,
) {
    let flow = terms.flow.is_some();
    let moments: Vec<&str> = [
        (terms.session.is_some(), "session"),
        (terms.udp_first, "udp"),
        (flow, "flow"),
        (terms.message.is_some() && !(flow && terms.flow_is_over()), message_word(terms)),
    ]
    .into_iter()
    .filter_map(|(there, word)| there.then_some(word))
    .collect();
    if moments.len() > 1 {
        problems.push(field.problem(format!(
            "can never match: {} are never seen in one moment; write one rule for each",
            moments.join(" and ")
        )));
        return;
    }
    let control = terms.gtpu.as_ref().is_some_and(GtpuTerm::is_control);
    if let (Some(field), true, false) = (&spec.gtpu, control, moments.is_empty()) {
        problems.push(field.problem(format!(
            "can never match beside {}: only a G-PDU carries a user's packet; expected messageType: \
             G-PDU, or gtpu alone",
            moments.join(" and ")
        )));
    }
    if moments.is_empty() && spec.payload.is_none() && !control && !terms.is_rate_alone() {
        let every = match (spec.gtpu.is_some(), spec.rate.is_some()) {
            (true, false) => "would fire on every packet of the tunnel",
            (true, true) => "would count every packet of the tunnel",
            (false, _) => "names nothing to see",
        };
        problems.push(
            field.problem(format!("{every}; expected {TERMS} (http: {{}} is every HTTP request)")),
        );
    }
    if terms.session.is_some() {
        let beside = beside_session(spec);
        if let Some(problem) = beside {
            problems.push(problem);
        }
    }
    if let (true, Some(message)) = (flow, &terms.message) {
        over_flow(field, terms, message.kind(), problems);
    }
    if flow && !terms.udp_first {
        no_payload(spec, terms, problems);
    }
    if let (Some(rate), Some(field)) = (terms.sum(), &spec.rate)
        && rate.window < SUM_LEAST
    {
        let expected = humantime::format_duration(SUM_LEAST);
        problems.push(field.problem(format!(
            "counts all that passes, which is looked at sixteen times in its window; expected within: \
             {expected} or longer, or another term beside it"
        )));
    }
}

fn message_word(terms: &Terms) -> &'static str {
    terms.message.as_ref().map_or("", |message| message.kind().word())
}

fn beside_session(spec: &MatchSpec) -> Option<Problem> {
    let message = "stands beside session, which has no packet of its own; leave it out";
    None.or_else(|| spec.payload.as_ref().map(|f| f.problem(message)))
        .or_else(|| spec.gtpu.as_ref().map(|f| f.problem(message)))
        .or_else(|| spec.not.as_ref().map(|f| f.problem(message)))
        .or_else(|| spec.rate.as_ref().map(|f| f.problem(message)))
}

/// A flow that is over is known by its ClientHello, and by nothing else it said.
fn over_flow(
    field: &Field<MatchSpec>,
    terms: &Terms,
    kind: MessageKind,
    problems: &mut Vec<Problem>,
) {
    let events = terms.flow.as_ref().map_or(&[][..], |flow| &flow.events);
    if !matches!(kind, MessageKind::Tls | MessageKind::Quic) {
        problems.push(field.problem(format!(
            "asks what \"{}\" said of a flow that is over; expected tls or quic beside flow",
            kind.word()
        )));
    } else if events.contains(&FlowEventKind::Opened) {
        problems.push(field.problem(
            "can never match: nothing was said when a connection opens; expected closed or idle \
             only",
        ));
    } else if kind == MessageKind::Quic && !events.contains(&FlowEventKind::Idle) {
        problems.push(field.problem(
            "can never match: a QUIC connection's flow is not seen to close; expected flow: idle",
        ));
    }
}

/// Flow events are about packets without payload, or without a packet.
fn no_payload(spec: &MatchSpec, terms: &Terms, problems: &mut Vec<Problem>) {
    let events = terms.flow.as_ref().map_or(&[][..], |flow| &flow.events);
    if let Some(payload) = &spec.payload
        && let Some(event) = events.first()
    {
        problems.push(payload.problem(format!(
            "can never match: there is no payload with flow: {}; leave it out",
            event.word()
        )));
    }
}
