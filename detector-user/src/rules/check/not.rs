//! What must not be so.

use super::{
    flow::{flow, gtpu},
    message::{self, Messages},
    payload, within,
};
use crate::{
    rules::{
        raw::{MatchSpec, NotSpec},
        term::{Excluded, MessageTerm, Terms},
    },
    yaml::{Field, OneOrMany, Problem},
};

pub(super) fn excluded(
    field: &Field<OneOrMany<NotSpec>>,
    problems: &mut Vec<Problem>,
) -> Vec<Excluded> {
    match field.get() {
        None => Vec::new(),
        Some(OneOrMany::One(spec)) => vec![exclude(field, spec, problems)],
        Some(OneOrMany::Many(list)) => {
            if list.is_empty() {
                problems
                    .push(field.problem("is empty; expected what must not be, or leave it out"));
            }
            let items = list.iter().filter_map(|item| Some((item, item.get()?)));
            items.map(|(item, spec)| exclude(item, spec, problems)).collect()
        }
    }
}

fn exclude<T>(field: &Field<T>, spec: &NotSpec, problems: &mut Vec<Problem>) -> Excluded {
    let messages = Messages {
        dns: &spec.dns,
        http: &spec.http,
        tls: &spec.tls,
        quic: &spec.quic,
        mqtt: &spec.mqtt,
        coap: &spec.coap,
    };
    let flow_term = spec.flow.as_ref().and_then(|field| flow(field, problems));
    if let (Some(field), Some(flow)) = (&spec.flow, &flow_term)
        && !flow.events.is_empty()
    {
        problems.push(field.problem("names an event, which is there or not; expected tcpFlags"));
    }
    let mut message = message::check(field, &messages, problems);
    if let (Some(MessageTerm::Dns(dns)), Some(written)) = (&mut message, &spec.dns)
        && written.get().is_some_and(|written| written.message.is_none())
    {
        // Of whichever the rule matches.
        dns.message = None;
    }
    let excluded = Excluded {
        message,
        payload: spec.payload.as_ref().and_then(|field| payload::check(field, problems)),
        gtpu: spec.gtpu.as_ref().and_then(|field| Some(gtpu(field.get()?, problems))),
        tcp_flags: flow_term.map(|flow| flow.tcp_flags).unwrap_or_default(),
    };
    let written = spec.flow.is_some() || spec.payload.is_some() || spec.gtpu.is_some();
    if excluded.message.is_none() && !written && messages_empty(spec) {
        problems.push(field.problem("names nothing that must not be; leave it out"));
    }
    excluded
}

fn messages_empty(spec: &NotSpec) -> bool {
    let NotSpec { http, dns, tls, quic, mqtt, coap, flow: _, payload: _, gtpu: _ } = spec;
    http.is_none()
        && dns.is_none()
        && tls.is_none()
        && quic.is_none()
        && mqtt.is_none()
        && coap.is_none()
}

/// What is excluded is not what is asked for, and could be there.
pub(super) fn possible(spec: &MatchSpec, terms: &Terms, problems: &mut Vec<Problem>) {
    let Some(field) = &spec.not else { return };
    for excluded in &terms.not {
        let asked = terms.message.as_ref().map(MessageTerm::kind);
        let other = excluded.message.as_ref().map(MessageTerm::kind);
        if let Some(other) = other
            && Some(other) != asked
        {
            problems.push(field.problem(format!(
                "excludes \"{}\", which is never there: the rule does not match such messages; \
                 leave it out",
                other.word()
            )));
            continue;
        }
        if within::excluded(terms, excluded) {
            problems.push(field.problem(
                "can never match: all that the rule asks for is excluded; expected something \
                 narrower",
            ));
        }
    }
}
