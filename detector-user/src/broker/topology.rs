//! Manifests become a map of who gets what: every Broker and Channel is a node with an address
//! (`/<namespace>/<name>`), every Trigger and Subscription a route out of one. References are
//! resolved here, once; what cannot be resolved is an error before anything listens.

use std::collections::BTreeMap;

use super::{
    filter::Filter,
    manifest::{Manifests, Place, Placed},
    node::{Ack, Delivery, Node, NodeKind, Route, Target},
    resolve::{Inherited, Resolver},
    resource::{Metadata, Name, SubscriptionSpec, TriggerSpec},
};

/// Knative's name for "answer 202 before the subscribers have".
const ASYNC_ANNOTATION: &str = "messaging.knative.dev/async-handler";

pub use super::resolve::ServiceAddress;

/// All nodes by name.
#[derive(Debug, Default)]
pub struct Topology {
    nodes: BTreeMap<Name, Node>,
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
#[path = "topology_tests.rs"]
mod tests;
