//! A relay between a TCP client and its server that keeps every byte, in the order in which it
//! passed: what real programs say, without root and without a capture.

use std::{
    io::{Read as _, Write as _},
    net::{Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
};

use anyhow::Result;

/// Bytes that passed at once.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Piece {
    /// Which connection, counted from 0.
    pub connection: usize,
    /// From the client to the server.
    pub from_client: bool,
    /// The bytes.
    pub bytes: Vec<u8>,
}

/// A running relay.
pub struct Relay {
    address: SocketAddr,
    log: Arc<Mutex<Vec<Piece>>>,
    accept: Option<JoinHandle<Vec<JoinHandle<()>>>>,
}

impl Relay {
    /// Relays so many connections from a port of loopback to `to`, then no more.
    pub fn start(to: SocketAddr, connections: usize) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0")?;
        let address = listener.local_addr()?;
        let log = Arc::new(Mutex::new(Vec::new()));
        let kept = Arc::clone(&log);
        let accept = std::thread::spawn(move || {
            let clients = listener.incoming().take(connections).map_while(Result::ok);
            clients.enumerate().flat_map(|(i, client)| join(i, client, to, &kept)).collect()
        });
        Ok(Self { address, log, accept: Some(accept) })
    }

    /// Where clients connect.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What passed so far.
    pub fn passed(&self) -> Vec<Piece> {
        self.log.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Waits until all connections are closed in both directions; gives what passed.
    pub fn finish(mut self) -> Vec<Piece> {
        let copies =
            self.accept.take().map_or(Ok(Vec::new()), JoinHandle::join).unwrap_or_default();
        for copy in copies {
            let _ = copy.join();
        }
        std::mem::take(&mut *self.log.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

/// Copies both ways, each on a thread of its own; none if there is no server.
fn join(
    connection: usize,
    client: TcpStream,
    to: SocketAddr,
    log: &Arc<Mutex<Vec<Piece>>>,
) -> Vec<JoinHandle<()>> {
    let ends = TcpStream::connect(to).and_then(|server| {
        Ok([(client.try_clone()?, server.try_clone()?, true), (server, client, false)])
    });
    let ends = ends.into_iter().flatten();
    ends.map(|(from, to, from_client)| {
        let log = Arc::clone(log);
        std::thread::spawn(move || {
            copy(from, to, |bytes| {
                let piece = Piece { connection, from_client, bytes };
                log.lock().unwrap_or_else(PoisonError::into_inner).push(piece);
            })
        })
    })
    .collect()
}

fn copy(mut from: TcpStream, mut to: TcpStream, keep: impl Fn(Vec<u8>)) {
    let mut buffer = [0; 4096];
    while let Ok(length @ 1..) = from.read(&mut buffer) {
        keep(buffer[..length].to_vec());
        if to.write_all(&buffer[..length]).is_err() {
            break;
        }
    }
    let _ = to.shutdown(Shutdown::Write);
}
