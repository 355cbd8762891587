//! Manifests become a map of who gets what: every Broker and Channel is a node with an address
//! (`/<namespace>/<name>`), every Trigger and Subscription a route out of one. References are
//! resolved here, once; what cannot be resolved is an error before anything listens.

use std::{collections::BTreeMap, fmt, time::Duration};

use url::Url;

use super::{
    filter::Filter,
    manifest::{Manifests, Place, Placed},
    resolve::{Inherited, Resolver},
    resource::{BackoffPolicy, Format, Metadata, Name, SubscriptionSpec, TriggerSpec},
};

/// Knative's name for "answer 202 before the subscribers have".
const ASYNC_ANNOTATION: &str = "messaging.knative.dev/async-handler";

pub use super::resolve::ServiceAddress;

/// All nodes by name.
#[derive(Debug, Default)]
pub struct Topology {
    nodes: BTreeMap<Name, Node>,
}

/// A Broker or a Channel.
#[derive(Debug)]
pub struct Node {
    /// Which of the two.
    pub kind: NodeKind,
    /// Its name, also its path.
    pub name: Name,
    /// When the sender gets its 202.
    pub ack: Ack,
    /// Out of it.
    pub routes: Vec<Route>,
}

/// Broker or Channel.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NodeKind {
    /// Filters by Trigger, takes replies back.
    Broker,
    /// Everything to every Subscription.
    Channel,
}

/// When the sender gets its 202.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Ack {
    /// After every subscriber has answered.
    Sync,
    /// At once; the event is in memory only.
    Async,
}

/// A Trigger or a Subscription.
#[derive(Debug)]
pub struct Route {
    /// `trigger edge/buy` or `subscription edge/audit`.
    pub label: String,
    /// Its namespace and name.
    pub name: Name,
    /// Which events.
    pub filter: Filter,
    /// Where to.
    pub subscriber: Target,
    /// Where replies go; `None` drops them.
    pub reply: Option<Target>,
    /// How hard to try.
    pub delivery: Delivery,
}

/// An address.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// Outside.
    Http(Url),
    /// A Broker or Channel of this process.
    Node(Name),
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Target::Http(url) => url.fmt(f),
            Target::Node(name) => write!(f, "/{name}"),
        }
    }
}

/// How hard to try. The default is one attempt, as for a Subscription without `delivery`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Delivery {
    /// Attempts after the first.
    pub retries: u32,
    /// How long to wait between them; `None` waits not at all.
    pub backoff: Option<(BackoffPolicy, Duration)>,
    /// Of one attempt; `None` waits until the subscriber answers.
    pub timeout: Option<Duration>,
    /// Where undeliverable events go.
    pub dead_letter: Option<Target>,
    /// Content mode for the subscriber.
    pub format: Format,
}

impl Delivery {
    /// What Knative's default-broker ConfigMap gives a Broker without `delivery`.
    fn of_broker() -> Self {
        let backoff = Some((BackoffPolicy::Exponential, Duration::from_millis(200)));
        Self { retries: 10, backoff, ..Self::default() }
    }

    /// The wait after attempt number `attempt` (from 1) has failed.
    pub fn wait_after(&self, attempt: u32) -> Duration {
        let retries = attempt.saturating_sub(1);
        match self.backoff {
            None => Duration::ZERO,
            Some((BackoffPolicy::Linear, delay)) => delay.saturating_mul(retries),
            Some((BackoffPolicy::Exponential, delay)) => {
                delay.saturating_mul(2u32.saturating_pow(retries))
            }
        }
    }
}

/// A manifest that reads well but does not fit the others.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("{place}: {object}: {problem}")]
pub struct TopologyError {
    /// Where the object stands.
    pub place: Place,
    /// Kind and name.
    pub object: String,
    /// What is wrong and what to do.
    pub problem: String,
}

