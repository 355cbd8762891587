//! What must be seen: terms that can be seen together.

use std::time::Duration;

use super::{
    message::{self, Messages},
    payload,
    values::values,
};
use crate::{
    rules::{
        raw::{FlowTermSpec, GtpuSpec, MatchSpec, NotSpec, RateSpec, SessionTerm, UdpTerm},
        term::{
            Excluded, FlowEventKind, FlowTerm, GtpuMessageType, GtpuTerm, MessageKind, MessageTerm,
            Qfi, RateOf, RateTerm, SessionEvent, TcpFlags, Teid, Terms,
        },
    },
    yaml::{Field, OneOrMany, Period, Problem, WordOrMap},
};

const TERMS: &str = "at least one of http, flow, udp, session, dns, tls, quic, mqtt, coap, payload, \
                     or gtpu with a messageType";
const IDLE: Duration = Duration::from_secs(60);
const IDLE_LEAST: Duration = Duration::from_secs(1);
const IDLE_MOST: Duration = Duration::from_secs(3_600);
const RATE_LEAST: Duration = Duration::from_millis(100);
const RATE_MOST: Duration = Duration::from_secs(24 * 3_600);
/// Different flows are remembered one by one, for each user.
const RATE_FLOWS_MOST: u64 = 1_024;

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
        not: spec.not.as_ref().map_or_else(Vec::new, |field| excluded(field, problems)),
        rate: spec.rate.as_ref().and_then(|field| rate(field, problems)),
    };
    if problems.len() > before || unread(spec) {
        return None;
    }
    together(field, spec, &terms, problems);
    possible(spec, &terms, problems);
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

fn flow(field: &Field<FlowTermSpec>, problems: &mut Vec<Problem>) -> Option<FlowTerm> {
    let words = |kind: &FlowEventKind| kind.word().to_owned();
    let spec = match field.get()? {
        WordOrMap::Word(OneOrMany::One(event)) => {
            return Some(with_idle(vec![*event], None));
        }
        WordOrMap::Word(OneOrMany::Many(list)) => {
            let mut events = Vec::new();
            if list.is_empty() {
                problems.push(field.problem("is empty; expected opened, closed or idle"));
            }
            for (item, event) in list.iter().filter_map(|item| Some((item, *item.get()?))) {
                match events.contains(&event) {
                    true => {
                        problems.push(item.problem(format!("{} is listed twice", event.word())))
                    }
                    false => events.push(event),
                }
            }
            return Some(with_idle(events, None));
        }
        WordOrMap::Map(spec) => spec,
    };
    let events = values(spec.event.as_ref(), "event", problems, |event| *event, words);
    let tcp_flags =
        values(spec.tcp_flags.as_ref(), "combination", problems, |f: &TcpFlags| *f, |f| f.text());
    if spec.event.is_none() && spec.tcp_flags.is_none() {
        problems.push(field.problem("names nothing to see; expected event or tcpFlags"));
    }
    let idle = events.contains(&FlowEventKind::Idle);
    let after =
        spec.after.as_ref().and_then(|after| period(after, IDLE_LEAST, IDLE_MOST, problems));
    if let (Some(after), false) = (&spec.after, idle) {
        problems.push(after.problem("is only for event: idle; leave it out"));
    }
    if let (Some(flags), [FlowEventKind::Idle]) = (&spec.tcp_flags, events.as_slice()) {
        problems.push(flags.problem("can never match: a flow that is idle has no packet"));
    }
    let syn = TcpFlags { set: 0b10, clear: 0 };
    if let (Some(flags), [FlowEventKind::Opened]) = (&spec.tcp_flags, events.as_slice())
        && tcp_flags.iter().all(|f| f.clear & syn.set != 0 || f.set & 0b10101 != 0)
    {
        flags_never_open(flags, problems);
    }
    Some(FlowTerm { tcp_flags, ..with_idle(events, after) })
}

fn flags_never_open<T>(flags: &Field<T>, problems: &mut Vec<Problem>) {
    problems.push(flags.problem(
        "can never match: the packet that opens a connection has SYN, and no ACK, FIN or RST",
    ));
}

fn with_idle(events: Vec<FlowEventKind>, after: Option<Duration>) -> FlowTerm {
    let idle = events.contains(&FlowEventKind::Idle).then(|| after.unwrap_or(IDLE));
    FlowTerm { events, idle, tcp_flags: Vec::new() }
}

