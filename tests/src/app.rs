//! The main application: a small shop over HTTP, which knows nothing of Detector.
//!
//! `GET /` and `GET /catalog/...` (pages), `POST /api/buttons/buy` (the action),
//! `GET /download?bytes=N` (bulk traffic).

use std::{
    convert::Infallible,
    io,
    net::{IpAddr, SocketAddr, TcpListener},
    pin::Pin,
    sync::{Arc, Mutex, PoisonError},
    task::{Context, Poll},
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::{BodyExt as _, Full};
use hyper::{
    Method, Request, Response, StatusCode,
    body::{Frame, Incoming, SizeHint},
};

use crate::server::{Body, Peer, Server};

/// A request that the application answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    /// Who asked: the UE, when no address is translated on the way.
    pub from: IpAddr,
    /// The method.
    pub method: String,
    /// The path, without the query.
    pub path: String,
    /// The answer's status.
    pub status: u16,
}

/// The running application; it stops when this is dropped.
#[derive(Debug)]
pub struct App {
    server: Server,
    seen: Arc<Mutex<Vec<Seen>>>,
}

impl App {
    /// Serves on this listener.
    pub fn start(listener: TcpListener) -> Result<Self> {
        let seen = Arc::new(Mutex::new(Vec::new()));
        let log = Arc::clone(&seen);
        let server = Server::start(listener, move |peer, request| {
            let log = Arc::clone(&log);
            async move { answer(&peer, request, &log).await }
        })?;
        Ok(Self { server, seen })
    }

    /// Where it listens.
    pub fn address(&self) -> SocketAddr {
        self.server.address
    }

    /// The requests so far, in the order they came.
    pub fn seen(&self) -> Vec<Seen> {
        self.seen.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

async fn answer(
    peer: &Peer,
    request: Request<Incoming>,
    log: &Mutex<Vec<Seen>>,
) -> io::Result<Response<Body>> {
    let (head, body) = request.into_parts();
    // The next request of the connection stands after this body.
    body.collect().await.map_err(io::Error::other)?;
    let (status, content_type, body) = route(&head.method, &head.uri);
    log.lock().unwrap_or_else(PoisonError::into_inner).push(Seen {
        from: peer.address.ip().to_canonical(),
        method: head.method.to_string(),
        path: head.uri.path().to_owned(),
        status: status.as_u16(),
    });
    Response::builder()
        .status(status)
        .header("content-type", content_type)
        .body(body)
        .map_err(io::Error::other)
}

fn route(method: &Method, uri: &hyper::Uri) -> (StatusCode, &'static str, Body) {
    let path = uri.path();
    match (method.as_str(), path) {
        ("GET", "/") => page("<h1>The shop</h1><a href=/catalog/>catalog</a>"),
        ("GET", _) if path.starts_with("/catalog/") => page("<h1>Catalog</h1>"),
        ("POST", "/api/buttons/buy") => {
            (StatusCode::OK, "application/json", text(r#"{"bought":true}"#))
        }
        ("GET", "/download") => {
            let bytes = uri.query().and_then(|query| query.strip_prefix("bytes=")?.parse().ok());
            let body = Zeros { left: bytes.unwrap_or(1_000_000) };
            (StatusCode::OK, "application/octet-stream", body.boxed())
        }
        _ => (StatusCode::NOT_FOUND, "text/plain", text("no such page\n")),
    }
}

fn page(html: &'static str) -> (StatusCode, &'static str, Body) {
    (StatusCode::OK, "text/html", text(html))
}

fn text(text: &'static str) -> Body {
    Full::new(Bytes::from_static(text.as_bytes())).boxed()
}

/// A body of so many zero bytes, made as it is sent.
struct Zeros {
    left: u64,
}

impl hyper::body::Body for Zeros {
    type Data = Bytes;
    type Error = Infallible;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        _: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Infallible>>> {
        static CHUNK: [u8; 65_536] = [0; 65_536];
        if self.is_end_stream() {
            return Poll::Ready(None);
        }
        let length = CHUNK.len().min(usize::try_from(self.left).unwrap_or(CHUNK.len()));
        self.left -= length as u64;
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK[..length])))))
    }

    fn is_end_stream(&self) -> bool {
        self.left == 0
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.left)
    }
}
