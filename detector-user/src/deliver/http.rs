//! POST to a URL: CloudEvents HTTP binding, in binary or structured content mode one event a request.
//!
//! What Knative's ingress wants (seen on a real one): a `content-type` on every request, no
//! `Content-Encoding`, no batches, HTTP/1.1 over cleartext. It closes idle connections after
//! 10 s, so this client drops them after 8 s.

use std::{
    error::Error,
    io::ErrorKind,
    time::{Duration, SystemTime},
};

use bytes::Bytes;
use cloudevents::Event;
use futures::{FutureExt, future::BoxFuture};
use reqwest::{
    Method, Request, Response, StatusCode,
    header::{AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderValue, RETRY_AFTER},
};
use url::Url;

use super::{
    batch::Batcher,
    binary,
    causes::{causes, chain},
    retry::retry_after,
    sink::{Failure, Sink, TargetError, quoted, unsendable},
    tls::Clients,
    token::Token,
};
use crate::config::{ContentMode, HttpConfig};

/// How much of an answer's body is read, so that its connection can be used again.
const BODY_LIMIT: usize = 16 * 1024;
/// How much of it is shown in a log line.
const EXCERPT_CHARS: usize = 200;

const EVENT: HeaderValue = HeaderValue::from_static("application/cloudevents+json; charset=UTF-8");
const BATCH: HeaderValue =
    HeaderValue::from_static("application/cloudevents-batch+json; charset=UTF-8");

/// Time limits of the client.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpSettings {
    /// From the first byte out to the last byte of the answer. A Broker over the in-memory
    /// channel answers only after every subscriber did, so there must be a limit.
    pub timeout: Duration,
    /// For the connection alone.
    pub connect_timeout: Duration,
    /// An idle connection is dropped after this, before the sink drops it.
    pub idle_timeout: Duration,
    /// Idle connections that are kept; as many as there are workers.
    pub idle_connections: usize,
}

impl Default for HttpSettings {
    fn default() -> Self {
        Self {
            timeout: Duration::from_secs(10),
            connect_timeout: Duration::from_secs(3),
            idle_timeout: Duration::from_secs(8),
            idle_connections: 8,
        }
    }
}

/// A URL that takes events.
pub struct HttpSink {
    name: String,
    url: Url,
    mode: ContentMode,
    /// In batched mode.
    batcher: Option<Batcher>,
    clients: Clients,
    token: Option<Token>,
}

/// What a request says.
#[derive(Clone)]
struct Content {
    headers: HeaderMap,
    body: Bytes,
}

impl HttpSink {
    /// A sink that has not connected yet.
    ///
    /// # Errors
    /// Certificates that cannot be read.
    pub fn new(
        name: &str,
        config: &HttpConfig,
        settings: &HttpSettings,
    ) -> Result<Self, TargetError> {
        Ok(Self {
            name: name.to_owned(),
            url: config.url.clone(),
            mode: config.mode,
            batcher: (config.mode == ContentMode::Batched)
                .then(|| Batcher::new(config.batch.max_events, config.batch.linger)),
            clients: Clients::new(config, settings)?,
            token: config.token.clone().map(Token::new),
        })
    }

    async fn deliver(&self, event: &Event) -> Result<(), Failure> {
        match &self.batcher {
            None => self.post(content(self.mode, event)?).await,
            Some(batcher) => batcher.attempt(event, |body| self.post(json(BATCH, body))).await,
        }
    }

    async fn post(&self, content: Content) -> Result<(), Failure> {
        let Some(token) = &self.token else { return self.send(content, None).await };
        let answer = self.send(content.clone(), Some(token)).await;
        // What may be wrong is the token, never the event.
        if let Err(Failure::Answer { status: StatusCode::UNAUTHORIZED, excerpt, .. }) = &answer {
            if token.refused() {
                return self.send(content, Some(token)).await;
            }
            let refused = format!("the token was refused{}", quoted(excerpt));
            return Err(Failure::Credentials(refused));
        }
        answer
    }

    async fn send(&self, content: Content, token: Option<&Token>) -> Result<(), Failure> {
        let mut request = Request::new(Method::POST, self.url.clone());
        *request.headers_mut() = content.headers;
        *request.body_mut() = Some(content.body.into());
        if let Some(token) = token
            && let Some(header) = token.header(SystemTime::now()).map_err(Failure::Credentials)?
        {
            request.headers_mut().insert(AUTHORIZATION, header);
        }
        let response = self.clients.client().execute(request).await.map_err(failure)?;
        outcome(response).await
    }
}

/// Of one event.
fn content(mode: ContentMode, event: &Event) -> Result<Content, Failure> {
    Ok(match mode {
        ContentMode::Binary => {
            Content { headers: binary::headers(event)?, body: binary::body(event)?.into() }
        }
        // CloudEvents JSON format 1.0, sections 3 and 4.
        ContentMode::Structured => json(EVENT, serde_json::to_vec(event).map_err(unsendable)?),
        ContentMode::Batched => json(BATCH, serde_json::to_vec(&[event]).map_err(unsendable)?),
    })
}

fn json(media_type: HeaderValue, body: Vec<u8>) -> Content {
    Content { headers: HeaderMap::from_iter([(CONTENT_TYPE, media_type)]), body: body.into() }
}

impl Sink for HttpSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn verb(&self) -> &'static str {
        "POST"
    }

    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        self.deliver(event).boxed()
    }
}

async fn outcome(mut response: Response) -> Result<(), Failure> {
    let status = response.status();
    let asked = response.headers().get(RETRY_AFTER).and_then(|value| value.to_str().ok());
    let retry_after = asked.and_then(|value| retry_after(value, SystemTime::now()));
    // The status has decided already; a body that breaks off changes nothing.
    let mut body = Vec::new();
    while let Ok(Some(chunk)) = response.chunk().await {
        body.extend_from_slice(&chunk);
        if body.len() > BODY_LIMIT {
            break;
        }
    }
    if status.is_success() {
        return Ok(());
    }
    Err(Failure::Answer { status, retry_after, excerpt: excerpt(&body) })
}

/// The body's beginning in printable characters.
fn excerpt(body: &[u8]) -> String {
    let text = String::from_utf8_lossy(&body[..body.len().min(4 * EXCERPT_CHARS)]);
    let printable = text.trim().chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(EXCERPT_CHARS).collect()
}

fn failure(error: reqwest::Error) -> Failure {
    if error.is_builder() {
        return Failure::Unsendable(chain(&error));
    }
    if error.is_timeout() {
        return Failure::Timeout;
    }
    if !error.is_connect() && causes(&error).any(is_close) {
        return Failure::Closed(chain(&error));
    }
    Failure::Network(chain(&error))
}

/// Whether this says that the other end closed or reset the connection.
fn is_close(error: &(dyn Error + 'static)) -> bool {
    if let Some(error) = error.downcast_ref::<hyper::Error>() {
        return error.is_incomplete_message() || error.is_canceled() || error.is_closed();
    }
    let kind = error.downcast_ref::<std::io::Error>().map(std::io::Error::kind);
    matches!(
        kind,
        Some(
            ErrorKind::ConnectionReset
                | ErrorKind::ConnectionAborted
                | ErrorKind::BrokenPipe
                | ErrorKind::UnexpectedEof
        )
    )
}
