//! Sinks that keep events as a stream: NATS JetStream and Kafka.

use std::{fmt, path::PathBuf, str::FromStr};

use url::Url;

/// What a server speaks.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StreamProtocol {
    /// NATS, with JetStream.
    Nats,
    /// Kafka's own.
    Kafka,
}

impl StreamProtocol {
    /// A URL's scheme, and the cargo feature that it needs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Nats => "nats",
            Self::Kafka => "kafka",
        }
    }

    /// Whether this program was built with it.
    pub fn is_built_in(self) -> bool {
        match self {
            Self::Nats => cfg!(feature = "nats"),
            Self::Kafka => cfg!(feature = "kafka"),
        }
    }

    fn port(self) -> u16 {
        match self {
            Self::Nats => 4_222,
            Self::Kafka => 9_092,
        }
    }

    fn check_name(self, name: &str) -> Result<(), String> {
        match self {
            Self::Nats => check_subject(name),
            Self::Kafka => check_topic(name),
        }
    }
}

/// Where a stream is: `nats://HOST:PORT,HOST:PORT/SUBJECT` or `kafka://HOST:PORT,HOST:PORT/TOPIC`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamAddress {
    /// What its servers speak.
    pub protocol: StreamProtocol,
    /// Those that are asked first, each `HOST:PORT`; never empty. They tell of the others.
    pub servers: Vec<String>,
    /// The subject or the topic.
    pub name: String,
}

impl FromStr for StreamAddress {
    type Err = String;

    /// The error says what is wrong, as the end of a sentence about the text.
    fn from_str(text: &str) -> Result<Self, String> {
        let (scheme, rest) = text.split_once("://").ok_or("has no scheme")?;
        let protocol = [StreamProtocol::Nats, StreamProtocol::Kafka];
        let protocol = protocol.into_iter().find(|protocol| protocol.name() == scheme);
        let protocol = protocol.ok_or_else(|| format!("has the scheme {scheme}"))?;
        let (servers, name) = rest.split_once('/').unwrap_or((rest, ""));
        let servers: Result<_, String> =
            servers.split(',').map(|server| server_address(protocol, server)).collect();
        protocol.check_name(name)?;
        Ok(Self { protocol, servers: servers?, name: name.to_owned() })
    }
}

impl fmt::Display for StreamAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}://{}/{}", self.protocol.name(), self.servers.join(","), self.name)
    }
}

fn server_address(protocol: StreamProtocol, server: &str) -> Result<String, String> {
    if server.contains('@') {
        // Secrets belong in files of their own.
        return Err("has a user or a password, which belong under login".to_owned());
    }
    let url = Url::parse(&format!("{}://{server}", protocol.name()));
    let url = url.map_err(|error| format!("has no usable server {server:?} ({error})"))?;
    let host = url.host_str().filter(|host| !host.is_empty());
    let host = host.ok_or_else(|| format!("has no usable server {server:?} (empty host)"))?;
    if url.query().is_some() || url.fragment().is_some() {
        return Err("has a query or a fragment, which is never sent".to_owned());
    }
    Ok(format!("{host}:{}", url.port().unwrap_or(protocol.port())))
}

/// NATS documentation, "Subject-Based Messaging".
fn check_subject(subject: &str) -> Result<(), String> {
    let usable = |token: &str| {
        let wild = matches!(token, "*" | ">");
        !token.is_empty() && !wild && token.chars().all(|c| c.is_ascii_graphic())
    };
    match subject.split('.').all(usable) {
        true => Ok(()),
        false => Err(format!("has no usable subject {subject:?} behind the servers")),
    }
}

/// `org.apache.kafka.common.internals.Topic`.
fn check_topic(topic: &str) -> Result<(), String> {
    let letter = |b: u8| b.is_ascii_alphanumeric() || matches!(b, b'.' | b'_' | b'-');
    let usable = topic.bytes().all(letter) && !matches!(topic, "" | "." | "..");
    match usable && topic.len() <= 249 {
        true => Ok(()),
        false => Err(format!("has no usable topic {topic:?} behind the servers")),
    }
}

/// How to send to a stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StreamConfig {
    /// Where it is.
    pub address: StreamAddress,
    /// Speak TLS, and nothing else.
    pub tls: bool,
    /// Authorities to trust instead of the system's.
    pub ca: Option<PathBuf>,
    /// The agent's certificate and private key.
    pub identity: Option<(PathBuf, PathBuf)>,
    /// Who the agent is.
    pub login: Option<Login>,
}

impl StreamConfig {
    /// An address without further ado.
    pub fn of(address: StreamAddress) -> Self {
        Self { address, tls: false, ca: None, identity: None, login: None }
    }
}

/// Who the agent is to a stream's servers. Secrets are in files.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Login {
    /// A user and its password.
    User {
        /// The user.
        user: String,
        /// The file with the password; a newline at its end is not a part of it.
        password_file: PathBuf,
        /// How Kafka is told.
        mechanism: SaslMechanism,
    },
    /// A NATS credentials file: a JWT and an nkey's seed.
    Credentials(PathBuf),
    /// A file with a NATS token; a newline at its end is not a part of it.
    Token(PathBuf),
}

/// How a password is shown to Kafka.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, serde::Deserialize, schemars::JsonSchema)]
#[schemars(inline)]
pub enum SaslMechanism {
    /// `SCRAM-SHA-512`: the password itself is not sent (RFC 5802).
    #[default]
    #[serde(rename = "SCRAM-SHA-512")]
    ScramSha512,
    /// `SCRAM-SHA-256`
    #[serde(rename = "SCRAM-SHA-256")]
    ScramSha256,
    /// `PLAIN`: the password is sent; over TLS only.
    #[serde(rename = "PLAIN")]
    Plain,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> Result<StreamAddress, String> {
        text.parse()
    }

    #[test]
    fn an_address_has_servers_and_a_name_and_ports_have_defaults() {
        for (text, full) in [
            ("nats://a/x", "nats://a:4222/x"),
            ("nats://a:1,b/detector.events", "nats://a:1,b:4222/detector.events"),
            ("nats://[::1]:5/x", "nats://[::1]:5/x"),
            ("kafka://k1,k2:99/events-1_a.b", "kafka://k1:9092,k2:99/events-1_a.b"),
        ] {
            assert_eq!(address(text).unwrap().to_string(), full);
        }
    }

    #[test]
    fn what_is_no_address_is_refused_with_the_reason() {
        for (text, why) in [
            ("a/x", "has no scheme"),
            ("amqp://a/x", "has the scheme amqp"),
            ("nats://a", "no usable subject \"\""),
            ("nats://a/x.*", "no usable subject \"x.*\""),
            ("nats://a/x..y", "no usable subject"),
            ("nats://a/x y", "no usable subject"),
            ("nats:///x", "no usable server \"\""),
            ("nats://a,/x", "no usable server \"\""),
            ("nats://a:b/x", "no usable server \"a:b\""),
            ("nats://me:secret@a/x", "which belong under login"),
            ("kafka://a?x/x", "has a query"),
            ("kafka://a/x/y", "no usable topic \"x/y\""),
            ("kafka://a/", "no usable topic \"\""),
        ] {
            let said = address(text).unwrap_err();
            assert!(said.contains(why) && !said.contains("secret"), "{text}: {said}");
        }
    }
}
