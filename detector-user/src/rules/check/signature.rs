//! What must be seen: exactly one term, and one that can be seen.

use detector_common::http::HttpMethod;

use crate::{
    rules::{
        model::{HttpRequestMatch, PathMatch, Signature},
        raw::{FlowTerm, HttpSpec, MatchSpec, Methods, SessionTerm, UdpTerm},
    },
    yaml::{Field, Problem},
};

const TERMS: &str = "exactly one of http, flow, udp, session";

pub(super) fn check(field: &Field<MatchSpec>, problems: &mut Vec<Problem>) -> Option<Signature> {
    let spec = field.get()?;
    let there = [
        ("http", spec.http.is_some()),
        ("flow", spec.flow.is_some()),
        ("udp", spec.udp.is_some()),
        ("session", spec.session.is_some()),
    ];
    let there: Vec<&str> =
        there.iter().filter(|(_, there)| *there).map(|(name, _)| *name).collect();
    match there.as_slice() {
        [_] => {}
        [] => problems.push(field.problem(format!(
            "names nothing to see; expected {TERMS} (http: {{}} is every HTTP request)"
        ))),
        many => problems.push(field.problem(format!(
            "has {} terms ({}); expected {TERMS}; write one rule for each",
            many.len(),
            many.join(", ")
        ))),
    }
    if there.len() != 1 {
        return None;
    }
    if let Some(http) = &spec.http {
        return Some(Signature::HttpRequest(request(http.get()?, problems)?));
    }
    if let Some(flow) = &spec.flow {
        return match flow.get()? {
            FlowTerm::Opened => Some(Signature::TcpOpened),
        };
    }
    if let Some(udp) = &spec.udp {
        return match udp.get()? {
            UdpTerm::FirstPacket => Some(Signature::UdpFirstPacket),
        };
    }
    match spec.session.as_ref()?.get()? {
        SessionTerm::Started => Some(Signature::SessionStarted),
        SessionTerm::Ended => Some(Signature::SessionEnded),
    }
}

fn request(spec: &HttpSpec, problems: &mut Vec<Problem>) -> Option<HttpRequestMatch> {
    let methods = spec.method.as_ref().map_or_else(Vec::new, |field| methods(field, problems));
    let path = match (&spec.path, &spec.path_prefix) {
        (None, None) => PathMatch::Any,
        (Some(path), None) => PathMatch::Exact(path.get()?.0.clone()),
        (None, Some(prefix)) => PathMatch::Prefix(prefix.get()?.0.clone()),
        (Some(_), Some(prefix)) => {
            problems.push(prefix.problem("stands beside path; expected only one of the two"));
            return None;
        }
    };
    if let (Some(field), [HttpMethod::Connect]) = (&spec.method, methods.as_slice())
        && path != PathMatch::Any
    {
        // RFC 9112 section 3.2.3: CONNECT has host:port where others have a path.
        problems.push(field.problem(
            "can never match: a CONNECT request has no path; expected another method, or no path",
        ));
    }
    Some(HttpRequestMatch { methods, path })
}

fn methods(field: &Field<Methods>, problems: &mut Vec<Problem>) -> Vec<HttpMethod> {
    let list = match field.get() {
        None => return Vec::new(),
        Some(Methods::One(method)) => return vec![method.0],
        Some(Methods::Many(list)) => list,
    };
    if list.is_empty() {
        problems.push(
            field.problem(
                "is empty; expected at least one method, or leave it out for every method",
            ),
        );
    }
    let mut methods = Vec::new();
    for (field, method) in list.iter().filter_map(|field| Some((field, field.get()?.0))) {
        match methods.contains(&method) {
            true => problems.push(field.problem(format!("{} is listed twice", method.token()))),
            false => methods.push(method),
        }
    }
    methods
}

/// The term as it is written, for messages.
pub(super) fn term(signature: &Signature) -> &'static str {
    match signature {
        Signature::TcpOpened => "flow: opened",
        Signature::UdpFirstPacket => "udp: first-packet",
        Signature::HttpRequest(_) => "http",
        Signature::SessionStarted => "session: started",
        Signature::SessionEnded => "session: ended",
    }
}

/// Whether the term is about a session and not about a packet.
pub(super) fn is_session(signature: &Signature) -> bool {
    match signature {
        Signature::SessionStarted | Signature::SessionEnded => true,
        Signature::TcpOpened | Signature::UdpFirstPacket | Signature::HttpRequest(_) => false,
    }
}
