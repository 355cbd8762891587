//! From a node to its subscribers, as Knative's in-memory channel and broker filter do it: fan out
//! to every route whose filter lets the event through, retry, take the reply, or hand over to the
//! dead letter sink.
//!
//! A target inside this process is called directly and answers with the status code its ingress
//! would give, so that one retry loop serves both kinds of target.

use std::{
    sync::{
        Arc,
        atomic::{AtomicUsize, Ordering},
    },
    time::Duration,
};

use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode};
use chrono::{SecondsFormat, Utc};
use cloudevents::{Event, event::ExtensionValue};
use futures::{
    FutureExt,
    future::{BoxFuture, join_all},
};
use tokio_util::{sync::CancellationToken, task::TaskTracker};

use super::{
    attempt::{Answer, Attempt, Failure, is_retryable},
    node::{Ack, Node, NodeKind, Route, Target},
    report::{DeliveryReport, Leg, Reporter},
    resource::Name,
    topology::Topology,
};

/// How often an event may go round through replies (eventing `pkg/broker/ttl.go`).
const TTL: &str = "knativebrokerttl";
const DEFAULT_TTL: i64 = 255;
const ARRIVAL_TIME: &str = "knativearrivaltime";
const NAMESPACE_HEADER: HeaderName = HeaderName::from_static("kn-namespace");
const PREFER: HeaderName = HeaderName::from_static("prefer");

/// Carries events from nodes to targets.
#[derive(Clone)]
pub(crate) struct Dispatcher {
    shared: Arc<Shared>,
}

struct Shared {
    topology: Topology,
    client: reqwest::Client,
    reporter: Reporter,
    fanout_timeout: Duration,
    /// Every fan-out that runs, also those no sender waits for any more.
    running: TaskTracker,
    /// No retries from here on.
    stop: CancellationToken,
    /// Deliveries whose retries `stop` ended.
    given_up: AtomicUsize,
    /// Ends what still runs when the Broker has waited long enough for it.
    kill: CancellationToken,
}

/// What travels with an event through one fan-out.
#[derive(Clone)]
pub(crate) struct Context {
    /// Headers that are handed on.
    pub headers: HeaderMap,
    /// No further retries: the sender is gone, or the Broker stops.
    pub give_up: CancellationToken,
}

impl Dispatcher {
    pub(crate) fn new(
        topology: Topology,
        reporter: Reporter,
        fanout_timeout: Duration,
        stop: CancellationToken,
    ) -> reqwest::Result<Self> {
        // No redirects: a 3xx is a failure that is not retried. No proxy: one box.
        let client = reqwest::Client::builder()
            .redirect(reqwest::redirect::Policy::none())
            .no_proxy()
            .pool_idle_timeout(Duration::from_secs(4))
            .build()?;
        let running = TaskTracker::new();
        let kill = CancellationToken::new();
        let given_up = AtomicUsize::new(0);
        let shared =
            Shared { topology, client, reporter, fanout_timeout, running, stop, given_up, kill };
        Ok(Self { shared: Arc::new(shared) })
    }

    pub(crate) fn topology(&self) -> &Topology {
        &self.shared.topology
    }

    /// Events that are being delivered.
    pub(crate) fn in_flight(&self) -> usize {
        self.shared.running.len()
    }

    /// Waits for the fan-outs that run, at most `grace`; says how many deliveries had no end.
    pub(crate) async fn drain(&self, grace: Duration) -> usize {
        let running = &self.shared.running;
        running.close();
        let mut ended = 0;
        if tokio::time::timeout(grace, running.wait()).await.is_err() {
            ended = running.len();
            self.shared.kill.cancel();
            running.wait().await;
        }
        ended + self.shared.given_up.load(Ordering::Relaxed)
    }