fn period(
    field: &Field<Period>,
    least: Duration,
    most: Duration,
    problems: &mut Vec<Problem>,
) -> Option<Duration> {
    let period = field.get()?;
    problems.extend(period.outside(least, most).map(|message| field.problem(message)));
    Some(period.0)
}

fn gtpu(spec: &GtpuSpec, problems: &mut Vec<Problem>) -> GtpuTerm {
    GtpuTerm {
        teids: values(spec.teid.as_ref(), "TEID", problems, |t: &Teid| *t, |t| t.0.to_string()),
        qfis: values(spec.qfi.as_ref(), "QFI", problems, |q: &Qfi| *q, |q| q.0.to_string()),
        message_types: values(
            spec.message_type.as_ref(),
            "message type",
            problems,
            |t: &GtpuMessageType| *t,
            |t| t.text(),
        ),
    }
}

fn rate(field: &Field<RateSpec>, problems: &mut Vec<Problem>) -> Option<RateTerm> {
    let spec = field.get()?;
    let number = |of, n: &Option<Field<u64>>| {
        n.as_ref().map(|field| (of, field.get().copied(), field.problem("")))
    };
    let bytes = spec.bytes.as_ref();
    let bytes = bytes.map(|f| (RateOf::Bytes, f.get().map(|size| size.0), f.problem("")));
    let counted =
        [number(RateOf::Packets, &spec.packets), bytes, number(RateOf::Flows, &spec.flows)];
    let counted: Vec<_> = counted.into_iter().flatten().collect();
    let [(of, at_least, place)] = counted.as_slice() else {
        problems.push(field.problem(format!(
            "counts {} things; expected exactly one of packets, bytes, flows",
            counted.len()
        )));
        return None;
    };
    let window = period(&spec.within, RATE_LEAST, RATE_MOST, problems);
    let at_least = (*at_least)?;
    let most = match of {
        RateOf::Flows => RATE_FLOWS_MOST,
        RateOf::Packets | RateOf::Bytes => u64::from(u32::MAX),
    };
    if !(2..=most).contains(&at_least) {
        let message = format!("{at_least} is out of range; expected 2 to {most}");
        problems.push(Problem { message, ..place.clone() });
    }
    Some(RateTerm { of: *of, at_least, window: window? })
}

fn excluded(field: &Field<OneOrMany<NotSpec>>, problems: &mut Vec<Problem>) -> Vec<Excluded> {
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

/// The moment a rule fires at is one, and the other terms can be seen at that moment.
fn together(
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
    if moments.is_empty() && spec.payload.is_none() && !control {
        let every = match (spec.gtpu.is_some(), spec.rate.is_some()) {
            (false, false) => "names nothing to see",
            (true, false) => "would fire on every packet of the tunnel",
            (_, true) => "does not say what to count",
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

/// What is excluded is not what is asked for, and could be there.
fn possible(spec: &MatchSpec, terms: &Terms, problems: &mut Vec<Problem>) {
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
        if covers(excluded, terms) {
            problems.push(field.problem(
                "can never match: all that the rule asks for is excluded; expected something \
                 narrower",
            ));
        }
    }
}

/// Whether everything that the terms match is excluded, as far as that can be seen at once: each
/// part is the same as in the terms, or asks for nothing.
fn covers(excluded: &Excluded, terms: &Terms) -> bool {
    let Excluded { message, payload, gtpu, tcp_flags } = excluded;
    let message = match message {
        None => true,
        same if *same == terms.message => true,
        Some(MessageTerm::Http(http)) => !http.asks_request() && !http.is_response(),
        Some(MessageTerm::Tls(tls)) => *tls == Default::default(),
        Some(MessageTerm::Quic(quic)) => *quic == Default::default(),
        Some(MessageTerm::Mqtt(mqtt)) => *mqtt == Default::default(),
        Some(MessageTerm::Coap(coap)) => *coap == Default::default(),
        Some(MessageTerm::Dns(dns)) => *dns == Default::default(),
    };
    let flags = terms.flow.as_ref().map_or(&[][..], |flow| &flow.tcp_flags);
    message
        && (payload.is_none() || *payload == terms.payload)
        && (gtpu.is_none() || *gtpu == terms.gtpu)
        && (tcp_flags.is_empty() || tcp_flags == flags)
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
    words.join(", ")
}
