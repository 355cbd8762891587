//! Spans of sampled events: what happened to one, from its packet to the sink's answer.

#[cfg(feature = "otlp")]
pub mod otlp;

use std::time::{Duration, SystemTime};

use cloudevents::Event;
use futures::future::BoxFuture;

use crate::deliver::Failure;

/// Is told what happened to events. Must not block.
pub trait Spans: Send + Sync + 'static {
    /// A packet became an event.
    fn detected(&self, detected: &Detected<'_>);

    /// A sink was tried.
    fn attempted(&self, attempted: &Attempted<'_>);

    /// Waits until all that was told has been sent on.
    fn flush(&self) -> BoxFuture<'_, ()>;
}

/// A packet became an event.
#[derive(Clone, Copy, Debug)]
pub struct Detected<'a> {
    /// The event.
    pub event: &'a Event,
    /// When the packet passed the hook; `None` if a timer made the event.
    pub packet: Option<SystemTime>,
    /// When the agent read the record.
    pub read: SystemTime,
    /// When the event was made.
    pub made: SystemTime,
}

/// A sink was tried.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// The event.
    pub event: &'a Event,
    /// The sink.
    pub sink: &'a str,
    /// What it does with events: POST, for instance.
    pub verb: &'static str,
    /// For how long the event had waited: since it was made, or since the attempt before.
    pub waited: Duration,
    /// When the attempt began.
    pub begin: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// Why the sink did not take the event; `None` if it did.
    pub failure: Option<&'a Failure>,
}