    /// Takes a valid event in at a node and answers as its ingress does. Boxed because replies
    /// make it recursive.
    pub(crate) fn admit(
        &self,
        name: Name,
        mut event: Event,
        context: Context,
    ) -> BoxFuture<'static, StatusCode> {
        let this = self.clone();
        async move {
            let Some(node) = this.shared.topology.node(&name) else {
                return StatusCode::NOT_FOUND;
            };
            match node.kind {
                NodeKind::Broker => {
                    event.set_extension(
                        ARRIVAL_TIME,
                        Utc::now().to_rfc3339_opts(SecondsFormat::Nanos, true),
                    );
                    if !spend_ttl(&mut event) {
                        return StatusCode::BAD_REQUEST;
                    }
                }
                NodeKind::Channel => {}
            }
            this.fan_out_as_told(node, event, context).await
        }
        .boxed()
    }

    /// Runs the fan-out as a task of its own: a sender that goes away must not cut a request that
    /// a subscriber is working on.
    async fn fan_out_as_told(&self, node: &Node, event: Event, mut context: Context) -> StatusCode {
        match node.ack {
            Ack::Async => context.give_up = self.shared.stop.clone(),
            Ack::Sync => {}
        }
        let task = self.clone().fan_out(node.name.clone(), event, context);
        let kill = self.shared.kill.clone();
        let running = self.shared.running.spawn(kill.run_until_cancelled_owned(task));
        match node.ack {
            Ack::Async => StatusCode::ACCEPTED,
            Ack::Sync => match tokio::time::timeout(self.shared.fanout_timeout, running).await {
                Ok(Ok(Some(true))) => StatusCode::ACCEPTED,
                Ok(Ok(Some(false) | None) | Err(_)) | Err(_) => StatusCode::INTERNAL_SERVER_ERROR,
            },
        }
    }

    /// To all routes at once; true if every one succeeded.
    async fn fan_out(self, name: Name, event: Event, context: Context) -> bool {
        let Some(node) = self.shared.topology.node(&name) else { return false };
        let matching = node.routes.iter().filter(|route| route.filter.lets_through(&event));
        let deliveries = matching.map(|route| self.deliver(node, route, &event, &context));
        join_all(deliveries).await.into_iter().all(|delivered| delivered)
    }

    /// One route: subscriber, then its reply, or the dead letter sink.
    async fn deliver(&self, node: &Node, route: &Route, event: &Event, context: &Context) -> bool {
        let mut headers = context.headers.clone();
        // Namespaces in manifests that are no header value cannot be DNS labels either.
        if let Ok(namespace) = HeaderValue::from_str(&route.name.namespace) {
            headers.insert(NAMESPACE_HEADER, namespace);
        }
        let context = Context { headers, give_up: context.give_up.clone() };
        let failure = match self.to_subscriber(node, route, event, &context).await {
            Ok(None) => return true,
            Ok(Some((reply, context))) => match &route.reply {
                None => return true,
                Some(target) => {
                    match self.send(node, route, Leg::Reply, target, &reply, &context).await {
                        Ok(_) => return true,
                        Err(failure) => failure,
                    }
                }
            },
            Err(failure) => failure,
        };
        // A sender that went away has no answer and sends again: not a dead letter.
        if context.give_up.is_cancelled() {
            self.shared
                .given_up
                .fetch_add(usize::from(self.shared.stop.is_cancelled()), Ordering::Relaxed);
            return false;
        }
        let Some(sink) = &route.delivery.dead_letter else { return false };
        let dead = with_error(event, &failure);
        self.send(node, route, Leg::DeadLetter, sink, &dead, &context).await.is_ok()
    }

    async fn to_subscriber(
        &self,
        node: &Node,
        route: &Route,
        event: &Event,
        context: &Context,
    ) -> Result<Option<(Event, Context)>, Failure> {
        let mut context = context.clone();
        context.headers.insert(PREFER, HeaderValue::from_static("reply"));
        let ttl = event.extension(TTL).cloned();
        let mut sent = event.clone();
        if node.kind == NodeKind::Broker {
            sent.remove_extension(TTL);
        }
        let answer =
            self.send(node, route, Leg::Subscriber, &route.subscriber, &sent, &context).await?;
        let Some((mut reply, headers)) = answer else { return Ok(None) };
        if let (NodeKind::Broker, Some(ttl)) = (node.kind, ttl) {
            reply.set_extension(TTL, ttl);
        }
        context.headers.remove(PREFER);
        let namespace = context.headers.remove(NAMESPACE_HEADER);
        context.headers = passed_through(&headers);
        context.headers.extend(namespace.map(|namespace| (NAMESPACE_HEADER, namespace)));
        Ok(Some((reply, context)))
    }

    /// To one target, with the retries of the route; a reply comes with its headers.
    async fn send(
        &self,
        node: &Node,
        route: &Route,
        leg: Leg,
        target: &Target,
        event: &Event,
        context: &Context,
    ) -> Result<Option<(Event, HeaderMap)>, Failure> {
        let mut number = 1;
        loop {
            let started = std::time::Instant::now();
            let answer = match target {
                Target::Http(url) => {
                    let attempt = Attempt { url, event, headers: &context.headers, route, leg };
                    attempt.run(&self.shared.client, node.kind).await
                }
                Target::Node(name) => {
                    let admitted = self.admit(name.clone(), event.clone(), context.clone());
                    Answer::of_ingress(admitted.await)
                }
            };
            self.shared.reporter.report(DeliveryReport::new(
                route,
                leg,
                target,
                event,
                &answer,
                number,
                started.elapsed(),
            ));
            let failure = match answer {
                Answer::Empty(_) => return Ok(None),
                Answer::Reply(_, reply, headers) => return Ok(Some((*reply, headers))),
                Answer::Failed { status, body, .. } => {
                    // No answer at all counts as a 500 (eventing `event_dispatcher.go`).
                    let code = status.unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
                    Failure { destination: target.to_string(), code, body }
                }
            };
            if number > route.delivery.retries || !is_retryable(failure.code) {
                return Err(failure);
            }
            let wait = tokio::time::sleep(route.delivery.wait_after(number));
            if context.give_up.run_until_cancelled(wait).await.is_none() {
                return Err(failure);
            }
            number += 1;
        }
    }
}

