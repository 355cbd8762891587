//! Connections: HTTP/1.1 in cleartext only, with the limits of Knative's ingress.

use std::time::Duration;

use axum::Router;
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::net::{TcpListener, TcpStream};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    Timeouts,
    ingress::{self, Ingress},
};

/// Go's `http.DefaultMaxHeaderBytes`; beyond it the answer is 431.
const MAX_HEADER_BYTES: usize = 1 << 20;
/// Go counts bytes only; hyper wants a number of headers too.
const MAX_HEADERS: usize = 1024;

/// Serves until `ingress.stop` is cancelled, then drains; the number of deliveries that had to be
/// abandoned.
pub(crate) async fn serve(listener: TcpListener, ingress: Ingress, timeouts: Timeouts) -> usize {
    let (stop, dispatcher) = (ingress.stop.clone(), ingress.dispatcher.clone());
    let router = Router::new().fallback(ingress::answer).with_state(ingress);
    let connections = TaskTracker::new();
    while let Some(accepted) = stop.run_until_cancelled(listener.accept()).await {
        match accepted {
            Ok((stream, _peer)) => {
                let served = connection(stream, router.clone(), timeouts.idle, stop.clone());
                connections.spawn(served);
            }
            // Out of file descriptors, most likely: connections that end give some back.
            Err(error) => {
                tracing::warn!(%error, "cannot accept a connection");
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }
    }
    drop(listener);
    let abandoned = dispatcher.drain(timeouts.drain).await;
    // Answers to what was drained are still on their way out.
    connections.close();
    let _ = tokio::time::timeout(Duration::from_secs(1), connections.wait()).await;
    abandoned
}

async fn connection(stream: TcpStream, router: Router, idle: Duration, stop: CancellationToken) {
    let service = TowerToHyperService::new(router);
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        // Runs from the moment a head is awaited, so it also closes idle connections.
        .header_read_timeout(idle)
        .max_headers(MAX_HEADERS)
        .max_header_size(MAX_HEADER_BYTES)
        .max_buf_size(2 * MAX_HEADER_BYTES)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = stop.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        tracing::debug!(%error, "connection ended");
    }
}