impl Topology {
    /// Joins the manifests; `services` stand in for what a cluster's objects would resolve to.
    pub fn new(manifests: Manifests, services: &[ServiceAddress]) -> Result<Self, TopologyError> {
        let mut topology = Self::default();
        // Every node first: a route may lead to a node that stands further down.
        let mut inherited = Inherited::new();
        for Placed { place, object } in manifests.brokers {
            let name = topology.add_node(NodeKind::Broker, &object.metadata, &place)?;
            inherited.insert(name, (place, object.spec.and_then(|spec| spec.delivery)));
        }
        for Placed { place, object } in manifests.channels {
            let name = topology.add_node(NodeKind::Channel, &object.metadata, &place)?;
            inherited.insert(name, (place, object.spec.and_then(|spec| spec.delivery)));
        }
        for trigger in manifests.triggers {
            topology.add_trigger(trigger, services, &inherited)?;
        }
        for subscription in manifests.subscriptions {
            topology.add_subscription(subscription, services, &inherited)?;
        }
        Ok(topology)
    }

    fn add_trigger(
        &mut self,
        Placed { place, object }: Placed<TriggerSpec>,
        services: &[ServiceAddress],
        inherited: &Inherited,
    ) -> Result<(), TopologyError> {
        let (name, spec) = (object.metadata.full_name(), object.spec);
        let resolver =
            Resolver { topology: self, services, kind: "Trigger", name: &name, place: &place };
        let broker = match (spec.broker, spec.broker_ref) {
            (Some(broker), None) => Name::new(&name.namespace, broker),
            (None, Some(reference)) => resolver.name_of(&reference),
            (None, None) => return Err(resolver.error("`spec.broker` is missing")),
            (Some(_), Some(_)) => {
                return Err(resolver.error("has both `spec.broker` and `spec.brokerRef`; keep one"));
            }
        };
        resolver.require_node(NodeKind::Broker, &broker)?;
        let attributes = spec.filter.map(|filter| filter.attributes).unwrap_or_default();
        let route = Route {
            label: format!("trigger {name}"),
            filter: Filter::of_trigger(spec.filters.unwrap_or_default(), attributes),
            subscriber: resolver.target("spec.subscriber", &spec.subscriber)?,
            reply: Some(Target::Node(broker.clone())),
            delivery: resolver
                .own_or_inherited(spec.delivery.as_ref(), &broker, inherited)?
                .unwrap_or_else(Delivery::of_broker),
            name: name.clone(),
        };
        self.add_route(&broker, route, &place)
    }

    fn add_subscription(
        &mut self,
        Placed { place, object }: Placed<SubscriptionSpec>,
        services: &[ServiceAddress],
        inherited: &Inherited,
    ) -> Result<(), TopologyError> {
        let (name, spec) = (object.metadata.full_name(), object.spec);
        let resolver =
            Resolver { topology: self, services, kind: "Subscription", name: &name, place: &place };
        let channel = resolver.name_of(&spec.channel);
        resolver.require_node(NodeKind::Channel, &channel)?;
        let reply = spec.reply.as_ref().map(|reply| resolver.target("spec.reply", reply));
        let route = Route {
            label: format!("subscription {name}"),
            filter: Filter::Empty,
            subscriber: resolver.target("spec.subscriber", &spec.subscriber)?,
            reply: reply.transpose()?,
            delivery: resolver
                .own_or_inherited(spec.delivery.as_ref(), &channel, inherited)?
                .unwrap_or_default(),
            name: name.clone(),
        };
        self.add_route(&channel, route, &place)
    }

    /// The node at `/<namespace>/<name>`.
    pub fn node(&self, name: &Name) -> Option<&Node> {
        self.nodes.get(name)
    }

    /// All nodes, by name.
    pub fn nodes(&self) -> impl Iterator<Item = &Node> {
        self.nodes.values()
    }

    fn add_node(
        &mut self,
        kind: NodeKind,
        metadata: &Metadata,
        place: &Place,
    ) -> Result<Name, TopologyError> {
        let name = metadata.full_name();
        let is_async = metadata.annotations.get(ASYNC_ANNOTATION).is_some_and(|v| v == "true");
        let ack = if is_async { Ack::Async } else { Ack::Sync };
        let node = Node { kind, name: name.clone(), ack, routes: Vec::new() };
        if let Some(other) = self.nodes.insert(name.clone(), node) {
            return Err(TopologyError {
                place: place.clone(),
                object: format!("{kind:?} {name}"),
                problem: format!(
                    "there is already a {:?} of this name, and both would answer at /{name}; rename one",
                    other.kind
                ),
            });
        }
        Ok(name)
    }

