//! NATS JetStream: the stream has an event when it has acknowledged it.
//!
//! Events are written in the structured content mode (CloudEvents NATS binding 1.0, section 3.1). The
//! event's id is the message's too, so that the stream drops what it has already: of an attempt whose
//! acknowledgement was lost nothing comes twice within its `duplicate_window` (two minutes unless told
//! otherwise).

use std::{error::Error, sync::Arc, time::Duration};

use async_nats::{
    Client, ConnectError, ConnectErrorKind, ConnectOptions, Event as Notice, ServerAddr,
    connection::State,
    jetstream::{
        self, ErrorCode,
        context::{Publish, PublishError, PublishErrorKind},
    },
};
use cloudevents::{AttributesReader, Event, binding::nats::NatsCloudEvent};
use futures::{FutureExt, future::BoxFuture};
use tokio::{
    sync::{Mutex, watch},
    time::timeout,
};

use super::{
    causes::chain,
    login,
    sink::{Failure, Sink, TargetError, unsendable},
};
use crate::config::{Login, StreamConfig};

const CONTENT_TYPE: &str = "application/cloudevents+json; charset=UTF-8";
/// What headers add to a message, at most: names, id, content type.
const HEADERS: usize = 512;

/// A subject that a stream takes.
pub(super) struct NatsSink {
    name: String,
    config: StreamConfig,
    /// For one attempt.
    timeout: Duration,
    connected: Mutex<Option<Arc<Connected>>>,
}

/// One connection. When it is lost a new one is made by whoever needs it, and not by the library, which
/// would go on with the secrets that it was given first.
struct Connected {
    client: Client,
    stream: jetstream::Context,
    /// How often the connection was lost.
    losses: watch::Receiver<u64>,
}

impl NatsSink {
    /// A sink that has not connected yet.
    ///
    /// # Errors
    /// Files that cannot be read.
    pub(super) fn new(
        name: &str,
        config: &StreamConfig,
        timeout: Duration,
    ) -> Result<Self, TargetError> {
        // They are read again when it connects; what is wrong with them is to be known now.
        options(config)?;
        let (name, config) = (name.to_owned(), config.clone());
        Ok(Self { name, config, timeout, connected: Mutex::new(None) })
    }

    async fn deliver(&self, event: &Event) -> Result<(), Failure> {
        // The binding wants an event of its own.
        let payload = NatsCloudEvent::from_event(event.clone()).map_err(unsendable)?.payload;
        let connected = self.connected().await?;
        connected.check(payload.len())?;
        let publish = Publish::build()
            .payload(payload.into())
            .header("content-type", CONTENT_TYPE)
            .message_id(event.id());
        let subject = &self.config.address.name;
        let mut losses = connected.losses.clone();
        losses.mark_unchanged();
        let acknowledged =
            async { connected.stream.send_publish(subject.clone(), publish).await?.await };
        tokio::select! {
            ack = acknowledged => ack.map(drop).map_err(|error| failure(&error, subject)),
            Ok(()) = losses.changed() => {
                Err(Failure::Closed("the connection was lost before the acknowledgement".into()))
            }
        }
    }

    /// The connection, or a new one if it is lost. Others who need one wait meanwhile, each for as long as
    /// its attempt may take.
    async fn connected(&self) -> Result<Arc<Connected>, Failure> {
        let mut connected = self.connected.lock().await;
        if let Some(good) = connected.as_ref().filter(|it| !it.is_lost()) {
            return Ok(good.clone());
        }
        *connected = None;
        Ok(connected.insert(Arc::new(self.connect().await?)).clone())
    }

    async fn connect(&self) -> Result<Connected, Failure> {
        let credentials = |error: TargetError| Failure::Credentials(error.to_string());
        let (count, losses) = watch::channel(0);
        let name = self.name.clone();
        let options = options(&self.config).map_err(credentials)?;
        let options = options.connection_timeout(self.timeout).event_callback(move |notice| {
            note(&name, &notice);
            if matches!(notice, Notice::Disconnected) {
                count.send_modify(|count| *count += 1);
            }
            std::future::ready(())
        });
        let servers: Result<Vec<ServerAddr>, _> =
            self.config.address.servers.iter().map(|server| server.parse()).collect();
        let servers = servers.map_err(|error| Failure::Network(error.to_string()))?;
        let client = options.connect(servers).await.map_err(|error| self.not_connected(&error))?;
        let mut stream = jetstream::new(client.clone());
        stream.set_timeout(self.timeout);
        Ok(Connected { client, stream, losses })
    }

