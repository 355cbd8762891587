//! The user-space half of a rule: the kernel let a record through because it may match; here it is
//! compared in full with what the rule asks for.

use detector_common::event::PayloadKind;

use crate::{
    decode::Record,
    detection::HttpRequest,
    rules::model::{HttpRequestMatch, PathMatch, Rule, Signature},
};

/// What a confirmed match was made of.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Confirmed {
    /// The request, for HTTP rules.
    pub http: Option<HttpRequest>,
}

/// Why a record that the kernel let through is no match after all.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Refusal {
    /// Another path, beyond the part that the kernel compares.
    Path,
    /// Another method (an absolute URI, whose path the kernel does not look at, is judged here too).
    Method,
    /// The captured bytes end inside the request target: ask for more with `capture`.
    Truncated,
    /// It only looked like a request line.
    NotHttp,
    /// The rule asks for something else than what the kernel recognised.
    OtherKind,
}

impl Refusal {
    /// Every reason.
    pub const ALL: [Self; 5] =
        [Self::Path, Self::Method, Self::Truncated, Self::NotHttp, Self::OtherKind];

    /// Its name in metrics.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Path => "path",
            Self::Method => "method",
            Self::Truncated => "truncated",
            Self::NotHttp => "not_http",
            Self::OtherKind => "other_kind",
        }
    }
}

/// Compares a record with a rule in full.
///
/// # Errors
/// Why it does not match.
pub fn confirm(rule: &Rule, record: &Record<'_>) -> Result<Confirmed, Refusal> {
    match (&rule.signature, record.payload_kind) {
        (Signature::TcpOpened, PayloadKind::TcpOpened)
        | (Signature::UdpFirstPacket, PayloadKind::UdpFirst) => Ok(Confirmed::default()),
        (Signature::HttpRequest(wanted), PayloadKind::HttpRequest) => {
            let request = parse_request(record.payload)?;
            check(wanted, &request)?;
            Ok(Confirmed { http: Some(request) })
        }
        (
            Signature::TcpOpened
            | Signature::UdpFirstPacket
            | Signature::HttpRequest(_)
            | Signature::SessionStarted
            | Signature::SessionEnded,
            PayloadKind::Other
            | PayloadKind::TcpOpened
            | PayloadKind::UdpFirst
            | PayloadKind::HttpRequest,
        ) => Err(Refusal::OtherKind),
    }
}

fn check(wanted: &HttpRequestMatch, request: &HttpRequest) -> Result<(), Refusal> {
    if !wanted.methods.is_empty()
        && !wanted.methods.iter().any(|method| method.token() == request.method)
    {
        return Err(Refusal::Method);
    }
    let fits = match &wanted.path {
        PathMatch::Any => true,
        PathMatch::Exact(path) => request.path == *path,
        PathMatch::Prefix(prefix) => request.path.starts_with(prefix.as_str()),
    };
    if fits { Ok(()) } else { Err(Refusal::Path) }
}

/// Reads the head of an HTTP/1 request from the start of a payload. Headers are optional: they may
/// lie beyond what was captured.
///
/// # Errors
/// When the request line is incomplete or none.
pub fn parse_request(payload: &[u8]) -> Result<HttpRequest, Refusal> {
    const MAX_HEADERS: usize = 64;
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let mut request = httparse::Request::new(&mut headers);
    match request.parse(payload) {
        // Too many headers: the request line and the first 64 are there.
        Ok(_) | Err(httparse::Error::TooManyHeaders) => {}
        Err(_) => return Err(Refusal::NotHttp),
    }
    // The version comes after the target: without it the target may go on beyond the capture.
    let (Some(method), Some(target), Some(_version)) =
        (request.method, request.path, request.version)
    else {
        return Err(Refusal::Truncated);
    };
    let header = |name: &str| {
        let found = request.headers.iter().find(|header| header.name.eq_ignore_ascii_case(name));
        found.map(|header| String::from_utf8_lossy(header.value).into_owned())
    };
    let (authority, target) = split_target(target);
    let (path, query) = match target.split_once('?') {
        Some((path, query)) => (path, Some(query.to_owned())),
        None => (target, None),
    };
    Ok(HttpRequest {
        method: method.to_owned(),
        path: path.to_owned(),
        query,
        host: authority.map(str::to_owned).or_else(|| header("host")),
        user_agent: header("user-agent"),
    })
}

/// Takes a target in absolute form (RFC 9112 section 3.2.2) apart; its authority outweighs Host.
fn split_target(target: &str) -> (Option<&str>, &str) {
    let Some((_scheme, rest)) = target.split_once("://") else { return (None, target) };
    if target.starts_with('/') {
        return (None, target);
    }
    match rest.find(['/', '?']) {
        Some(end) if rest.as_bytes()[end] == b'/' => (Some(&rest[..end]), &rest[end..]),
        Some(end) => (Some(&rest[..end]), &rest[end..]),
        None => (Some(rest), "/"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn method_path_query_and_host_are_taken_apart() {
        let request = parse_request(
            b"POST /api/buttons/buy?item=7 HTTP/1.1\r\nhost: shop\r\nUser-Agent: ue\r\n\r\n",
        )
        .expect("a request");
        assert_eq!(request.method, "POST");
        assert_eq!(request.path, "/api/buttons/buy");
        assert_eq!(request.query.as_deref(), Some("item=7"));
        assert_eq!(request.host.as_deref(), Some("shop"));
        assert_eq!(request.user_agent.as_deref(), Some("ue"));
    }

    #[test]
    fn an_absolute_uri_gives_its_path_and_its_authority() {
        let request = parse_request(b"GET http://shop:80/a?b HTTP/1.1\r\nHost: other\r\n").unwrap();
        assert_eq!((request.path.as_str(), request.host.as_deref()), ("/a", Some("shop:80")));
    }

    #[test]
    fn headers_cut_off_by_the_capture_do_not_matter() {
        let request = parse_request(b"GET /a HTTP/1.1\r\nHost: sho").unwrap();
        assert_eq!((request.path.as_str(), request.host), ("/a", None));
    }

    #[test]
    fn a_target_cut_off_by_the_capture_is_truncated() {
        assert_eq!(parse_request(b"GET /api/butt"), Err(Refusal::Truncated));
    }

    #[test]
    fn binary_that_begins_like_a_method_is_not_http() {
        assert_eq!(parse_request(b"GET \x00\x01\x02\r\n"), Err(Refusal::NotHttp));
    }
}
