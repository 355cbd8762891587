//! An HTTP endpoint for CloudEvents that keeps every request and answers as told.

use std::{
    collections::VecDeque,
    io,
    net::{SocketAddr, TcpListener},
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    time::{Duration, Instant},
};

use anyhow::{Result, bail};
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{HeaderMap, Request, Response, body::Incoming};

use crate::server::{Body, Peer, Server};

/// What to answer a request with.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reply {
    /// This status, after this delay.
    Status(u16, Duration),
    /// This status with these headers and this body: a subscriber's reply event, a `Retry-After`.
    Full {
        /// The status.
        status: u16,
        /// Header names and values.
        headers: Vec<(String, String)>,
        /// The body.
        body: String,
    },
    /// A TCP reset instead of an answer (the request was read and is recorded).
    Reset,
    /// The connection is closed without an answer.
    Close,
}

impl Reply {
    /// This status at once.
    pub fn status(status: u16) -> Self {
        Self::Status(status, Duration::ZERO)
    }
}

/// A request as it came.
#[derive(Clone, Debug)]
pub struct Recorded {
    /// When it had been read.
    pub at: Instant,
    /// The client's end of the connection; the same port means the same connection.
    pub from: SocketAddr,
    /// The method.
    pub method: String,
    /// Path and query.
    pub path: String,
    /// The headers.
    pub headers: HeaderMap,
    /// The body.
    pub body: Bytes,
    /// What it is answered with.
    pub reply: Reply,
}

impl Recorded {
    /// A header's value; empty when there is none.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The body as JSON; null when it is none.
    pub fn json(&self) -> serde_json::Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }
}

struct State {
    recorded: Vec<Recorded>,
    /// Answers for the next requests, before the usual one.
    next: VecDeque<Reply>,
    usual: Reply,
}

#[derive(Default)]
struct Shared {
    state: Mutex<State>,
    changed: Condvar,
}

impl Default for State {
    fn default() -> Self {
        Self { recorded: Vec::new(), next: VecDeque::new(), usual: Reply::status(202) }
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The running endpoint; it stops when this is dropped. Answers 202 until told otherwise.
pub struct Receiver {
    server: Server,
    shared: Arc<Shared>,
}

impl Receiver {
    /// On a free port of this process's own loopback.
    pub fn on_loopback() -> Result<Self> {
        Self::start(TcpListener::bind("127.0.0.1:0")?)
    }

    /// On this listener, e.g. one made by [`crate::netns::Netns::listen`].
    pub fn start(listener: TcpListener) -> Result<Self> {
        let shared = Arc::new(Shared::default());
        let handler = Arc::clone(&shared);
        let server = Server::start(listener, move |peer, request| {
            let shared = Arc::clone(&handler);
            async move { serve(&peer, request, &shared).await }
        })?;
        Ok(Self { server, shared })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// `http://<address>/`.
    pub fn url(&self) -> String {
        format!("http://{}/", self.address())
    }

    /// What every request gets from now on.
    pub fn answer(&self, reply: Reply) {
        self.shared.lock().usual = reply;
    }

    /// What the next requests get, one each, before the usual answer again.
    pub fn answer_next(&self, replies: impl IntoIterator<Item = Reply>) {
        self.shared.lock().next.extend(replies);
    }

    /// All requests so far.
    pub fn recorded(&self) -> Vec<Recorded> {
        self.shared.lock().recorded.clone()
    }

    /// Waits until there are at least so many requests, and returns all of them.
    pub fn wait_for(&self, count: usize, limit: Duration) -> Result<Vec<Recorded>> {
        let state = self.shared.lock();
        let (state, timeout) = self
            .shared
            .changed
            .wait_timeout_while(state, limit, |state| state.recorded.len() < count)
            .unwrap_or_else(PoisonError::into_inner);
        if timeout.timed_out() {
            bail!("{} of {count} requests within {limit:?}", state.recorded.len());
        }
        Ok(state.recorded.clone())
    }
}

async fn serve(
    peer: &Peer,
    request: Request<Incoming>,
    shared: &Shared,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    let body = body.collect().await.map_err(io::Error::other)?.to_bytes();
    let reply = {
        let mut state = shared.lock();
        let reply = state.next.pop_front().unwrap_or_else(|| state.usual.clone());
        state.recorded.push(Recorded {
            at: Instant::now(),
            from: peer.address,
            method: head.method.to_string(),
            path: head.uri.to_string(),
            headers: head.headers,
            body,
            reply: reply.clone(),
        });
        shared.changed.notify_all();
        reply
    };
    match reply {
        Reply::Status(status, delay) => {
            tokio::time::sleep(delay).await;
            respond(status, &[], String::new())
        }
        Reply::Full { status, headers, body } => respond(status, &headers, body),
        Reply::Reset => Err(peer.reset()),
        Reply::Close => Err(io::Error::from(io::ErrorKind::ConnectionAborted)),
    }
}

fn respond(status: u16, headers: &[(String, String)], body: String) -> io::Result<Response<Body>> {
    let mut response = Response::builder().status(status);
    for (name, value) in headers {
        response = response.header(name, value);
    }
    response.body(Full::new(Bytes::from(body)).boxed()).map_err(io::Error::other)
}
