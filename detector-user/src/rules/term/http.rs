//! The `http` term.

use detector_common::http::HttpMethod;
use schemars::Schema;

use super::{name::NamePattern, path::PathPattern, wildcard::Wildcard};
use crate::{
    l7::fact::{HttpRequest, HttpResponse},
    yaml::{Scalar, scalar},
};

/// Which HTTP requests, or which responses if a status is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HttpTerm {
    /// Any of these; empty is every method.
    pub methods: Vec<HttpMethod>,
    /// The request's host, without its port; empty is any.
    pub hosts: Vec<NamePattern>,
    /// The path, without the query; empty is any.
    pub paths: Vec<PathPattern>,
    /// Query parameters that must all be there, each with one of these values.
    pub query: Vec<(String, Vec<Wildcard>)>,
    /// Request header fields that must all be there, each with one of these values.
    pub headers: Vec<(String, Vec<Wildcard>)>,
    /// The response's status; empty is the request itself.
    pub status: Vec<HttpStatus>,
}

impl HttpTerm {
    /// Whether responses are judged, not requests.
    pub fn is_response(&self) -> bool {
        !self.status.is_empty()
    }

    /// Whether anything of the request is asked for.
    pub fn asks_request(&self) -> bool {
        let Self { methods, hosts, paths, query, headers, status: _ } = self;
        !(methods.is_empty()
            && hosts.is_empty()
            && paths.is_empty()
            && query.is_empty()
            && headers.is_empty())
    }

    /// Whether the request is such.
    pub fn matches_request(&self, request: &HttpRequest) -> bool {
        self.matches_method(request)
            && self.matches_path(request)
            && (self.hosts.is_empty() || self.matches_host(request))
            && self.query.iter().all(|(name, values)| has_parameter(request, name, values))
            && self.headers.iter().all(|(name, values)| has_header(request, name, values))
    }

    /// Whether the response is such; `request` is the one it answers, if that was seen.
    pub fn matches_response(&self, response: &HttpResponse, request: Option<&HttpRequest>) -> bool {
        (self.status.is_empty() || self.status.iter().any(|s| s.matches(response.status)))
            && (!self.asks_request() || request.is_some_and(|r| self.matches_request(r)))
    }

    /// Whether the method is one of those asked for.
    pub fn matches_method(&self, request: &HttpRequest) -> bool {
        self.methods.is_empty() || self.methods.iter().any(|m| m.token() == request.method)
    }

    /// Whether the path is one of those asked for.
    pub fn matches_path(&self, request: &HttpRequest) -> bool {
        self.paths.is_empty() || self.paths.iter().any(|path| path.matches(request.path()))
    }

    fn matches_host(&self, request: &HttpRequest) -> bool {
        let Some(authority) = request.authority() else { return false };
        let host = without_port(authority);
        self.hosts.iter().any(|pattern| pattern.matches(host))
    }
}

/// The host of an authority (RFC 3986 section 3.2), an IPv6 literal in its brackets.
fn without_port(authority: &str) -> &str {
    let host = authority.rsplit_once('@').map_or(authority, |(_, host)| host);
    match host.rsplit_once(':') {
        Some((before, port)) if port.bytes().all(|b| b.is_ascii_digit()) => before,
        Some(_) | None => host,
    }
}

/// Parameters are compared as sent (percent-encoding kept); one without `=` has an empty value.
fn has_parameter(request: &HttpRequest, name: &str, values: &[Wildcard]) -> bool {
    let query = request.query().unwrap_or_default();
    query.split('&').filter(|pair| !pair.is_empty()).any(|pair| {
        let (key, value) = pair.split_once('=').unwrap_or((pair, ""));
        key == name && values.iter().any(|wanted| wanted.matches(value))
    })
}

fn has_header(request: &HttpRequest, name: &str, values: &[Wildcard]) -> bool {
    request.headers.iter().any(|(field, value)| {
        field.eq_ignore_ascii_case(name) && values.iter().any(|wanted| wanted.matches(value.trim()))
    })
}

/// A status code, or a class of them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpStatus {
    /// This code.
    Code(u16),
    /// `5xx`: all that begin with this digit.
    Class(u16),
}
scalar!(HttpStatus);

impl HttpStatus {
    fn matches(self, status: u16) -> bool {
        match self {
            Self::Code(code) => status == code,
            Self::Class(class) => status / 100 == class,
        }
    }

    /// As it is written.
    pub fn text(self) -> String {
        match self {
            Self::Code(code) => code.to_string(),
            Self::Class(class) => format!("{class}xx"),
        }
    }
}

impl Scalar for HttpStatus {
    const EXPECTED: &'static str = "a status code 100 to 599, or a class such as 5xx";

    fn parse(text: &str) -> Result<Self, String> {
        let class = text.strip_suffix("xx").and_then(|class| class.parse().ok());
        match (class, text.parse()) {
            (Some(class @ 1..=5), _) => Ok(Self::Class(class)),
            (_, Ok(code @ 100..=599)) => Ok(Self::Code(code)),
            (Some(_) | None, Ok(_) | Err(_)) => {
                Err(format!("\"{text}\" is no status; expected {}", Self::EXPECTED))
            }
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "description": "A status code, or a class such as 5xx.",
            "anyOf": [
                {"type": "integer", "minimum": 100, "maximum": 599},
                {"type": "string", "pattern": "^[1-5](xx|[0-9]{2})$"},
            ],
        })
    }
}

/// The name of a header field (RFC 9110 section 5.1): a token.
pub fn is_field_name(name: &str) -> bool {
    let token = |b: u8| b.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&b);
    !name.is_empty() && name.bytes().all(token)
}