    fn not_connected(&self, error: &ConnectError) -> Failure {
        match error.kind() {
            ConnectErrorKind::TimedOut => Failure::Timeout,
            ConnectErrorKind::Authentication | ConnectErrorKind::AuthorizationViolation => {
                let fields = login::fields(self.config.login.as_ref());
                Failure::Credentials(format!(
                    "{}; the server does not accept {fields}",
                    chain(error)
                ))
            }
            ConnectErrorKind::ServerParse
            | ConnectErrorKind::Dns
            | ConnectErrorKind::Tls
            | ConnectErrorKind::Io
            | ConnectErrorKind::MaxReconnects => Failure::Network(chain(error)),
        }
    }
}

impl Connected {
    fn is_lost(&self) -> bool {
        self.client.connection_state() == State::Disconnected
    }

    /// What the library would send and lose the connection by.
    fn check(&self, length: usize) -> Result<(), Failure> {
        let most = self.client.server_info().max_payload;
        if length + HEADERS > most {
            let why = format!("{length} bytes of event; the server takes {most} in a message");
            return Err(Failure::Refused(why));
        }
        Ok(())
    }
}

impl Sink for NatsSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn verb(&self) -> &'static str {
        "publish"
    }

    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        let attempt = timeout(self.timeout, self.deliver(event));
        attempt.map(|result| result.unwrap_or(Err(Failure::Timeout))).boxed()
    }
}

fn options(config: &StreamConfig) -> Result<ConnectOptions, TargetError> {
    login::check_certificates(config)?;
    // Once, which costs nothing and is given up when a new connection is made here.
    let options = ConnectOptions::new().name("detector").max_reconnects(1);
    let mut options = options.require_tls(config.tls);
    if let Some(ca) = &config.ca {
        options = options.add_root_certificates(ca.clone());
    }
    if let Some((cert, key)) = &config.identity {
        options = options.add_client_certificate(cert.clone(), key.clone());
    }
    Ok(match &config.login {
        None => options,
        Some(Login::User { user, password_file, mechanism: _ }) => {
            let password = login::secret("login.passwordFile", password_file)?;
            options.user_and_password(user.clone(), password)
        }
        Some(Login::Token(path)) => options.token(login::secret("login.tokenFile", path)?),
        Some(Login::Credentials(path)) => {
            let field = "login.credentials";
            let refuse = |_| TargetError::Certificate {
                what: format!("{field} {}", path.display()),
                expected: "a NATS credentials file: a user's JWT and the seed of its nkey",
            };
            options.credentials(&login::read(field, path)?).map_err(refuse)?
        }
    })
}

fn note(sink: &str, notice: &Notice) {
    match notice {
        Notice::Connected => tracing::info!(sink, "connected"),
        Notice::Disconnected => tracing::warn!(sink, "the connection is lost; connecting again"),
        Notice::LameDuckMode | Notice::Draining | Notice::Closed | Notice::SlowConsumer(_) => {
            tracing::debug!(sink, %notice);
        }
        Notice::ServerError(error) => tracing::warn!(sink, %error),
        // Of each try to connect again.
        Notice::ClientError(error) => tracing::debug!(sink, %error),
    }
}

fn failure(error: &PublishError, subject: &str) -> Failure {
    let said = error.source().and_then(|source| source.downcast_ref::<jetstream::Error>());
    match (error.kind(), said.map(jetstream::Error::error_code)) {
        (PublishErrorKind::TimedOut, _) => Failure::Timeout,
        (PublishErrorKind::BrokenPipe, _) => Failure::Closed(chain(error)),
        (PublishErrorKind::StreamNotFound, _) => Failure::Unavailable(format!(
            "no stream takes the subject {subject:?} (`nats stream add --subjects {subject}`)"
        )),
        (_, Some(ErrorCode::STREAM_MESSAGE_EXCEEDS_MAXIMUM)) => Failure::Refused(chain(error)),
        (
            PublishErrorKind::WrongLastMessageId
            | PublishErrorKind::WrongLastSequence
            | PublishErrorKind::Other,
            _,
        ) => Failure::Unavailable(chain(error)),
    }
}
