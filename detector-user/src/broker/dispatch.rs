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
use cloudevents::Event;
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
    rewrite::{TTL, passed_through, spend_ttl, with_error},
    topology::Topology,
};

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
