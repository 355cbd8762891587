//! What packets and flows do, and how often.

use std::time::Duration;

use super::values::values;
use crate::{
    rules::{
        raw::{FlowTermSpec, GtpuSpec, RateSpec},
        term::{
            FlowEventKind, FlowTerm, GtpuMessageType, GtpuTerm, Qfi, RateOf, RateTerm, TcpFlags,
            Teid,
        },
    },
    yaml::{Field, OneOrMany, Period, Problem, WordOrMap},
};

const IDLE: Duration = Duration::from_secs(60);
const IDLE_LEAST: Duration = Duration::from_secs(1);
const IDLE_MOST: Duration = Duration::from_secs(3_600);
const RATE_LEAST: Duration = Duration::from_millis(100);
const RATE_MOST: Duration = Duration::from_secs(24 * 3_600);
/// Different flows are remembered one by one, for each user.
const RATE_FLOWS_MOST: u64 = 1_024;

pub(super) fn flow(field: &Field<FlowTermSpec>, problems: &mut Vec<Problem>) -> Option<FlowTerm> {
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

pub(super) fn gtpu(spec: &GtpuSpec, problems: &mut Vec<Problem>) -> GtpuTerm {
    let term = tunnel(spec, problems);
    let pathless = |t: &GtpuMessageType| t.is_of_path();
    if let Some(field) = &spec.teid
        && !term.teids.is_empty()
        && !term.teids.contains(&Teid(0))
        && !term.message_types.is_empty()
        && term.message_types.iter().all(pathless)
    {
        problems.push(field.problem(
            "can never match: these messages are of no tunnel, their TEID is 0 (TS 29.281 section \
             5.1); expected another messageType, or no teid",
        ));
    }
    term
}

fn tunnel(spec: &GtpuSpec, problems: &mut Vec<Problem>) -> GtpuTerm {
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

pub(super) fn rate(field: &Field<RateSpec>, problems: &mut Vec<Problem>) -> Option<RateTerm> {
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
