//! What a manifest refers to, resolved: Brokers and Channels to themselves, everything that only a
//! cluster could look up through `--service`.

use std::{collections::BTreeMap, str::FromStr};

use url::Url;

use super::{
    manifest::Place,
    node::{Delivery, NodeKind, Target},
    resource::{DeliverySpec, Destination, Name, Reference},
    topology::{Topology, TopologyError},
};

/// `NAME=URL` or `NAMESPACE/NAME=URL`: the address of an object that a cluster would know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ServiceAddress {
    /// `None` means in every namespace.
    pub namespace: Option<String>,
    /// The object's name.
    pub name: String,
    /// Where it listens.
    pub url: Url,
}

impl FromStr for ServiceAddress {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let expected =
            "expected NAME=URL or NAMESPACE/NAME=URL, e.g. buy-function=http://127.0.0.1:8090";
        let (name, url) = text.split_once('=').ok_or(expected)?;
        let (namespace, name) = match name.split_once('/') {
            Some((namespace, name)) => (Some(namespace.to_owned()), name),
            None => (None, name),
        };
        if name.is_empty() || name.contains('/') || namespace.as_deref() == Some("") {
            return Err(expected.into());
        }
        Ok(Self { namespace, name: name.to_owned(), url: http_url(url)? })
    }
}

fn http_url(text: &str) -> Result<Url, String> {
    let url = Url::parse(text).map_err(|error| format!("`{text}` is not a URL: {error}"))?;
    match url.scheme() {
        "http" | "https" if url.has_host() => Ok(url),
        _ => Err(format!("`{text}`: expected a URL with http:// or https:// and a host")),
    }
}

/// `delivery` of Brokers and Channels, with where it was written.
pub(crate) type Inherited = BTreeMap<Name, (Place, Option<DeliverySpec>)>;

/// Resolves what one object refers to.
pub(crate) struct Resolver<'a> {
    pub topology: &'a Topology,
    pub services: &'a [ServiceAddress],
    pub kind: &'static str,
    pub name: &'a Name,
    pub place: &'a Place,
}

impl Resolver<'_> {
    pub(crate) fn error(&self, problem: impl Into<String>) -> TopologyError {
        TopologyError {
            place: self.place.clone(),
            object: format!("{} {}", self.kind, self.name),
            problem: problem.into(),
        }
    }

    pub(crate) fn require_node(&self, kind: NodeKind, wanted: &Name) -> Result<(), TopologyError> {
        if self.topology.node(wanted).is_some_and(|node| node.kind == kind) {
            return Ok(());
        }
        let known: Vec<_> = self
            .topology
            .nodes()
            .filter(|node| node.kind == kind)
            .map(|node| node.name.to_string())
            .collect();
        let known = if known.is_empty() { "none".into() } else { known.join(", ") };
        Err(self.error(format!("there is no {kind:?} {wanted} in the manifests; known: {known}")))
    }

    /// The route's own `delivery`, else that of the Broker or Channel it hangs on.
    pub(crate) fn own_or_inherited(
        &self,
        own: Option<&DeliverySpec>,
        node: &Name,
        inherited: &Inherited,
    ) -> Result<Option<Delivery>, TopologyError> {
        match (own, inherited.get(node)) {
            (Some(own), _) => self.delivery(own).map(Some),
            (None, Some((place, Some(spec)))) => {
                Resolver { kind: "the parent of a route,", name: node, place, ..*self }
                    .delivery(spec)
                    .map(Some)
            }
            (None, Some((_, None)) | None) => Ok(None),
        }
    }

    pub(crate) fn name_of(&self, reference: &Reference) -> Name {
        let namespace = reference.namespace.as_ref().unwrap_or(&self.name.namespace);
        Name::new(namespace, &reference.name)
    }

    fn delivery(&self, spec: &DeliverySpec) -> Result<Delivery, TopologyError> {
        let dead_letter = spec
            .dead_letter_sink
            .as_ref()
            .map(|sink| self.target("spec.delivery.deadLetterSink", sink))
            .transpose()?;
        if spec.timeout.is_some_and(|timeout| timeout.0.is_zero()) {
            return Err(self.error("`spec.delivery.timeout` must be longer than zero"));
        }
        Ok(Delivery {
            retries: spec.retry.unwrap_or(0),
            backoff: spec.backoff_policy.zip(spec.backoff_delay.map(|delay| delay.0)),
            timeout: spec.timeout.map(|timeout| timeout.0),
            dead_letter,
            format: spec.format.unwrap_or_default(),
        })
    }

    pub(crate) fn target(&self, field: &str, to: &Destination) -> Result<Target, TopologyError> {
        let at_field = |problem: String| self.error(format!("`{field}`: {problem}"));
        match (&to.r#ref, &to.uri) {
            (None, Some(uri)) => http_url(uri).map(Target::Http).map_err(at_field),
            (None, None) => Err(at_field("expected `ref` or `uri`".into())),
            (Some(reference), uri) => {
                let base = self.referenced(reference).map_err(at_field)?;
                match (base, uri) {
                    (base, None) => Ok(base),
                    (Target::Http(base), Some(relative)) => base
                        .join(relative)
                        .map(Target::Http)
                        .map_err(|error| at_field(format!("`uri` {relative}: {error}"))),
                    (Target::Node(name), Some(_)) => {
                        Err(at_field(format!("{name} has no paths below it; leave out `uri`")))
                    }
                }
            }
        }
    }

    fn referenced(&self, reference: &Reference) -> Result<Target, String> {
        let wanted = self.name_of(reference);
        let node_kind = match reference.kind.as_str() {
            "Broker" => Some(NodeKind::Broker),
            "Channel" | "InMemoryChannel" => Some(NodeKind::Channel),
            _ => None,
        };
        if let Some(kind) = node_kind {
            self.require_node(kind, &wanted).map_err(|error| error.problem)?;
            return Ok(Target::Node(wanted));
        }
        let exact = |service: &&ServiceAddress| {
            service.name == wanted.name && service.namespace.as_ref() == Some(&wanted.namespace)
        };
        let anywhere =
            |service: &&ServiceAddress| service.name == wanted.name && service.namespace.is_none();
        let found =
            self.services.iter().find(exact).or_else(|| self.services.iter().find(anywhere));
        found.map(|service| Target::Http(service.url.clone())).ok_or_else(|| {
            format!(
                "{} {wanted} has an address only in a cluster; say where it listens on this box: \
                 --service {}=http://127.0.0.1:PORT",
                reference.kind, wanted.name
            )
        })
    }
}