/// Knative's TTLDefaulter: absent or not a number means 255, else one less; false when it is used
/// up.
fn spend_ttl(event: &mut Event) -> bool {
    let given = match event.extension(TTL) {
        Some(ExtensionValue::Integer(ttl)) => Some(*ttl),
        Some(ExtensionValue::String(text)) => text.parse::<i32>().ok().map(i64::from),
        Some(ExtensionValue::Boolean(_)) | None => None,
    };
    let ttl = given.map_or(DEFAULT_TTL, |ttl| ttl - 1);
    event.set_extension(TTL, ttl);
    ttl > 0
}

/// The event with why it was not delivered (Knative Eventing data plane, dead letter extensions).
fn with_error(event: &Event, failure: &Failure) -> Event {
    use base64::prelude::{BASE64_STANDARD, Engine};
    const DATA_LIMIT: usize = 1024;
    let mut data = BASE64_STANDARD.encode(&failure.body);
    data.truncate(DATA_LIMIT);
    let mut event = event.clone();
    event.set_extension("knativeerrordest", failure.destination.as_str());
    event.set_extension("knativeerrorcode", i64::from(failure.code.as_u16()));
    event.set_extension("knativeerrordata", data);
    event
}

/// The headers that survive from sender to subscriber, besides `ce-*`.
pub(crate) fn passed_through(headers: &HeaderMap) -> HeaderMap {
    const NAMES: [&str; 2] = ["x-request-id", "traceparent"];
    const PREFIXES: [&str; 2] = ["knative-", "x-b3-"];
    let survives = |name: &str| {
        NAMES.contains(&name) || PREFIXES.iter().any(|prefix| name.starts_with(prefix))
    };
    headers
        .iter()
        .filter(|(name, _)| survives(name.as_str()))
        .map(|(name, value)| (name.clone(), value.clone()))
        .collect()
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV10};

    use super::*;

    fn event(ttl: Option<ExtensionValue>) -> Event {
        let builder = EventBuilderV10::new().id("1").source("/s").ty("t");
        match ttl {
            Some(ttl) => builder.extension(TTL, ttl),
            None => builder,
        }
        .build()
        .expect("complete")
    }

    #[test]
    fn ttl_is_255_at_first_and_one_less_each_round() {
        let text = |text: &str| Some(ExtensionValue::String(text.into()));
        for (given, left, goes_on) in [
            (None, 255, true),
            (text("garbage"), 255, true),
            (text("255"), 254, true),
            (Some(ExtensionValue::Integer(2)), 1, true),
            (text("1"), 0, false),
            (text("0"), -1, false),
        ] {
            let mut event = event(given.clone());
            assert_eq!(spend_ttl(&mut event), goes_on, "{given:?}");
            assert_eq!(event.extension(TTL), Some(&ExtensionValue::Integer(left)), "{given:?}");
        }
    }

    #[test]
    fn only_the_listed_headers_pass() {
        let mut headers = HeaderMap::new();
        for name in [
            "x-request-id",
            "knative-a",
            "x-b3-traceid",
            "traceparent",
            "authorization",
            "ce-id",
            "content-type",
            "kn-namespace",
            "x-forwarded-for",
            "host",
        ] {
            headers.insert(name, HeaderValue::from_static("v"));
        }
        let mut passed: Vec<_> =
            passed_through(&headers).keys().map(|name| name.as_str().to_owned()).collect();
        passed.sort();
        assert_eq!(passed, ["knative-a", "traceparent", "x-b3-traceid", "x-request-id"]);
    }

    #[test]
    fn error_data_is_base64_and_at_most_1024_characters() {
        let failure = Failure {
            destination: "http://f/".into(),
            code: StatusCode::SERVICE_UNAVAILABLE,
            body: vec![b'x'; 5000].into(),
        };
        let dead = with_error(&event(None), &failure);
        let data = dead.extension("knativeerrordata").expect("set").to_string();
        assert_eq!(data.len(), 1024);
        assert!(data.starts_with("eHh4"));
        assert_eq!(dead.extension("knativeerrorcode"), Some(&ExtensionValue::Integer(503)));
    }
}