    fn add_route(&mut self, node: &Name, route: Route, place: &Place) -> Result<(), TopologyError> {
        if self.nodes.values().any(|node| node.routes.iter().any(|old| old.label == route.label)) {
            return Err(TopologyError {
                place: place.clone(),
                object: route.label,
                problem: "is there twice; rename or remove one".into(),
            });
        }
        if let Some(node) = self.nodes.get_mut(node) {
            node.routes.push(route);
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use proptest::prelude::*;

    use super::*;

    const BROKER: &str = "\
apiVersion: eventing.knative.dev/v1
kind: Broker
metadata: {name: default, namespace: edge}
";

    fn trigger(spec: &str) -> String {
        format!(
            "---\napiVersion: eventing.knative.dev/v1\nkind: Trigger\n\
             metadata: {{name: buy, namespace: edge}}\nspec: {spec}\n"
        )
    }

    fn build(text: &str, services: &[&str]) -> Result<Topology, TopologyError> {
        let mut manifests = Manifests::default();
        manifests.add(Path::new("edge.yaml"), text).expect("readable");
        let services: Vec<_> = services.iter().map(|s| s.parse().expect("service")).collect();
        Topology::new(manifests, &services)
    }

    fn subscriber(spec: &str, services: &[&str]) -> Result<String, String> {
        let text =
            format!("{BROKER}{}", trigger(&format!("{{broker: default, subscriber: {spec}}}")));
        let topology = build(&text, services).map_err(|error| error.to_string())?;
        Ok(topology.node(&Name::new("edge", "default")).unwrap().routes[0].subscriber.to_string())
    }

    #[test]
    fn a_uri_is_taken_as_it_is() {
        assert_eq!(
            subscriber("{uri: 'http://10.0.0.1:8080/in'}", &[]).unwrap(),
            "http://10.0.0.1:8080/in"
        );
        let message = subscriber("{uri: /in}", &[]).unwrap_err();
        assert!(
            message.contains("`spec.subscriber`") && message.contains("not a URL"),
            "{message}"
        );
        let message = subscriber("{uri: 'ftp://a/'}", &[]).unwrap_err();
        assert!(message.contains("http://"), "{message}");
        let message = subscriber("{}", &[]).unwrap_err();
        assert!(message.contains("expected `ref` or `uri`"), "{message}");
    }

    #[test]
    fn a_ref_is_resolved_by_service_and_the_namespaced_one_wins() {
        let reference =
            "{ref: {apiVersion: serving.knative.dev/v1, kind: Service, name: buy-function}}";
        let any = "buy-function=http://127.0.0.1:1/";
        let edge = "edge/buy-function=http://127.0.0.1:2/";
        let other = "prod/buy-function=http://127.0.0.1:3/";
        assert_eq!(subscriber(reference, &[any]).unwrap(), "http://127.0.0.1:1/");
        assert_eq!(subscriber(reference, &[any, other, edge]).unwrap(), "http://127.0.0.1:2/");
        let message = subscriber(reference, &[other]).unwrap_err();
        assert!(message.contains("--service buy-function=http"), "{message}");
        assert!(
            message.starts_with("edge.yaml:4: Trigger edge/buy: `spec.subscriber`"),
            "{message}"
        );
    }

    #[test]
    fn a_ref_with_a_uri_is_a_path_at_the_service() {
        let spec = "{ref: {kind: Service, name: f}, uri: /events}";
        assert_eq!(
            subscriber(spec, &["f=http://127.0.0.1:9"]).unwrap(),
            "http://127.0.0.1:9/events"
        );
    }

    #[test]
    fn a_ref_to_a_broker_or_channel_stays_inside() {
        assert_eq!(
            subscriber("{ref: {kind: Broker, name: default}}", &[]).unwrap(),
            "/edge/default"
        );
        let message = subscriber("{ref: {kind: Channel, name: audit}}", &[]).unwrap_err();
        assert!(
            message.contains("no Channel edge/audit") && message.contains("known: none"),
            "{message}"
        );
    }

    #[test]
    fn service_arguments_that_are_not_name_and_url_are_refused() {
        for text in [
            "buy",
            "=http://a/",
            "/f=http://a/",
            "a/b/c=http://a/",
            "f=127.0.0.1:80",
            "f=file:///x",
        ] {
            assert!(text.parse::<ServiceAddress>().is_err(), "{text}");
        }
    }

    #[test]
    fn a_trigger_without_its_broker_is_refused_with_the_known_ones() {
        let text = format!("{BROKER}{}", trigger("{broker: main, subscriber: {uri: 'http://a/'}}"));
        let message = build(&text, &[]).unwrap_err().to_string();
        assert!(message.contains("no Broker edge/main"), "{message}");
        assert!(message.contains("known: edge/default"), "{message}");
    }

    #[test]
    fn two_objects_of_one_name_are_refused() {
        let message = build(&format!("{BROKER}---\n{BROKER}"), &[]).unwrap_err().to_string();
        assert!(message.contains("already a Broker"), "{message}");
        let one = trigger("{broker: default, subscriber: {uri: 'http://a/'}}");
        let message = build(&format!("{BROKER}{one}{one}"), &[]).unwrap_err().to_string();
        assert!(message.contains("trigger edge/buy") && message.contains("twice"), "{message}");
    }

    fn delivery(broker: &str, trigger_spec: &str) -> Delivery {
        let text = format!(
            "{BROKER}{broker}{}",
            trigger(&format!(
                "{{broker: default, subscriber: {{uri: 'http://a/'}}{trigger_spec}}}"
            ))
        );
        let topology = build(&text, &[]).unwrap();
        topology.node(&Name::new("edge", "default")).unwrap().routes[0].delivery.clone()
    }

    #[test]
    fn delivery_is_the_triggers_else_the_brokers_else_knatives_default() {
        let default = delivery("", "");
        assert_eq!(default.retries, 10);
        let waits: Vec<_> =
            (1..=10).map(|attempt| default.wait_after(attempt).as_millis()).collect();
        assert_eq!(waits[..4], [200, 400, 800, 1600]);
        assert_eq!(waits.iter().sum::<u128>(), 204_600, "about 205 s in the worst case");

        let linear = "spec: {delivery: {retry: 2, backoffPolicy: linear, backoffDelay: PT1S}}\n";
        let inherited = delivery(linear, "");
        assert_eq!((inherited.retries, inherited.wait_after(3)), (2, Duration::from_secs(2)));

        // A Trigger's `delivery` replaces the Broker's as a whole: no retry is left here.
        let own = delivery(linear, ", delivery: {timeout: PT5S}");
        assert_eq!((own.retries, own.timeout), (0, Some(Duration::from_secs(5))));
        assert_eq!(own.wait_after(1), Duration::ZERO);
    }

    #[test]
    fn the_async_annotation_is_read_from_broker_and_channel() {
        let text = "\
apiVersion: messaging.knative.dev/v1
kind: Channel
metadata: {name: audit, namespace: edge, annotations: {messaging.knative.dev/async-handler: 'true'}}
";
        let topology = build(&format!("{BROKER}---\n{text}"), &[]).unwrap();
        assert_eq!(topology.node(&Name::new("edge", "audit")).unwrap().ack, Ack::Async);
        assert_eq!(topology.node(&Name::new("edge", "default")).unwrap().ack, Ack::Sync);
    }

    proptest! {
        #[test]
        fn waits_never_shrink_and_never_overflow(
            exponential: bool, millis in 0u64..10_000, attempt in 1u32..100_000,
        ) {
            let policy = if exponential { BackoffPolicy::Exponential } else { BackoffPolicy::Linear };
            let delivery =
                Delivery { backoff: Some((policy, Duration::from_millis(millis))), ..Delivery::default() };
            prop_assert!(delivery.wait_after(attempt) <= delivery.wait_after(attempt + 1));
        }
    }
}
