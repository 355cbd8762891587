//! One line per attempt, so that a person or a script can follow an event through the Broker.

use std::{fmt, sync::Arc, time::Duration};

use chrono::{DateTime, SecondsFormat, Utc};
use cloudevents::{AttributesReader, Event};
use serde::{Serialize, Serializer};

use super::{
    attempt::Answer,
    node::{Route, Target},
};

/// One attempt to deliver one event.
#[derive(Clone, Debug, Serialize)]
pub struct DeliveryReport {
    /// When the answer came, or the attempt failed.
    #[serde(serialize_with = "rfc3339")]
    pub time: DateTime<Utc>,
    /// `trigger edge/buy` or `subscription edge/audit`.
    pub trigger: String,
    /// What was sent.
    pub leg: Leg,
    /// CloudEvents `id`.
    pub event: String,
    /// CloudEvents `type`.
    #[serde(rename = "type")]
    pub event_type: String,
    /// CloudEvents `source`.
    pub source: String,
    /// Where to: a URL, or `/namespace/name` for a Broker or Channel of this process.
    pub subscriber: String,
    /// The answer's status; `null` if there was none.
    pub status: Option<u16>,
    /// Why it counts as failed, if it does.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub error: Option<String>,
    /// From 1.
    pub attempt: u32,
    /// How long this attempt took, in milliseconds.
    pub duration_ms: f64,
}

/// What a request carried.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "kebab-case")]
pub enum Leg {
    /// An event to its subscriber.
    Subscriber,
    /// The subscriber's reply to where replies go.
    Reply,
    /// An event that could not be delivered to the dead letter sink.
    DeadLetter,
}

fn rfc3339<S: Serializer>(time: &DateTime<Utc>, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(&time.to_rfc3339_opts(SecondsFormat::Micros, true))
}

impl DeliveryReport {
    pub(crate) fn new(
        route: &Route,
        leg: Leg,
        target: &Target,
        event: &Event,
        answer: &Answer,
        attempt: u32,
        took: Duration,
    ) -> Self {
        Self {
            time: Utc::now(),
            trigger: route.label.clone(),
            leg,
            event: event.id().into(),
            event_type: event.ty().into(),
            source: event.source().clone(),
            subscriber: target.to_string(),
            status: answer.status().map(|status| status.as_u16()),
            error: answer.error().map(Into::into),
            attempt,
            duration_ms: (took.as_secs_f64() * 1e6).round() / 1e3,
        }
    }
}

impl fmt::Display for DeliveryReport {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let leg = match self.leg {
            Leg::Subscriber => "",
            Leg::Reply => " reply",
            Leg::DeadLetter => " dead letter",
        };
        let time = self.time.format("%H:%M:%S%.3f");
        write!(
            f,
            "{time} {}{leg}: {} {} -> {}: ",
            self.trigger, self.event_type, self.event, self.subscriber
        )?;
        match self.status {
            Some(status) => write!(f, "{status}")?,
            None => f.write_str("no answer")?,
        }
        write!(f, " in {:.1} ms", self.duration_ms)?;
        if self.attempt > 1 {
            write!(f, ", attempt {}", self.attempt)?;
        }
        self.error.as_ref().map_or(Ok(()), |error| write!(f, " ({error})"))
    }
}

/// Where reports go; called from the delivering task, so it must not block for long.
#[derive(Clone)]
pub struct Reporter(Arc<dyn Fn(DeliveryReport) + Send + Sync>);

impl Reporter {
    /// Calls this for every attempt.
    pub fn new(report: impl Fn(DeliveryReport) + Send + Sync + 'static) -> Self {
        Self(Arc::new(report))
    }

    /// Reports go nowhere.
    pub fn silent() -> Self {
        Self::new(|_| ())
    }

    pub(crate) fn report(&self, report: DeliveryReport) {
        (self.0)(report);
    }
}

impl fmt::Debug for Reporter {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Reporter")
    }
}
