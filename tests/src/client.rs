//! A user: one HTTP/1.1 connection, kept alive, from an address of one's choice.

use std::net::{SocketAddr, TcpStream};

use anyhow::{Context as _, Result};
use bytes::{Buf as _, Bytes};
use http_body_util::{BodyExt as _, Full};
use hyper::{Request, client::conn::http1};
use hyper_util::rt::TokioIo;
use tokio::runtime::Runtime;

/// An answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Answer {
    /// The status code.
    pub status: u16,
    /// How long the body was.
    pub length: usize,
    /// The body's first 64 KiB.
    pub body: Vec<u8>,
}

/// One connection to a server.
#[derive(Debug)]
pub struct Client {
    runtime: Runtime,
    requests: http1::SendRequest<Full<Bytes>>,
    host: String,
    local: SocketAddr,
}

impl Client {
    /// Over a connection made wherever it should come from: `Client::over(namespace.connect(..)?)`.
    pub fn over(stream: TcpStream) -> Result<Self> {
        let (local, host) = (stream.local_addr()?, stream.peer_addr()?.to_string());
        stream.set_nonblocking(true)?;
        stream.set_nodelay(true)?;
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let requests = runtime.block_on(async {
            let stream = TokioIo::new(tokio::net::TcpStream::from_std(stream)?);
            let (requests, connection) = http1::handshake(stream).await?;
            tokio::spawn(connection);
            anyhow::Ok(requests)
        })?;
        Ok(Self { runtime, requests, host, local })
    }

    /// A connection from this process's own namespace.
    pub fn connect(to: SocketAddr) -> Result<Self> {
        let stream = TcpStream::connect(to).with_context(|| format!("cannot connect to {to}"))?;
        Self::over(stream)
    }

    /// This end of the connection.
    pub fn local_address(&self) -> SocketAddr {
        self.local
    }

    /// `GET path`.
    pub fn get(&mut self, path: &str) -> Result<Answer> {
        self.request("GET", path, &[], "")
    }

    /// `POST path` with a JSON body.
    pub fn post(&mut self, path: &str, json: &str) -> Result<Answer> {
        self.request("POST", path, &[("content-type", "application/json")], json)
    }

    /// Any request; reads the whole answer.
    pub fn request(
        &mut self,
        method: &str,
        path: &str,
        headers: &[(&str, &str)],
        body: &str,
    ) -> Result<Answer> {
        let mut request = Request::builder()
            .method(method)
            .uri(path)
            .header("host", &self.host)
            .header("user-agent", "testbed");
        for (name, value) in headers {
            request = request.header(*name, *value);
        }
        let request = request.body(Full::new(Bytes::copy_from_slice(body.as_bytes())))?;
        let requests = &mut self.requests;
        self.runtime
            .block_on(async {
                requests.ready().await?;
                let answer = requests.send_request(request).await?;
                let status = answer.status().as_u16();
                let (length, body) = read(answer.into_body()).await?;
                anyhow::Ok(Answer { status, length, body })
            })
            .with_context(|| format!("{method} {path} at {}", self.host))
    }
}

/// Keeps the beginning and counts the rest, so that a download of any size needs little memory.
async fn read(mut body: hyper::body::Incoming) -> Result<(usize, Vec<u8>)> {
    const KEPT: usize = 65_536;
    let (mut length, mut kept) = (0, Vec::new());
    while let Some(frame) = body.frame().await {
        if let Ok(data) = frame?.into_data() {
            length += data.remaining();
            let room = KEPT - kept.len();
            kept.extend_from_slice(&data[..data.len().min(room)]);
        }
    }
    Ok((length, kept))
}
