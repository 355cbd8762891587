//! Kafka: a topic has an event when all replicas that are in sync have it (`acks=all`).
//!
//! Events are written in the binary content mode (CloudEvents Kafka binding 1.0, section 3.2). The key is
//! the event's `partitionkey`, the UE, so that a UE's events are in one partition, in their order: the
//! lane has only one of them under way. The producer is not idempotent: nothing would be gained for
//! attempts, and it can end in an error from which only a new one recovers.

use std::{
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

use super::{
    login,
    sink::{Failure, Sink, TargetError, unsendable},
};
use crate::config::{Login, SaslMechanism, StreamConfig};

/// A topic.
pub(super) struct KafkaSink {
    name: String,
    config: StreamConfig,
    timeout: Duration,
    live: Mutex<Live>,
}

/// The library connects again by itself, with the secrets and certificates that it was made with. Once the
/// servers refuse these, a new one is made, which reads the files again.
#[derive(Clone)]
struct Live {
    producer: FutureProducer<Context>,
    trouble: Trouble,
}

/// What the library said of its connections since the last event was taken.
#[derive(Clone, Default)]
struct Trouble(Arc<Mutex<Option<Said>>>);

#[derive(Clone)]
struct Said {
    what: String,
    about: About,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum About {
    Login,
    Tls,
    Connection,
}

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
        let live = Mutex::new(live(name, config, timeout)?);
        Ok(Self { name: name.to_owned(), config: config.clone(), timeout, live })
    }

    async fn deliver(&self, event: &Event) -> Result<(), Failure> {
        // The binding wants an event of its own.
        let message = MessageRecord::from_event(event.clone()).map_err(unsendable)?;
        let key = key(event);
        let topic = &self.config.address.name;
        let record = FutureRecord::to(topic).key(&key).message_record(&message);
        let Live { producer, trouble } = self.live()?;
        let delivery =
            producer.send_result(record).map_err(|(error, _)| self.failure(&error, &trouble))?;
        match delivery.await {
            Ok(Ok(_)) => {
                trouble.forget();
                Ok(())
            }
            Ok(Err((error, _))) => Err(self.failure(&error, &trouble)),
            Err(_) => Err(Failure::Unavailable("the producer was made anew".into())),
        }
    }

    /// The producer, made anew if the servers do not accept this one.
    fn live(&self) -> Result<Live, Failure> {
        let mut now = self.live.lock().unwrap_or_else(PoisonError::into_inner);
        if now.trouble.last().is_some_and(|said| said.about != About::Connection) {
            let new = live(&self.name, &self.config, self.timeout);
            let new = new.map_err(|error| Failure::Credentials(error.to_string()))?;
            let old = std::mem::replace(&mut *now, new);
            // Ends threads of its own, and waits for them.
            tokio::task::spawn_blocking(move || drop(old));
        }
        Ok(now.clone())
    }

    fn failure(&self, error: &KafkaError, trouble: &Trouble) -> Failure {
        let topic = &self.config.address.name;
        match error.rdkafka_error_code() {
            // Of a message that found no server in time the library says nothing else.
            Some(Code::MessageTimedOut | Code::RequestTimedOut) => match trouble.last() {
                Some(Said { what, about: About::Login }) => self.refused(&what),
                Some(Said { what, about: About::Tls | About::Connection }) => {
                    Failure::Network(what)
                }
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
            ) => self.refused(&error.to_string()),
            Some(Code::UnknownTopic | Code::UnknownTopicOrPartition) => {
                Failure::Unavailable(format!("there is no topic {topic:?} ({error})"))
            }
            Some(_) | None => Failure::Unavailable(error.to_string()),
        }
    }

    fn refused(&self, said: &str) -> Failure {
        let fields = login::fields(self.config.login.as_ref());
        Failure::Credentials(format!("{said}; the server does not accept {fields}"))
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

fn live(name: &str, config: &StreamConfig, timeout: Duration) -> Result<Live, TargetError> {
    let trouble = Trouble::default();
    let context = Context { sink: name.to_owned(), trouble: trouble.clone() };
    let producer = settings(config, timeout)?.create_with_context(context);
    let producer = producer.map_err(|error| TargetError::Stream {
        url: config.address.to_string(),
        why: error.to_string(),
    })?;
    Ok(Live { producer, trouble })
}

fn settings(config: &StreamConfig, timeout: Duration) -> Result<ClientConfig, TargetError> {
    login::check_certificates(config)?;
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
            let password = login::secret("login.passwordFile", password_file)?;
            settings
                .set("sasl.mechanism", mechanism_name(*mechanism))
                .set("sasl.username", user)
                .set("sasl.password", password);
        }
        // Those are NATS's; the config has refused them.
        Some(Login::Credentials(_) | Login::Token(_)) | None => {}
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
    /// That nobody is reached any longer says less than why the last one was not.
    fn note(&self, said: Said) {
        let mut last = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if said.about != About::Connection
            || last.as_ref().is_none_or(|last| last.about == About::Connection)
        {
            *last = Some(said);
        }
    }

    fn forget(&self) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = None;
    }

    fn last(&self) -> Option<Said> {
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
        let about = match error.rdkafka_error_code() {
            Some(Code::Authentication | Code::SaslAuthenticationFailed) => About::Login,
            Some(Code::SSL) => About::Tls,
            Some(_) | None => About::Connection,
        };
        self.trouble.note(Said { what: reason.to_owned(), about });
    }
}
