//! The sample function: takes CloudEvents, prints one JSON line for each, and answers a press of
//! the buy button with an event of its own. Small on purpose; what a real one must not leave out
//! is here: delivery is at least once, so it remembers what it has done, by `source` and `id`.
//!
//! As a Knative Service it needs nothing but `PORT`, which Knative sets.

mod function;
mod seen;

use std::{
    io::Write,
    net::{IpAddr, Ipv4Addr, SocketAddr},
    sync::{Arc, Mutex},
};

use anyhow::Context;
use axum::{
    Router,
    extract::State,
    response::{IntoResponse, Response},
    routing::{get, post},
};
use clap::Parser;
use cloudevents::Event;
use tokio::signal::unix::{SignalKind, signal};

use crate::{function::handle, seen::Seen};

/// A CloudEvents receiver: prints each event as a line of JSON and replies to
/// com.example.arshop.buy.clicked with com.example.arshop.buy.accepted.
///
/// POST / takes one event, in binary or structured mode. GET /healthz answers 200. An event that
/// was here before (same source and id) gets the same reply and is marked "duplicate": true.
/// SIGTERM ends it after the requests that run. Exit code: 0 stopped, 1 cannot listen.
#[derive(Parser)]
#[command(version)]
struct Cli {
    /// Address to listen on [default: 127.0.0.1:8080; with PORT set, all addresses at that port]
    #[arg(long, value_name = "ADDR:PORT")]
    listen: Option<SocketAddr>,

    /// Port inside a container; Knative sets it
    #[arg(long, env = "PORT", hide = true)]
    port: Option<u16>,

    /// How many events to remember, to tell duplicates
    #[arg(long, env = "REMEMBER", value_name = "EVENTS", default_value_t = 10_000)]
    remember: usize,
}

impl Cli {
    fn address(&self) -> SocketAddr {
        const UNSPECIFIED: IpAddr = IpAddr::V4(Ipv4Addr::UNSPECIFIED);
        match (self.listen, self.port) {
            (Some(listen), _) => listen,
            (None, Some(port)) => (UNSPECIFIED, port).into(),
            (None, None) => (Ipv4Addr::LOCALHOST, 8080).into(),
        }
    }
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let cli = Cli::parse();
    let address = cli.address();
    let listener = tokio::net::TcpListener::bind(address)
        .await
        .with_context(|| format!("cannot listen on {address}; choose another with --listen"))?;
    eprintln!("Taking CloudEvents on http://{}", listener.local_addr()?);
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    let stop = async move {
        tokio::select! {
            _ = terminate.recv() => (),
            _ = interrupt.recv() => (),
        }
    };
    axum::serve(listener, router(cli.remember)).with_graceful_shutdown(stop).await?;
    Ok(())
}

fn router(remember: usize) -> Router {
    Router::new()
        .route("/", post(receive))
        .route("/healthz", get(|| async { "ok\n" }))
        .with_state(Arc::new(Mutex::new(Seen::new(remember))))
}

async fn receive(State(seen): State<Arc<Mutex<Seen>>>, event: Event) -> Response {
    // Held for the bookkeeping only; a panic there would have taken nothing half-done with it.
    let times = seen.lock().unwrap_or_else(|poisoned| poisoned.into_inner()).count(&event);
    let (line, reply) = handle(&event, times, chrono::Utc::now());
    // One write under the lock keeps lines whole; a closed pipe must not fail the request.
    let _ = writeln!(std::io::stdout().lock(), "{line}");
    match reply {
        Some(reply) => reply.into_response(),
        // Empty: a Broker takes an answer with any other body as a failure.
        None => ().into_response(),
    }
}

#[cfg(test)]
mod tests {
    use axum::{
        body::{Body, to_bytes},
        http::{Request, StatusCode},
    };
    use tower::ServiceExt;

    use super::*;

    fn post_event(event_type: &str) -> Request<Body> {
        Request::post("/")
            .header("ce-specversion", "1.0")
            .header("ce-id", "e-1")
            .header("ce-source", "/mec/site-a")
            .header("ce-type", event_type)
            .header("content-type", "application/json")
            .body(Body::from("{}"))
            .expect("a request")
    }

    #[tokio::test]
    async fn a_press_is_answered_with_an_event_and_again_with_the_same_one() {
        let router = router(10);
        for _ in 0..2 {
            let event = post_event("com.example.arshop.buy.clicked");
            let answer = router.clone().oneshot(event).await.unwrap();
            assert_eq!(answer.status(), StatusCode::OK);
            assert_eq!(answer.headers()["ce-type"], "com.example.arshop.buy.accepted");
            assert_eq!(answer.headers()["ce-id"], "e-1");
        }
    }

    #[tokio::test]
    async fn another_event_is_answered_200_with_an_empty_body() {
        let event = post_event("com.example.arshop.session.started");
        let answer = router(10).oneshot(event).await.unwrap();
        assert_eq!(answer.status(), StatusCode::OK);
        assert!(!answer.headers().contains_key("ce-id"));
        assert!(to_bytes(answer.into_body(), 100).await.unwrap().is_empty());
    }

    #[tokio::test]
    async fn what_is_no_event_is_answered_400() {
        let answer = router(10).oneshot(Request::post("/").body(Body::from("x")).unwrap()).await;
        assert_eq!(answer.unwrap().status(), StatusCode::BAD_REQUEST);
    }

    #[tokio::test]
    async fn healthz_answers_200() {
        let request = Request::get("/healthz").body(Body::empty()).unwrap();
        assert_eq!(router(10).oneshot(request).await.unwrap().status(), StatusCode::OK);
    }

    #[test]
    fn it_listens_on_loopback_unless_knative_sets_a_port() {
        let at = |listen: Option<&str>, port| {
            let listen = listen.map(|listen| listen.parse().unwrap());
            Cli { listen, port, remember: 1 }.address().to_string()
        };
        assert_eq!(at(None, None), "127.0.0.1:8080");
        assert_eq!(at(None, Some(9000)), "0.0.0.0:9000");
        assert_eq!(at(Some("127.0.0.1:0"), Some(9000)), "127.0.0.1:0");
    }
}
