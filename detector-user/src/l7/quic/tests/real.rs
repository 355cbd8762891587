//! Initials of a real client, quinn, without a network.

use std::{
    net::{Ipv4Addr, SocketAddr},
    sync::Arc,
    time::Instant,
};

use quinn_proto::{
    ClientConfig, Connection, ConnectionHandle, DatagramEvent, Endpoint, EndpointConfig,
    ServerConfig,
    crypto::rustls::{QuicClientConfig, QuicServerConfig},
};
use rustls::{
    crypto::ring,
    server::{ClientHello as Asked, ResolvesServerCert},
    sign::CertifiedKey,
};

use super::*;
use crate::l7::client::{Shares, config};

const NAME: &str = "shop.example.com";

struct Client {
    endpoint: Endpoint,
    handle: ConnectionHandle,
    connection: Connection,
    now: Instant,
}

fn server_address() -> SocketAddr {
    (Ipv4Addr::new(192, 0, 2, 1), 443).into()
}

fn client(version: u32, shares: Shares) -> Client {
    let tls = QuicClientConfig::try_from(config(shares, &["h3"])).expect("TLS 1.3");
    let mut config = ClientConfig::new(Arc::new(tls));
    config.version(version);
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let connected = endpoint.connect(now, config, server_address(), NAME);
    let (handle, connection) = connected.expect("a connection");
    Client { endpoint, handle, connection, now }
}

impl Client {
    /// UDP payloads as they go to the kernel, of up to `segments` datagrams each.
    fn sends(&mut self, segments: usize) -> Vec<Vec<u8>> {
        let mut sent = Vec::new();
        loop {
            let mut payload = Vec::new();
            if self.connection.poll_transmit(self.now, segments, &mut payload).is_none() {
                return sent;
            }
            sent.push(payload);
        }
    }

    fn receives(&mut self, datagram: &[u8]) {
        let event = self.endpoint.handle(
            self.now,
            server_address(),
            None,
            None,
            datagram.into(),
            &mut Vec::new(),
        );
        let Some(DatagramEvent::ConnectionEvent(to, event)) = event else {
            panic!("the client does not know what came")
        };
        assert_eq!(to, self.handle);
        self.connection.handle_event(event);
    }
}

#[derive(Debug)]
struct NoCertificate;

impl ResolvesServerCert for NoCertificate {
    fn resolve(&self, _asked: Asked<'_>) -> Option<Arc<CertifiedKey>> {
        None
    }
}

/// What a server answers that wants the client's address proven (RFC 9000 section 8.1.2).
fn retry(now: Instant, first: &[u8]) -> Vec<u8> {
    let tls = rustls::ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_protocol_versions(&[&rustls::version::TLS13])
        .expect("TLS 1.3")
        .with_no_client_auth()
        .with_cert_resolver(Arc::new(NoCertificate));
    let tls = QuicServerConfig::try_from(tls).expect("TLS 1.3");
    let config = Arc::new(ServerConfig::with_crypto(Arc::new(tls)));
    let mut server = Endpoint::new(Arc::new(EndpointConfig::default()), Some(config), true, None);
    let from = (Ipv4Addr::new(10, 60, 0, 3), 50_000).into();
    let mut answer = Vec::new();
    let event = server.handle(now, from, None, None, first.into(), &mut answer);
    let Some(DatagramEvent::NewConnection(incoming)) = event else {
        panic!("no Initial for the server")
    };
    let _ = server.retry(incoming, &mut answer).expect("a Retry");
    answer
}

fn read<'a>(datagrams: impl IntoIterator<Item = &'a Vec<u8>>) -> Vec<Fact> {
    let mut initials = Initials::default();
    let facts = datagrams.into_iter().flat_map(|datagram| initials.datagram(datagram)).collect();
    assert_eq!(initials.take_unread(), Unread::default());
    facts
}

#[test]
fn a_hello_in_one_initial() {
    let sent = client(1, Shares::Classic).sends(1);
    let facts = read(&sent);
    let [Fact::Quic(QuicHello { version: 1, hello })] = &facts[..] else {
        panic!("one hello expected: {facts:?}")
    };
    assert_eq!(hello.sni.as_deref(), Some(NAME));
    assert_eq!((&hello.alpn[..], hello.version), (&["h3".to_owned()][..], 0x0304));
    assert!(hello.ja4.as_deref().is_some_and(|ja4| ja4.starts_with("q13d") && ja4.contains("h3_")));
}

#[test]
fn drafts_that_clients_spoke() {
    for draft in 29..=32 {
        let version = 0xff00_0000 | draft;
        assert_eq!(names(&read(&client(version, Shares::Classic).sends(1))), [(version, NAME)]);
    }
}

#[test]
fn a_post_quantum_hello_over_several_datagrams_in_any_order() {
    let sent = client(1, Shares::PostQuantum).sends(1);
    assert!(sent.len() > 1, "one datagram held it");
    assert_eq!(names(&read(&sent)), [(1, NAME)]);
    assert_eq!(names(&read(sent.iter().rev())), [(1, NAME)]);
    for missing in 0..sent.len() {
        let others = sent.iter().enumerate().filter(|(at, _)| *at != missing);
        assert_eq!(read(others.map(|(_, datagram)| datagram)), [], "without datagram {missing}");
    }
}

#[test]
fn a_super_packet_holds_several_datagrams() {
    let sent = client(1, Shares::PostQuantum).sends(10);
    assert!(sent[0].len() > 2000, "no super-packet: {} bytes", sent[0].len());
    assert_eq!(names(&read(&sent)), [(1, NAME)]);
}

#[test]
fn a_hello_of_which_a_part_was_lost_is_whole_after_a_retry() {
    let mut client = client(1, Shares::PostQuantum);
    let first = client.sends(1);
    client.receives(&retry(client.now, &first[0]));
    let second = client.sends(1);
    assert_eq!(names(&read(first[..1].iter().chain(&second[1..]))), [(1, NAME)]);
}

#[test]
fn a_hello_said_again_after_a_retry_counts_once() {
    let mut client = client(1, Shares::Classic);
    let first = client.sends(1);
    let retry = retry(client.now, &first[0]);
    client.receives(&retry);
    let second = client.sends(1);
    assert_eq!(names(&read(&second)), [(1, NAME)], "the first flight was not seen");
    assert_eq!(names(&read(first.iter().chain([&retry]).chain(&second))), [(1, NAME)]);
}
