//! What must be seen: terms that can be seen together.

use super::{
    flow::{flow, gtpu, rate},
    message::{self, Messages},
    not, payload, together,
};
use crate::{
    rules::{
        raw::{MatchSpec, SessionTerm, UdpTerm},
        term::{SessionEvent, Terms},
    },
    yaml::{Field, Problem},
};

pub(super) fn check(field: &Field<MatchSpec>, problems: &mut Vec<Problem>) -> Option<Terms> {
    let spec = field.get()?;
    let before = problems.len();
    let messages = Messages {
        dns: &spec.dns,
        http: &spec.http,
        tls: &spec.tls,
        quic: &spec.quic,
        mqtt: &spec.mqtt,
        coap: &spec.coap,
    };
    let message = message::check(field, &messages, problems);
    let session = spec.session.as_ref().and_then(Field::get).map(|term| match term {
        SessionTerm::Started => SessionEvent::Started,
        SessionTerm::Ended => SessionEvent::Ended,
    });
    let terms = Terms {
        session,
        udp_first: matches!(spec.udp.as_ref().and_then(Field::get), Some(UdpTerm::FirstPacket)),
        flow: spec.flow.as_ref().and_then(|flow_field| flow(flow_field, problems)),
        message,
        payload: spec.payload.as_ref().and_then(|field| payload::check(field, problems)),
        gtpu: spec.gtpu.as_ref().and_then(|field| Some(gtpu(field.get()?, problems))),
        not: spec.not.as_ref().map_or_else(Vec::new, |field| not::excluded(field, problems)),
        rate: spec.rate.as_ref().and_then(|field| rate(field, problems)),
    };
    if problems.len() > before || unread(spec) {
        return None;
    }
    together::check(field, spec, &terms, problems);
    not::possible(spec, &terms, problems);
    (problems.len() == before).then_some(terms)
}

/// Whether something in it was refused while it was read, so that little can be said of the rest.
fn unread(spec: &MatchSpec) -> bool {
    fn lost<T>(field: &Option<Field<T>>) -> bool {
        field.as_ref().is_some_and(|field| field.get().is_none())
    }
    lost(&spec.http)
        || lost(&spec.flow)
        || lost(&spec.udp)
        || lost(&spec.session)
        || lost(&spec.dns)
        || lost(&spec.tls)
        || lost(&spec.quic)
        || lost(&spec.mqtt)
        || lost(&spec.coap)
        || lost(&spec.payload)
        || lost(&spec.gtpu)
        || lost(&spec.not)
        || lost(&spec.rate)
}

/// The terms as they are written, for messages.
pub(super) fn in_words(terms: &Terms) -> String {
    let mut words = Vec::new();
    words.extend(terms.session.map(|event| match event {
        SessionEvent::Started => "session: started".to_owned(),
        SessionEvent::Ended => "session: ended".to_owned(),
    }));
    words.extend(terms.udp_first.then(|| "udp: first-packet".to_owned()));
    if let Some(flow) = &terms.flow {
        let events: Vec<&str> = flow.events.iter().map(|event| event.word()).collect();
        words.push(match events.as_slice() {
            [] => "flow: tcpFlags".to_owned(),
            [event] => format!("flow: {event}"),
            events => format!("flow: [{}]", events.join(", ")),
        });
    }
    words.extend(terms.message.as_ref().map(|message| message.kind().word().to_owned()));
    words.extend(terms.payload.as_ref().map(|_| "payload".to_owned()));
    words.extend(terms.gtpu.as_ref().map(|_| "gtpu".to_owned()));
    words.extend(terms.is_rate_alone().then(|| "rate".to_owned()));
    words.join(", ")
}
