//! The user-space half of a rule: the kernel let a record through because it may match; here it is
//! compared in full with what the rule asks for.

use std::sync::Arc;

use detector_common::event::PayloadKind;

use crate::{
    decode::Record,
    detection::{Evidence, Moment},
    l7::{
        fact::{Fact, HttpRequest},
        http1::{self, NoRequest},
    },
    rules::model::{Rule, Signature},
};

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
pub fn confirm(rule: &Rule, record: &Record<'_>) -> Result<Evidence, Refusal> {
    let payload = record.payload.into();
    match (rule.signature(), record.payload_kind) {
        (Some(Signature::TcpOpened), PayloadKind::TcpOpened) => Ok(Evidence::of(Moment::Opened)),
        (Some(Signature::UdpFirstPacket), PayloadKind::UdpFirst) => {
            Ok(Evidence { payload, ..Evidence::of(Moment::UdpFirst) })
        }
        (Some(Signature::HttpRequest(_)), PayloadKind::HttpRequest) => {
            let request = parse_request(record.payload)?;
            check(rule, &request)?;
            let moment = Moment::Message(Arc::new(Fact::HttpRequest(request)));
            Ok(Evidence { payload, ..Evidence::of(moment) })
        }
        (
            Some(
                Signature::TcpOpened
                | Signature::UdpFirstPacket
                | Signature::HttpRequest(_)
                | Signature::SessionStarted
                | Signature::SessionEnded,
            )
            | None,
            PayloadKind::Other
            | PayloadKind::TcpOpened
            | PayloadKind::UdpFirst
            | PayloadKind::HttpRequest,
        ) => Err(Refusal::OtherKind),
    }
}

fn check(rule: &Rule, request: &HttpRequest) -> Result<(), Refusal> {
    let Some(wanted) = rule.terms.http() else { return Err(Refusal::OtherKind) };
    if !wanted.matches_method(request) {
        return Err(Refusal::Method);
    }
    if wanted.matches_path(request) { Ok(()) } else { Err(Refusal::Path) }
}

/// Reads the head of an HTTP/1 request from the start of a payload. Headers are optional: they may
/// lie beyond what was captured.
///
/// # Errors
/// When the request line is incomplete or none.
pub fn parse_request(payload: &[u8]) -> Result<HttpRequest, Refusal> {
    http1::request(payload).map_err(|why| match why {
        NoRequest::LineCut => Refusal::Truncated,
        NoRequest::NotHttp => Refusal::NotHttp,
    })
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
        assert_eq!((request.path(), request.query()), ("/api/buttons/buy", Some("item=7")));
        assert_eq!(request.authority(), Some("shop"));
        assert_eq!(request.header("user-agent"), Some("ue"));
        assert_eq!(request.headers.len(), 2);
    }

    #[test]
    fn headers_cut_off_by_the_capture_do_not_matter() {
        let request = parse_request(b"GET /a HTTP/1.1\r\nHost: sho").unwrap();
        assert_eq!((request.path(), request.host.as_deref()), ("/a", None));
    }

    #[test]
    fn a_target_cut_off_by_the_capture_is_truncated() {
        for cut in [&b"GET /api/butt"[..], b"GET /api/buttons HTTP/1", b"GE"] {
            assert_eq!(parse_request(cut), Err(Refusal::Truncated), "{cut:?}");
        }
        assert!(parse_request(b"GET /api/buttons HTTP/1.1").is_ok());
    }

    #[test]
    fn binary_that_begins_like_a_method_is_not_http() {
        for not in
            [&b"GET \x00\x01\x02\r\n"[..], b"GET \x00", b"GETX /", b"HTTP/1.1 200 OK\r\n", b""]
        {
            assert_eq!(parse_request(not), Err(Refusal::NotHttp), "{not:?}");
        }
    }
}
