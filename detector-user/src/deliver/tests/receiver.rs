//! A receiver of events on loopback that misbehaves as told, for tests.

use std::{
    collections::{HashMap, VecDeque},
    net::Ipv4Addr,
    sync::{Arc, Mutex},
};

use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::{TcpListener, TcpStream},
    sync::{Notify, mpsc},
    task::JoinSet,
    time::timeout,
};
use url::Url;

/// What the receiver does with a request after it has read it.
pub(super) enum Answer {
    /// This status, no body, connection kept.
    Status(u16),
    /// This status with these header lines and this body.
    With(u16, &'static str, &'static str),
    /// A 202, then the connection is closed without having said so.
    TakeThenClose,
    /// Nothing, with the connection left open.
    Hang,
    /// A TCP reset.
    Reset,
    /// The end of the stream, while still reading.
    HalfClose,
    /// A 202 when told.
    Held(Arc<Notify>),
}

/// A request as it came.
#[derive(Debug)]
pub(super) struct Request {
    /// Which connection, in the order of their acceptance.
    pub(super) connection: usize,
    pub(super) line: String,
    /// Names in small letters.
    pub(super) headers: HashMap<String, String>,
    pub(super) body: Vec<u8>,
}

/// Listens until dropped.
pub(super) struct Receiver {
    pub(super) url: Url,
    requests: mpsc::UnboundedReceiver<Request>,
    _server: JoinSet<()>,
}

type Script = Arc<Mutex<VecDeque<Answer>>>;

impl Receiver {
    /// Answers in the order of the script, on whatever connection; 202 when it has ended.
    pub(super) async fn start(script: impl IntoIterator<Item = Answer>) -> Self {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
        let url = format!("http://{}/ns/default", listener.local_addr().unwrap());
        let script = Arc::new(Mutex::new(script.into_iter().collect()));
        let (sender, requests) = mpsc::unbounded_channel();
        let mut server = JoinSet::new();
        server.spawn(async move {
            // Owned here, so that connections end with the server.
            let mut connections = JoinSet::new();
            for connection in 0.. {
                let (stream, _) = listener.accept().await.unwrap();
                connections.spawn(serve(
                    stream,
                    connection,
                    Script::clone(&script),
                    sender.clone(),
                ));
            }
        });
        Self { url: url.parse().unwrap(), requests, _server: server }
    }

    /// The next request, as soon as it has come.
    pub(super) async fn next(&mut self) -> Request {
        timeout(super::PATIENCE, self.requests.recv()).await.expect("a request in time").unwrap()
    }

    /// Requests that have come and were not asked for.
    pub(super) fn unread(&mut self) -> usize {
        self.requests.len()
    }
}

async fn serve(
    mut stream: TcpStream,
    connection: usize,
    script: Script,
    requests: mpsc::UnboundedSender<Request>,
) {
    while let Some(request) = read(&mut stream, connection).await {
        let answer = script.lock().unwrap().pop_front().unwrap_or(Answer::Status(202));
        // Fails when the test has seen enough.
        let _ = requests.send(request);
        let text = match answer {
            Answer::Status(status) => response(status, "", ""),
            Answer::With(status, headers, body) => response(status, headers, body),
            Answer::TakeThenClose => {
                let _ = stream.write_all(response(202, "", "").as_bytes()).await;
                return;
            }
            Answer::Hang => std::future::pending().await,
            Answer::Reset => return stream.set_zero_linger().unwrap(),
            Answer::HalfClose => {
                let _ = stream.shutdown().await;
                let _ = stream.read_to_end(&mut Vec::new()).await;
                return;
            }
            Answer::Held(release) => {
                release.notified().await;
                response(202, "", "")
            }
        };
        // Fails when the client has given up.
        let _ = stream.write_all(text.as_bytes()).await;
    }
}

fn response(status: u16, headers: &str, body: &str) -> String {
    format!("HTTP/1.1 {status} Told\r\ncontent-length: {}\r\n{headers}\r\n{body}", body.len())
}

/// One request, or nothing at the end of the connection.
async fn read(stream: &mut TcpStream, connection: usize) -> Option<Request> {
    let mut head = Vec::new();
    while !head.ends_with(b"\r\n\r\n") {
        head.push(stream.read_u8().await.ok()?);
    }
    let head = String::from_utf8(head).unwrap();
    let (line, rest) = head.split_once("\r\n").unwrap();
    let headers: HashMap<_, _> = rest
        .lines()
        .filter_map(|line| line.split_once(": "))
        .map(|(name, value)| (name.to_ascii_lowercase(), value.to_owned()))
        .collect();
    let mut body = vec![0; headers.get("content-length").map_or(0, |n| n.parse().unwrap())];
    stream.read_exact(&mut body).await.ok()?;
    Some(Request { connection, line: line.to_owned(), headers, body })
}
