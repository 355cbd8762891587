//! What the Broker and Channel manifests become: nodes, the routes out of them, and how hard each
//! route tries.

use std::{fmt, time::Duration};

use url::Url;

use super::{
    filter::Filter,
    resource::{BackoffPolicy, Format, Name},
};

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
    pub(super) fn of_broker() -> Self {
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
