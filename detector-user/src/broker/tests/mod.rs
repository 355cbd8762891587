//! The Broker as a sender and a subscriber see it: over real connections on loopback.

mod delivery;
mod ingress;
mod samples;

use std::{
    collections::VecDeque,
    net::SocketAddr,
    path::Path,
    sync::{Arc, Mutex},
    time::Duration,
};

use axum::{
    Router,
    body::Bytes,
    extract::State,
    http::{HeaderMap, StatusCode},
    response::{IntoResponse, Response},
};
use tokio::sync::{Notify, mpsc};

use super::{
    Broker, Config, DeliveryReport, Reporter, RunningBroker, Timeouts, manifest::Manifests,
    topology::Topology,
};

/// What nothing here should ever take: long enough for a loaded machine, short enough to fail.
const LONG: Duration = Duration::from_secs(20);

/// Awaits something that must happen.
async fn soon<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(LONG, future).await.expect("happens within 20 s")
}

/// A subscriber that answers as scripted, then 200 for ever, and hands over what it got.
struct Subscriber {
    addr: SocketAddr,
    received: mpsc::UnboundedReceiver<Received>,
}

/// What a subscriber got.
struct Received {
    headers: HeaderMap,
    body: Bytes,
}

impl Received {
    fn header(&self, name: &str) -> Option<&str> {
        self.headers.get(name).map(|value| value.to_str().expect("text"))
    }
}

type Script = Arc<Mutex<VecDeque<Response>>>;

impl Subscriber {
    async fn answering(script: Vec<Response>) -> Self {
        Self::start(script, None).await
    }

    /// Answers only once `gate` is notified.
    async fn gated(gate: Arc<Notify>) -> Self {
        Self::start(vec![], Some(gate)).await
    }

    async fn start(script: Vec<Response>, gate: Option<Arc<Notify>>) -> Self {
        let (sender, received) = mpsc::unbounded_channel();
        let script: Script = Arc::new(Mutex::new(script.into()));
        let handler = move |State(script): State<Script>, headers: HeaderMap, body: Bytes| {
            let (sender, gate) = (sender.clone(), gate.clone());
            async move {
                let _ = sender.send(Received { headers, body });
                if let Some(gate) = gate {
                    gate.notified().await;
                }
                let next = script.lock().expect("not poisoned").pop_front();
                next.unwrap_or_else(|| StatusCode::OK.into_response())
            }
        };
        let router = Router::new().fallback(handler).with_state(script);
        let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.expect("loopback");
        let addr = listener.local_addr().expect("bound");
        tokio::spawn(async move { axum::serve(listener, router).await });
        Self { addr, received }
    }

    async fn next(&mut self) -> Received {
        soon(self.received.recv()).await.expect("subscriber runs")
    }

    /// What it got and nobody asked for; everything that was awaited before has arrived.
    fn others(&mut self) -> usize {
        std::iter::from_fn(|| self.received.try_recv().ok()).count()
    }
}

fn status(code: u16) -> Response {
    StatusCode::from_u16(code).expect("a status").into_response()
}

/// A reply event in binary mode.
fn reply(event_type: &str) -> Response {
    let headers = [
        ("ce-specversion", "1.0"),
        ("ce-id", "reply-1"),
        ("ce-source", "/function"),
        ("ce-type", event_type),
        ("x-request-id", "from-function"),
    ];
    (StatusCode::OK, headers).into_response()
}

/// A Broker under test and the reports of its deliveries.
struct Bench {
    broker: RunningBroker,
    reports: mpsc::UnboundedReceiver<DeliveryReport>,
    client: reqwest::Client,
}

impl Bench {
    async fn start(yaml: &str) -> Self {
        Self::with_timeouts(yaml, Timeouts::default()).await
    }

    async fn with_timeouts(yaml: &str, timeouts: Timeouts) -> Self {
        let mut manifests = Manifests::default();
        manifests.add(Path::new("test.yaml"), yaml).expect("readable");
        let topology = Topology::new(manifests, &[]).expect("fits together");
        Self::with_topology(topology, timeouts).await
    }

    async fn with_topology(topology: Topology, timeouts: Timeouts) -> Self {
        let (sender, reports) = mpsc::unbounded_channel();
        let config = Config {
            listen: "127.0.0.1:0".parse().expect("an address"),
            topology,
            reporter: Reporter::new(move |report| drop(sender.send(report))),
            timeouts,
        };
        let broker = Broker::start(config).await.expect("starts");
        let client = reqwest::Client::builder().no_proxy().build().expect("client");
        Self { broker, reports, client }
    }

    fn request(&self, path: &str) -> reqwest::RequestBuilder {
        self.client.post(format!("http://{}{path}", self.broker.addr))
    }

    /// A valid event in binary mode to the Broker edge/default.
    fn event(&self, event_type: &str) -> reqwest::RequestBuilder {
        self.request("/edge/default").headers(event_headers(event_type)).body("{\"price\":3}")
    }

    async fn report(&mut self) -> DeliveryReport {
        soon(self.reports.recv()).await.expect("broker runs")
    }
}

async fn code(request: reqwest::RequestBuilder) -> u16 {
    soon(request.send()).await.expect("an answer").status().as_u16()
}

fn event_headers(event_type: &str) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in [
        ("ce-specversion", "1.0"),
        ("ce-id", "e-1"),
        ("ce-source", "/mec/site-a"),
        ("ce-type", event_type),
        ("content-type", "application/json"),
    ] {
        headers.insert(name, value.parse().expect("a header value"));
    }
    headers
}

/// Broker edge/default.
const BROKER: &str = "\
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default, namespace: edge}
";

/// A Trigger of edge/default; `more` is the rest of its spec, in flow style.
fn trigger(name: &str, subscriber: SocketAddr, more: &str) -> String {
    format!(
        "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\n\
         metadata: {{name: {name}, namespace: edge}}\n\
         spec: {{broker: default, subscriber: {{uri: 'http://{subscriber}/'}}{more}}}\n"
    )
}

/// Channel edge/audit with one Subscription.
fn channel(subscriber: SocketAddr, more: &str) -> String {
    format!(
        "---\napiVersion: messaging.knative.dev/v1\nkind: Channel\n\
         metadata: {{name: audit, namespace: edge}}\n\
         ---\napiVersion: messaging.knative.dev/v1\nkind: Subscription\n\
         metadata: {{name: audit, namespace: edge}}\n\
         spec: {{channel: {{apiVersion: messaging.knative.dev/v1, kind: Channel, name: audit}}, \
         subscriber: {{uri: 'http://{subscriber}/'}}{more}}}\n"
    )
}
