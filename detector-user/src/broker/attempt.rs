//! One request to one subscriber, and what its answer means.

use axum::http::{HeaderMap, StatusCode, header::CONTENT_TYPE};
use bytes::Bytes;
use cloudevents::{
    Event,
    binding::{
        http::{SPEC_VERSION_HEADER, to_event},
        reqwest::{RequestBuilderExt, RequestSerializer},
    },
    message::StructuredDeserializer,
};
use url::Url;

use super::{
    node::{NodeKind, Route},
    report::Leg,
    resource::Format,
};

/// One request that is to be made.
pub(crate) struct Attempt<'a> {
    pub url: &'a Url,
    pub event: &'a Event,
    pub headers: &'a HeaderMap,
    pub route: &'a Route,
    pub leg: Leg,
}

/// How a target answered.
pub(crate) enum Answer {
    /// It took the event and sent none back.
    Empty(StatusCode),
    /// It took the event and sent one back.
    Reply(StatusCode, Box<Event>, HeaderMap),
    /// It did not take it; no status if there was no answer.
    Failed { status: Option<StatusCode>, reason: String, body: Bytes },
}

/// Why an event did not reach a target, all retries included.
pub(crate) struct Failure {
    pub destination: String,
    pub code: StatusCode,
    pub body: Bytes,
}

/// Knative's set (data-plane.md, "Retry"): never other 4xx, never 3xx.
pub(crate) fn is_retryable(code: StatusCode) -> bool {
    code.is_server_error() || matches!(code.as_u16(), 404 | 408 | 409 | 429)
}

impl Attempt<'_> {
    pub(crate) async fn run(&self, client: &reqwest::Client, node: NodeKind) -> Answer {
        let mut request = client.post(self.url.clone()).headers(self.headers.clone());
        if let Some(timeout) = self.route.delivery.timeout {
            request = request.timeout(timeout);
        }
        let filled = match (self.leg, self.route.delivery.format) {
            // `format` is the subscriber's; replies and dead letters go in binary mode.
            (Leg::Subscriber, Format::Json) => {
                self.event.clone().deserialize_structured(RequestSerializer::new(request))
            }
            (Leg::Subscriber, Format::Binary) | (Leg::Reply | Leg::DeadLetter, _) => {
                request.event(self.event.clone())
            }
        };
        let request = match filled {
            Ok(request) => request,
            Err(error) => return Answer::no_answer(&error),
        };
        let response = match request.send().await {
            Ok(response) => response,
            Err(error) => return Answer::no_answer(&error),
        };
        let (status, headers) = (response.status(), response.headers().clone());
        match response.bytes().await {
            Ok(body) => judge(node, status, headers, body),
            Err(error) => Answer::no_answer(&error),
        }
    }
}

/// What an answer means. A Broker insists that a body is a CloudEvent (502 otherwise, as the
/// broker filter says it); a Channel ignores other bodies.
fn judge(node: NodeKind, status: StatusCode, headers: HeaderMap, body: Bytes) -> Answer {
    if !status.is_success() {
        return Answer::Failed { status: Some(status), reason: format!("answered {status}"), body };
    }
    if !claims_to_be_event(&headers) {
        return match node {
            NodeKind::Broker if !body.is_empty() => Answer::bad_gateway(
                "its answer has a body that is no CloudEvent; a Broker takes an empty one or an event",
            ),
            NodeKind::Broker | NodeKind::Channel => Answer::Empty(status),
        };
    }
    match to_event(&headers, body.to_vec()) {
        Ok(event) => Answer::Reply(status, Box::new(event), headers),
        Err(error) => Answer::bad_gateway(&format!("its answer is a broken CloudEvent: {error}")),
    }
}

fn claims_to_be_event(headers: &HeaderMap) -> bool {
    let structured = headers
        .get(CONTENT_TYPE)
        .is_some_and(|value| value.as_bytes().starts_with(b"application/cloudevents"));
    structured || headers.contains_key(SPEC_VERSION_HEADER)
}

impl Answer {
    /// The status code an ingress of this process gave.
    pub(crate) fn of_ingress(status: StatusCode) -> Self {
        if status.is_success() {
            Self::Empty(status)
        } else {
            let reason = format!("answered {status}");
            Self::Failed { status: Some(status), reason, body: Bytes::new() }
        }
    }

    fn no_answer(error: &(dyn std::error::Error + 'static)) -> Self {
        // The innermost cause is the telling one: "Connection refused", "operation timed out".
        let mut cause = error;
        while let Some(source) = cause.source() {
            cause = source;
        }
        let reason = cause.to_string();
        let body = format!("dispatch error: {reason}").into();
        Self::Failed { status: None, reason, body }
    }

    fn bad_gateway(reason: &str) -> Self {
        let body = Bytes::copy_from_slice(reason.as_bytes());
        Self::Failed { status: Some(StatusCode::BAD_GATEWAY), reason: reason.into(), body }
    }

    pub(crate) fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Empty(status) | Self::Reply(status, ..) => Some(*status),
            Self::Failed { status, .. } => *status,
        }
    }

    pub(crate) fn error(&self) -> Option<&str> {
        match self {
            Self::Empty(_) | Self::Reply(..) => None,
            Self::Failed { reason, .. } => Some(reason),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_retried_codes_are_knatives() {
        let retried: Vec<u16> =
            (200..600).filter(|code| is_retryable(StatusCode::from_u16(*code).unwrap())).collect();
        assert_eq!(retried[..4], [404, 408, 409, 429]);
        assert_eq!(retried[4..], (500..600).collect::<Vec<u16>>());
    }

    #[test]
    fn a_body_that_is_no_event_fails_at_a_broker_and_not_at_a_channel() {
        let answer = |node| judge(node, StatusCode::OK, HeaderMap::new(), "thanks".into()).status();
        assert_eq!(answer(NodeKind::Broker), Some(StatusCode::BAD_GATEWAY));
        assert_eq!(answer(NodeKind::Channel), Some(StatusCode::OK));
    }

    #[test]
    fn a_broken_event_in_an_answer_is_502() {
        let mut headers = HeaderMap::new();
        headers.insert(SPEC_VERSION_HEADER, "1.0".parse().unwrap());
        let answer = judge(NodeKind::Broker, StatusCode::OK, headers, Bytes::new());
        assert_eq!(answer.status(), Some(StatusCode::BAD_GATEWAY));
        assert!(answer.error().unwrap().contains("broken CloudEvent"));
    }
}
