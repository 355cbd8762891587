//! Kafka: a topic has an event when all replicas that are in sync have it (`acks=all`).
//!
//! Events are written in the binary content mode (CloudEvents Kafka binding 1.0, section 3.2). The key is
//! the event's `partitionkey`, the UE, so that a UE's events are in one partition, in their order: the
//! lane has only one of them under way. The producer is not idempotent: nothing would be gained for
//! attempts, and it can end in an error from which only a new one recovers.

use std::{
    fs,
    sync::{Arc, Mutex, PoisonError},
    time::Duration,
};

use cloudevents::{
    AttributesReader, Event,
    binding::rdkafka::{FutureRecordExt, MessageRecord},
    event::ExtensionValue,
};
use futures::{FutureExt, future::BoxFuture};
use rdkafka::{
    ClientConfig, ClientContext,
    config::RDKafkaLogLevel,
    error::{KafkaError, RDKafkaErrorCode as Code},
    producer::{FutureProducer, FutureRecord},
};

use super::sink::{Failure, Sink, TargetError, unsendable};
use crate::config::{Login, SaslMechanism, StreamConfig};

/// A topic.
pub(super) struct KafkaSink {
    name: String,
    topic: String,
    producer: FutureProducer<Context>,
    trouble: Trouble,
}

/// What the library said of its connections since the last event was taken.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<String>>>);

impl KafkaSink {
    /// A sink that has not connected yet. An attempt takes at most `timeout`.
    ///
    /// # Errors
    /// Files that cannot be read, and what the library does not take.
    pub(super) fn new(
        name: &str,
        config: &StreamConfig,
        timeout: Duration,
    ) -> Result<Self, TargetError> {
        let trouble = Trouble::default();
        let context = Context { sink: name.to_owned(), trouble: trouble.clone() };
        let producer = settings(config, timeout)?.create_with_context(context);
        let producer = producer.map_err(|error| TargetError::Stream {
            url: config.address.to_string(),
            why: error.to_string(),
        })?;
        Ok(Self { name: name.to_owned(), topic: config.address.name.clone(), producer, trouble })
    }

    async fn deliver(&self, event: &Event) -> Result<(), Failure> {
        // The binding wants an event of its own.
        let message = MessageRecord::from_event(event.clone()).map_err(unsendable)?;
        let key = key(event);
        let record = FutureRecord::to(&self.topic).key(&key).message_record(&message);
        let delivery =
            self.producer.send_result(record).map_err(|(error, _)| self.failure(&error))?;
        match delivery.await {
            Ok(Ok(_)) => {
                self.trouble.forget();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.failure(&error)),
            Err(_) => Err(Failure::Unavailable("the producer has ended".into())),
        }
    }

    fn failure(&self, error: &KafkaError) -> Failure {
        let topic = &self.topic;
        match error.rdkafka_error_code() {
            // Of a message that found no server in time the library says nothing else.
            Some(Code::MessageTimedOut | Code::RequestTimedOut) => match self.trouble.last() {
                Some(said) => Failure::Network(said),
                None => Failure::Timeout,
            },
            Some(
                Code::MessageSizeTooLarge
                | Code::InvalidMessage
                | Code::InvalidMessageSize
                | Code::InvalidRecord,
            ) => Failure::Refused(error.to_string()),
            Some(
                Code::Authentication
                | Code::SaslAuthenticationFailed
                | Code::TopicAuthorizationFailed
                | Code::ClusterAuthorizationFailed,
            ) => Failure::Credentials(error.to_string()),
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                Failure::Unavailable(format!("there is no topic {topic:?} ({error})"))
            }
            Some(_) | None => Failure::Unavailable(error.to_string()),
        }
    }
}

impl Sink for KafkaSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn verb(&self) -> &'static str {
        "produce"
    }

    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        self.deliver(event).boxed()
    }
}

/// The UE; of an event without one, what spreads events over partitions.
fn key(event: &Event) -> String {
    match event.extension("partitionkey") {
        Some(ExtensionValue::String(key)) => key.clone(),
        Some(other) => other.to_string(),
        None => event.id().to_owned(),
    }
}

fn settings(config: &StreamConfig, timeout: Duration) -> Result<ClientConfig, TargetError> {
    let mut settings = ClientConfig::new();
    settings
        .set("bootstrap.servers", config.address.servers.join(","))
        .set("client.id", "detector")
        .set("acks", "all")
        .set("message.timeout.ms", timeout.as_millis().to_string())
        // An event waits for its UE's one before it, and not for others to fill a batch.
        .set("linger.ms", "0")
        // A topic that is not there may be made; meanwhile events wait in the lane, not here.
        .set("topic.metadata.propagation.max.ms", "1000")
        .set_log_level(RDKafkaLogLevel::Info);
    let security = match (config.tls, &config.login) {
        (false, None) => "plaintext",
        (true, None) => "ssl",
        (false, Some(_)) => "sasl_plaintext",
        (true, Some(_)) => "sasl_ssl",
    };
    settings.set("security.protocol", security);
    if let Some(ca) = &config.ca {
        settings.set("ssl.ca.location", ca.to_string_lossy());
    }
    if let Some((cert, key)) = &config.identity {
        settings
            .set("ssl.certificate.location", cert.to_string_lossy())
            .set("ssl.key.location", key.to_string_lossy());
    }
    match &config.login {
        Some(Login::User { user, password_file, mechanism }) => {
            let read = fs::read_to_string(password_file);
            let password =
                read.map_err(|error| TargetError::Read { path: password_file.clone(), error })?;
            settings
                .set("sasl.mechanism", mechanism_name(*mechanism))
                .set("sasl.username", user)
                .set("sasl.password", password.trim_end_matches('\n'));
        }
        // Credentials are NATS's; the config has refused them.
        Some(Login::Credentials(_)) | None => {}
    }
    Ok(settings)
}

fn mechanism_name(mechanism: SaslMechanism) -> &'static str {
    match mechanism {
        SaslMechanism::ScramSha512 => "SCRAM-SHA-512",
        SaslMechanism::ScramSha256 => "SCRAM-SHA-256",
        SaslMechanism::Plain => "PLAIN",
    }
}

impl Trouble {
    fn note(&self, said: &str) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(said.to_owned());
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn last(&self) -> Option<String> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// What the library tells.
struct Context {
    sink: String,
    trouble: Trouble,
}

impl ClientContext for Context {
    fn log(&self, _: RDKafkaLogLevel, facility: &str, message: &str) {
        tracing::debug!(sink = self.sink, facility, message);
    }

    fn error(&self, error: KafkaError, reason: &str) {
        tracing::debug!(sink = self.sink, %error, reason);
        self.trouble.note(reason);
    }
}
