//! What a sender is told: the answers of Knative's broker ingress (1.22), line by line.
//!
//! A Broker is at `/<namespace>/<name>` as in a cluster. A Channel is there too; in a cluster it
//! has a host name of its own (`http://<name>-kn-channel.<namespace>.svc.cluster.local`).

use std::time::Duration;

use axum::{
    body::{Body, Bytes, to_bytes},
    extract::{Request, State},
    http::{
        HeaderMap, Method, StatusCode,
        header::{ALLOW, CONNECTION, CONTENT_TYPE},
    },
    response::{IntoResponse, Response},
};
use cloudevents::{AttributesReader, Event, binding::http::to_event};
use tokio_util::sync::CancellationToken;

use super::{
    dispatch::{Context, Dispatcher},
    resource::Name,
    rewrite::passed_through,
};

/// What the handler needs.
#[derive(Clone)]
pub(crate) struct Ingress {
    pub dispatcher: Dispatcher,
    /// For the whole body.
    pub read_timeout: Duration,
    /// Cancelled when the Broker stops.
    pub stop: CancellationToken,
}

/// Answers every request, whatever its method and path.
pub(crate) async fn answer(State(ingress): State<Ingress>, request: Request) -> Response {
    let method = request.method().clone();
    let mut response = if method == Method::OPTIONS {
        // CloudEvents webhook 4.2: any origin, any rate.
        [("webhook-allowed-origin", "*"), ("webhook-allowed-rate", "*")].into_response()
    } else if method == Method::POST {
        match take_in(&ingress, request).await {
            Ok(status) => status.into_response(),
            Err(refusal) => refusal.into_response(),
        }
    } else {
        StatusCode::METHOD_NOT_ALLOWED.into_response()
    };
    response.headers_mut().insert(ALLOW, axum::http::HeaderValue::from_static("POST, OPTIONS"));
    response
}

/// Why an event is not taken. The real ingress sends the code alone; the text is for people.
#[derive(Debug, thiserror::Error)]
enum Refusal {
    #[error("expected POST /<namespace>/<broker>")]
    Root,
    #[error("expected POST /<namespace>/<broker>, found {0}")]
    Path(String),
    #[error("the body did not arrive: {0}")]
    Body(String),
    #[error("{0} is not taken: one event a request, in binary or structured (JSON) mode")]
    ContentMode(String),
    #[error("not a CloudEvent: {0}")]
    Event(String),
    #[error("there is no Broker or Channel {0} here")]
    Unknown(Name),
}

impl IntoResponse for Refusal {
    fn into_response(self) -> Response {
        let text = format!("{self}\n");
        match self {
            Refusal::Root | Refusal::Unknown(_) => (StatusCode::NOT_FOUND, text).into_response(),
            Refusal::Path(_) | Refusal::ContentMode(_) | Refusal::Event(_) => {
                (StatusCode::BAD_REQUEST, text).into_response()
            }
            Refusal::Body(_) => {
                (StatusCode::INTERNAL_SERVER_ERROR, [(CONNECTION, "close")], text).into_response()
            }
        }
    }
}

async fn take_in(ingress: &Ingress, request: Request) -> Result<StatusCode, Refusal> {
    let (parts, body) = request.into_parts();
    let name = node_name(&parts.uri.to_string())?;
    let body = read(body, ingress.read_timeout).await?;
    let event = parse(&parts.headers, body)?;
    if ingress.dispatcher.topology().node(&name).is_none() {
        return Err(Refusal::Unknown(name));
    }
    // Dropped with this future when the sender goes away: retries end, a running request does not.
    let give_up = ingress.stop.child_token();
    let _sender_waits = give_up.clone().drop_guard();
    let context = Context { headers: passed_through(&parts.headers), give_up };
    Ok(ingress.dispatcher.admit(name, event, context).await)
}

/// Splits the request target as ingress does, the query not cut off: `?x` makes another name,
/// hence 404.
fn node_name(target: &str) -> Result<Name, Refusal> {
    if target == "/" {
        return Err(Refusal::Root);
    }
    let path = target.strip_suffix('/').unwrap_or(target);
    match path.split('/').collect::<Vec<_>>()[..] {
        ["", namespace, name] => Ok(Name::new(namespace, name)),
        _ => Err(Refusal::Path(target.into())),
    }
}

/// No limit on the size: the real one has none.
async fn read(body: Body, limit: Duration) -> Result<Bytes, Refusal> {
    match tokio::time::timeout(limit, to_bytes(body, usize::MAX)).await {
        Ok(Ok(bytes)) => Ok(bytes),
        Ok(Err(error)) => Err(Refusal::Body(error.to_string())),
        Err(_elapsed) => Err(Refusal::Body(format!("nothing more within {limit:?}"))),
    }
}

/// One event in binary or structured mode, valid as sdk-go's `Validate` has it. The SDK here
/// parses; what it lets through and sdk-go does not is checked after it.
fn parse(headers: &HeaderMap, body: Bytes) -> Result<Event, Refusal> {
    let content_type =
        headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let media_type = content_type.split(';').next().unwrap_or("").trim();
    // Batches (`-batch+json`) and Protobuf (`+protobuf`).
    if media_type.starts_with("application/cloudevents")
        && media_type != "application/cloudevents+json"
    {
        return Err(Refusal::ContentMode(media_type.into()));
    }
    let event =
        to_event(headers, body.to_vec()).map_err(|error| Refusal::Event(error.to_string()))?;
    for (attribute, value) in [("id", event.id()), ("source", event.source()), ("type", event.ty())]
    {
        if value.trim().is_empty() {
            return Err(Refusal::Event(format!("`{attribute}` is empty")));
        }
    }
    for (name, _) in event.iter_extensions() {
        if name.is_empty() || !name.bytes().all(|byte| byte.is_ascii_alphanumeric()) {
            return Err(Refusal::Event(format!(
                "extension `{name}`: expected a name of letters and digits only"
            )));
        }
    }
    Ok(event)
}
