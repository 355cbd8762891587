//! Rules: settings that go with what the rule matches, and that something can match.

use std::{sync::Arc, time::Duration};

use detector_common::{
    http::HttpMethod,
    packet::{Direction, Protocol},
};
use ipnet::IpNet;

use super::{Applications, emit, message, terms};
use crate::{
    rules::{
        field::{direction as direction_word, protocol as protocol_word},
        model::{Application, HttpRequestMatch, PathMatch, Rule, Signature, Terms},
        raw::{DirectionSpec, RuleDocument, RuleSpec, SessionNeed},
        term::{FlowEventKind, MessageTerm},
    },
    yaml::{Field, Problem},
};

/// Payload bytes a record can carry (`detector-common`'s record has room for that many).
const MAX_CAPTURE: u64 = 1_024;
const DEFAULT_CAPTURE: u16 = 256;
/// Priorities go from minus this to this.
const PRIORITY_MOST: i32 = 1_000;
const EVERY_LEAST: Duration = Duration::from_millis(1);
const EVERY_MOST: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn check(
    document: &RuleDocument,
    applications: &Applications<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let spec = document.spec.get()?;
    let application = applications.find(&spec.application, problems);
    let terms = terms::check(&spec.r#match, problems);
    let ue = ue(spec, problems);
    let every = every(spec, problems);
    let asked = asked_capture(spec, problems);
    let priority = priority(spec, problems);
    let emit = emit::check(spec.emit.get()?, terms.as_ref(), problems);
    let terms = terms?;
    if terms.session.is_some() {
        only_for_packets(spec, &terms, problems);
    }
    if terms.sum().is_some()
        && let Some(field) = &spec.r#final
    {
        problems.push(field.problem(
            "makes no sense with a rate of all that passes, which is seen with no packet; leave it out",
        ));
    }
    let direction = direction(spec, &terms, problems);
    let capture = capture(spec, asked, &terms, problems);
    let application = application?;
    can_match(spec, &terms, &ue, &application, problems);
    Some(Rule {
        name: document.metadata.name.get()?.0.clone(),
        application,
        ue,
        direction,
        needs_session: spec.session.as_ref().and_then(Field::get) == Some(&SessionNeed::Required),
        every,
        capture,
        terms,
        priority,
        is_final: spec.r#final.as_ref().and_then(Field::get) == Some(&true),
        by_user_space: false,
        emit: emit?,
    })
}

fn priority(spec: &RuleSpec, problems: &mut Vec<Problem>) -> i32 {
    let Some((field, number)) = spec.priority.as_ref().and_then(|f| Some((f, *f.get()?))) else {
        return 0;
    };
    match i32::try_from(number).ok().filter(|p| (-PRIORITY_MOST..=PRIORITY_MOST).contains(p)) {
        Some(priority) => priority,
        None => {
            problems.push(field.problem(format!(
                "{number} is out of range; expected -{PRIORITY_MOST} to {PRIORITY_MOST}"
            )));
            0
        }
    }
}

fn ue(spec: &RuleSpec, problems: &mut Vec<Problem>) -> Vec<IpNet> {
    let Some((field, list)) = spec.ue.as_ref().and_then(|ue| Some((ue, ue.get()?))) else {
        return Vec::new();
    };
    if list.is_empty() {
        problems.push(field.problem(
            "is empty; expected at least one address or prefix, or leave it out for all users",
        ));
    }
    list.iter().filter_map(|cidr| cidr.get().map(|cidr| cidr.0)).collect()
}

fn every(spec: &RuleSpec, problems: &mut Vec<Problem>) -> Option<Duration> {
    let field = spec.every.as_ref()?;
    let period = field.get()?;
    problems.extend(period.outside(EVERY_LEAST, EVERY_MOST).map(|message| field.problem(message)));
    Some(period.0)
}

/// A session begins and ends once, has no packet of its own and no direction.
fn only_for_packets(spec: &RuleSpec, terms: &Terms, problems: &mut Vec<Problem>) {
    let term = terms::in_words(terms);
    let refuse = |why| format!("makes no sense with \"{term}\": {why}; leave it out");
    if let Some(field) = &spec.direction {
        problems.push(field.problem(refuse("a session has both directions")));
    }
    if let Some(field) = &spec.session {
        problems.push(field.problem(refuse("it is about the session itself")));
    }
    if let Some(field) = &spec.every {
        let why = "a session begins and ends once (the application's session.idle says when)";
        problems.push(field.problem(refuse(why)));
    }
    if let Some(field) = &spec.r#final {
        problems.push(field.problem(refuse("no other rule is about the same packet")));
    }
}

fn direction(spec: &RuleSpec, terms: &Terms, problems: &mut Vec<Problem>) -> Option<Direction> {
    if terms.session.is_some() {
        return None;
    }
    let field = spec.direction.as_ref();
    if terms.flow_is_over() {
        if let Some(field) = field {
            let term = terms::in_words(terms);
            problems.push(field.problem(format!(
                "makes no sense with \"{term}\": a flow that is over has both directions; leave it \
                 out"
            )));
        }
        return None;
    }
    let asked = match field.and_then(Field::get) {
        None if terms.is_rate_alone() => return None,
        None => return Some(terms.message.as_ref().map_or(Direction::Uplink, message::usual_way)),
        Some(DirectionSpec::Any) => return None,
        Some(DirectionSpec::Uplink) => Direction::Uplink,
        Some(DirectionSpec::Downlink) => Direction::Downlink,
    };
    if let (Some((only, why)), Some(field)) =
        (terms.message.as_ref().and_then(message::only_way), field)
        && only != asked
    {
        problems.push(field.problem(format!(
            "can never match with \"{}\": {why}; expected {} or any",
            terms::in_words(terms),
            direction_word(only)
        )));
    }
    Some(asked)
}

