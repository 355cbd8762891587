//! Rules: settings that go with what the rule matches, and that something can match.

use std::{sync::Arc, time::Duration};

use detector_common::{
    http::HttpMethod,
    packet::{Direction, Protocol},
};
use ipnet::IpNet;

use super::{Applications, emit, signature};
use crate::{
    rules::{
        field::protocol as protocol_word,
        model::{Application, HttpRequestMatch, PathMatch, Rule, Signature},
        raw::{DirectionSpec, RuleDocument, RuleSpec, SessionNeed},
    },
    yaml::{Field, Problem},
};

/// Payload bytes a record can carry (`detector-common`'s record has room for that many).
const MAX_CAPTURE: u64 = 1_024;
const DEFAULT_CAPTURE: u16 = 256;
const EVERY_LEAST: Duration = Duration::from_millis(1);
const EVERY_MOST: Duration = Duration::from_secs(24 * 3_600);

pub(super) fn check(
    document: &RuleDocument,
    applications: &Applications<'_>,
    problems: &mut Vec<Problem>,
) -> Option<Rule> {
    let spec = document.spec.get()?;
    let application = applications.find(&spec.application, problems);
    let signature = signature::check(&spec.r#match, problems);
    let ue = ue(spec, problems);
    let every = every(spec, problems);
    let asked = asked_capture(spec, problems);
    let emit = emit::check(spec.emit.get()?, signature.as_ref(), problems);
    let signature = signature?;
    if signature::is_session(&signature) {
        only_for_packets(spec, &signature, problems);
    }
    let direction = direction(spec, &signature, problems);
    let capture = capture(spec, asked, &signature, problems);
    let application = application?;
    can_match(spec, &signature, &ue, &application, problems);
    Some(Rule {
        name: document.metadata.name.get()?.0.clone(),
        application,
        ue,
        direction,
        needs_session: spec.session.as_ref().and_then(Field::get) == Some(&SessionNeed::Required),
        every,
        capture,
        signature,
        emit: emit?,
    })
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
fn only_for_packets(spec: &RuleSpec, signature: &Signature, problems: &mut Vec<Problem>) {
    let term = signature::term(signature);
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
}

fn direction(
    spec: &RuleSpec,
    signature: &Signature,
    problems: &mut Vec<Problem>,
) -> Option<Direction> {
    if signature::is_session(signature) {
        return None;
    }
    let field = spec.direction.as_ref();
    match field.and_then(Field::get) {
        None | Some(DirectionSpec::Uplink) => Some(Direction::Uplink),
        Some(DirectionSpec::Any) => None,
        Some(DirectionSpec::Downlink) => {
            if let (Signature::HttpRequest(_), Some(field)) = (signature, field) {
                problems.push(field.problem(
                    "can never match with \"http\": requests go from the user to the application; \
                     expected uplink or any",
                ));
            }
            Some(Direction::Downlink)
        }
    }
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
    signature: &Signature,
    problems: &mut Vec<Problem>,
) -> u16 {
    let bytes = asked.map_or(DEFAULT_CAPTURE, |(_, bytes)| bytes);
    match signature {
        Signature::TcpOpened | Signature::SessionStarted | Signature::SessionEnded => {
            if let Some((field, 1..)) = asked {
                let term = signature::term(signature);
                problems.push(field.problem(format!(
                    "makes no sense with \"{term}\", which has no payload; leave it out"
                )));
            }
            0
        }
        Signature::UdpFirstPacket => bytes,
        Signature::HttpRequest(request) => {
            let needed = request_line(request);
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
    let message =
        format!("{bytes} bytes cannot hold the request line this rule matches; {expected}");
    match field {
        Some(field) => field.problem(message),
        None => spec.r#match.problem(format!("the default capture of {message}")),
    }
}

/// The application serves what the signature looks at, and its users can reach it.
fn can_match(
    spec: &RuleSpec,
    signature: &Signature,
    ue: &[IpNet],
    application: &Arc<Application>,
    problems: &mut Vec<Problem>,
) {
    let needs = match signature {
        Signature::TcpOpened | Signature::HttpRequest(_) => Some(Protocol::Tcp),
        Signature::UdpFirstPacket => Some(Protocol::Udp),
        Signature::SessionStarted | Signature::SessionEnded => None,
    };
    let serves = |protocol| application.endpoints.iter().any(|e| e.protocol == protocol);
    if let Some(needs) = needs
        && !serves(needs)
    {
        problems.push(spec.r#match.problem(format!(
            "can never match: \"{}\" needs a {needs} endpoint, and application \"{}\" has none",
            signature::term(signature),
            application.name,
            needs = protocol_word(needs),
        )));
    }
    let family = |net: &IpNet| net.addr().is_ipv4();
    let reached = |net: &IpNet| {
        let usable = |e: &&crate::rules::model::Endpoint| needs.is_none_or(|p| e.protocol == p);
        application.endpoints.iter().filter(usable).any(|e| family(&e.prefix) == family(net))
    };
    if let Some(field) = &spec.ue
        && needs.is_none_or(serves)
        && !ue.is_empty()
        && !ue.iter().any(reached)
    {
        let (these, those) = if family(&ue[0]) { ("IPv4", "IPv6") } else { ("IPv6", "IPv4") };
        problems.push(field.problem(format!(
            "can never match: these users have {these}, and application \"{}\" is served by {those} \
             only",
            application.name
        )));
    }
}
