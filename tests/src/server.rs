//! An HTTP/1.1 server on a thread of its own, over a listener that was made wherever it should be
//! (in a namespace, on loopback).

use std::{
    future::Future,
    io,
    net::{SocketAddr, TcpListener},
    sync::Arc,
    thread::JoinHandle,
};

use anyhow::Result;
use bytes::Bytes;
use http_body_util::combinators::BoxBody;
use hyper::{Request, Response, body::Incoming, server::conn::http1, service::service_fn};
use hyper_util::rt::TokioIo;
use tokio::sync::oneshot;

/// What handlers answer with.
pub(crate) type Body = BoxBody<Bytes, std::convert::Infallible>;

/// One connection, as the handler sees it.
pub(crate) struct Peer {
    /// The client's address.
    pub(crate) address: SocketAddr,
    socket: Arc<socket2::Socket>,
}

impl Peer {
    /// The connection ends with a TCP reset when the handler returns this error.
    pub(crate) fn reset(&self) -> io::Error {
        let _ = self.socket.set_linger(Some(std::time::Duration::ZERO));
        io::Error::from(io::ErrorKind::ConnectionReset)
    }
}

/// A running server; it stops when this is dropped.
#[derive(Debug)]
pub(crate) struct Server {
    pub(crate) address: SocketAddr,
    stop: Option<oneshot::Sender<()>>,
    thread: Option<JoinHandle<()>>,
}

impl Server {
    /// Serves every request with the handler; an error closes the connection without an answer.
    pub(crate) fn start<H, F>(listener: TcpListener, handler: H) -> Result<Self>
    where
        H: Fn(Arc<Peer>, Request<Incoming>) -> F + Clone + Send + 'static,
        F: Future<Output = io::Result<Response<Body>>> + 'static,
    {
        let address = listener.local_addr()?;
        listener.set_nonblocking(true)?;
        let (stop, stopped) = oneshot::channel();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let thread =
            std::thread::Builder::new().name(format!("http {address}")).spawn(move || {
                let tasks = tokio::task::LocalSet::new();
                tasks.block_on(&runtime, async move {
                    tokio::select! {
                        () = accept(listener, handler) => {}
                        _ = stopped => {}
                    }
                });
            })?;
        Ok(Self { address, stop: Some(stop), thread: Some(thread) })
    }
}

impl Drop for Server {
    fn drop(&mut self) {
        drop(self.stop.take());
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

async fn accept<H, F>(listener: TcpListener, handler: H)
where
    H: Fn(Arc<Peer>, Request<Incoming>) -> F + Clone + 'static,
    F: Future<Output = io::Result<Response<Body>>> + 'static,
{
    let Ok(listener) = tokio::net::TcpListener::from_std(listener) else { return };
    while let Ok((stream, address)) = listener.accept().await {
        let _ = stream.set_nodelay(true);
        // A second descriptor of the socket, because hyper owns the stream until it is over.
        let Ok(socket) = socket2::SockRef::from(&stream).try_clone() else { continue };
        let peer = Arc::new(Peer { address, socket: Arc::new(socket) });
        let handler = handler.clone();
        tokio::task::spawn_local(async move {
            let service = service_fn(|request| handler(Arc::clone(&peer), request));
            // Errors are the client's going away, or a reset that the handler asked for.
            let _ = http1::Builder::new().serve_connection(TokioIo::new(stream), service).await;
        });
    }
}