/// The bytes that were asked for, if that many can be.
fn asked_capture<'d>(
    spec: &'d RuleSpec,
    problems: &mut Vec<Problem>,
) -> Option<(&'d Field<u64>, u16)> {
    let field = spec.capture.as_ref()?;
    let bytes = *field.get()?;
    match u16::try_from(bytes) {
        Ok(narrow) if bytes <= MAX_CAPTURE => Some((field, narrow)),
        Ok(_) | Err(_) => {
            let message =
                format!("{bytes} is too large; expected 0 to {MAX_CAPTURE} payload bytes");
            problems.push(field.problem(message));
            None
        }
    }
}

fn capture(
    spec: &RuleSpec,
    asked: Option<(&Field<u64>, u16)>,
    terms: &Terms,
    problems: &mut Vec<Problem>,
) -> u16 {
    let bytes = asked.map_or(DEFAULT_CAPTURE, |(_, bytes)| bytes);
    if terms.session.is_some() || terms.flow.is_some() || terms.is_rate_alone() {
        if let Some((field, 1..)) = asked {
            let term = terms::in_words(terms);
            problems.push(field.problem(format!(
                "makes no sense with \"{term}\", which has no payload; leave it out"
            )));
        }
        return 0;
    }
    let needed = match (terms.signature(), &terms.payload) {
        (Some(Signature::HttpRequest(request)), _) => request_line(&request),
        (_, Some(payload)) => payload.reach(),
        (_, None) => 0,
    };
    match asked {
        // Left out: as many as the rule looks at.
        None if terms.payload.is_some() => bytes.max(u16::try_from(needed).unwrap_or(u16::MAX)),
        Some(_) | None => {
            if usize::from(bytes) < needed {
                problems.push(too_short(spec, asked.map(|(field, _)| field), bytes, needed));
            }
            bytes
        }
    }
}

/// Payload bytes in which the agent can confirm the match: method, space, path, and after an exact
/// path what ends it.
fn request_line(request: &HttpRequestMatch) -> usize {
    let allowed = match request.methods.as_slice() {
        [] => HttpMethod::ALL.as_slice(),
        some => some,
    };
    let method = allowed.iter().map(|method| method.token().len()).max().unwrap_or(0);
    let path = match &request.path {
        PathMatch::Any => 0,
        PathMatch::Exact(path) => path.len() + 1,
        PathMatch::Prefix(prefix) => prefix.len(),
    };
    method + 1 + path
}

fn too_short(spec: &RuleSpec, field: Option<&Field<u64>>, bytes: u16, needed: usize) -> Problem {
    let expected = match needed as u64 <= MAX_CAPTURE {
        true => format!("expected a capture of at least {needed}"),
        false => format!("expected a shorter path, as {MAX_CAPTURE} bytes is the most"),
    };
    let what = if spec_is_http(spec) { "the request line" } else { "the payload" };
    let message = format!("{bytes} bytes cannot hold {what} this rule matches; {expected}");
    match field {
        Some(field) => field.problem(message),
        None => spec.r#match.problem(format!("the default capture of {message}")),
    }
}

fn spec_is_http(spec: &RuleSpec) -> bool {
    spec.r#match.get().is_some_and(|terms| terms.payload.is_none())
}

/// The application serves what the terms looks at, and its users can reach it.
fn can_match(
    spec: &RuleSpec,
    terms: &Terms,
    ue: &[IpNet],
    application: &Arc<Application>,
    problems: &mut Vec<Problem>,
) {
    let usable = |protocol| transport(terms, protocol);
    let served = |protocol| application.endpoints.iter().any(|e| e.protocol == protocol);
    let reached = [Protocol::Tcp, Protocol::Udp].into_iter().any(|p| usable(p) && served(p));
    if !reached {
        let needs = if usable(Protocol::Tcp) { Protocol::Tcp } else { Protocol::Udp };
        problems.push(spec.r#match.problem(format!(
            "can never match: \"{}\" needs a {needs} endpoint, and application \"{}\" has none",
            terms::in_words(terms),
            application.name,
            needs = protocol_word(needs),
        )));
    }
    let family = |net: &IpNet| net.addr().is_ipv4();
    let of_family = |net: &IpNet| {
        let mut usable = application.endpoints.iter().filter(|e| usable(e.protocol));
        usable.any(|e| family(&e.prefix) == family(net))
    };
    if let Some(field) = &spec.ue
        && reached
        && !ue.is_empty()
        && !ue.iter().any(of_family)
    {
        let (these, those) = if family(&ue[0]) { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        problems.push(field.problem(format!(
            "can never match: these users have {these}, and application \"{}\" is served by {those} \
             only",
            application.name
        )));
    }
}

/// Whether what the terms ask for can be seen over this transport.
fn transport(terms: &Terms, protocol: Protocol) -> bool {
    let flow = match &terms.flow {
        None => true,
        Some(flow) => {
            // Only TCP has flags and tells of its begin and end.
            let idle = flow.events.contains(&FlowEventKind::Idle) && flow.tcp_flags.is_empty();
            protocol == Protocol::Tcp || idle
        }
    };
    let message = terms.message.as_ref().is_none_or(|message| {
        message.kind().over(protocol)
            && match (message, protocol) {
                // RFC 8323 has no message types, and section 5 codes of its own.
                (MessageTerm::Coap(coap), Protocol::Tcp) => coap.types.is_empty(),
                (MessageTerm::Coap(coap), Protocol::Udp) => {
                    coap.codes.is_empty() || coap.codes.iter().any(|code| code.class() != 7)
                }
                _ => true,
            }
    });
    flow && message && (!terms.udp_first || protocol == Protocol::Udp)
}
