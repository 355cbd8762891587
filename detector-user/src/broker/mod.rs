//! The embedded Broker (`detector broker`): for a laptop, a demo or a one-box site. A cluster
//! runs Knative; this reads the same Broker, Trigger, Channel and Subscription manifests and
//! answers senders and subscribers as Knative Eventing 1.22 with its in-memory channel does, so
//! that what works here works there.
//!
//! The modules stand in an event's order: `ingress` (what a sender is told) -> `dispatch` (fan
//! out, retry, reply, dead letter) with `filter` and `attempt` -> `report`. Before that, once:
//! `manifest` and `resource` (YAML) -> `resolve` and `topology` (who gets what).
//!
//! Known differences from the real one, all on purpose: one process is everything; stopping waits
//! for what runs; refusals say why in their body; a dead letter carries the error extensions also
//! when the error was an answer that is no CloudEvent; no TLS, OIDC, `cesql` or `Retry-After`; a
//! Channel is reached by path, not by host name.

mod args;
mod attempt;
mod dispatch;
pub mod filter;
mod ingress;
pub mod manifest;
pub mod node;
mod report;
mod resolve;
pub mod resource;
mod rewrite;
mod server;
#[cfg(test)]
mod tests;
pub mod topology;

use std::{net::SocketAddr, time::Duration};

use tokio::{net::TcpListener, task::JoinHandle};
use tokio_util::sync::CancellationToken;

pub use self::{
    args::{BrokerArgs, run},
    report::{DeliveryReport, Leg, Reporter},
};
use self::{dispatch::Dispatcher, ingress::Ingress, topology::Topology};

/// What a Broker is started with.
#[derive(Debug)]
pub struct Config {
    /// Where to listen; port 0 takes a free one.
    pub listen: SocketAddr,
    /// Who gets what.
    pub topology: Topology,
    /// Told of every delivery attempt.
    pub reporter: Reporter,
    /// How long things may take.
    pub timeouts: Timeouts,
}

/// How long things may take; the defaults are Knative's.
#[derive(Clone, Copy, Debug)]
pub struct Timeouts {
    /// An idle connection is closed after this.
    pub idle: Duration,
    /// A request must have been read after this.
    pub read: Duration,
    /// All subscribers of one event must have answered after this (eventing's fan-out timeout).
    pub fanout: Duration,
    /// On shutdown, deliveries that run may go on this long.
    pub drain: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            idle: Duration::from_secs(10),
            read: Duration::from_secs(10),
            fanout: Duration::from_secs(15 * 60),
            drain: Duration::from_secs(5),
        }
    }
}

/// The Broker as a library.
pub struct Broker;

/// A Broker that listens. Dropped, it stops taking events in; [`RunningBroker::shutdown`] also
/// waits.
pub struct RunningBroker {
    /// Where it listens.
    pub addr: SocketAddr,
    dispatcher: Dispatcher,
    stop: CancellationToken,
    server: JoinHandle<usize>,
}

impl Broker {
    /// Listens and serves until it is shut down or dropped.
    pub async fn start(config: Config) -> anyhow::Result<RunningBroker> {
        use anyhow::Context as _;
        let listener = TcpListener::bind(config.listen).await.with_context(|| {
            format!("cannot listen on {}; choose another with --listen", config.listen)
        })?;
        let addr = listener.local_addr()?;
        let stop = CancellationToken::new();
        let dispatcher = Dispatcher::new(
            config.topology,
            config.reporter,
            config.timeouts.fanout,
            stop.clone(),
        )?;
        let ingress = Ingress {
            dispatcher: dispatcher.clone(),
            read_timeout: config.timeouts.read,
            stop: stop.clone(),
        };
        let server = tokio::spawn(server::serve(listener, ingress, config.timeouts));
        Ok(RunningBroker { addr, dispatcher, stop, server })
    }
}

impl RunningBroker {
    /// Events that are being delivered right now, also those whose sender has its 202 already.
    pub fn in_flight(&self) -> usize {
        self.dispatcher.in_flight()
    }

    /// Takes nothing in any more, waits for deliveries that run, and says how many events had to
    /// be abandoned.
    pub async fn shutdown(mut self) -> usize {
        self.stop.cancel();
        (&mut self.server).await.unwrap_or(0)
    }
}

impl Drop for RunningBroker {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}
