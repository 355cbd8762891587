//! ClientHellos of real clients: rustls over TCP, quinn over QUIC.

use std::{net::SocketAddr, sync::Arc, time::Instant};

use quinn_proto::{Endpoint, EndpointConfig, crypto::rustls::QuicClientConfig};
use rustls::{ClientConfig, ClientConnection, RootCertStore, crypto::ring};

fn config(alpn: &[&str]) -> ClientConfig {
    let mut config = ClientConfig::builder_with_provider(Arc::new(ring::default_provider()))
        .with_safe_default_protocol_versions()
        .expect("versions")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// What a TLS client says first.
pub(crate) fn tls(name: &str, alpn: &[&str]) -> Vec<u8> {
    let name = name.to_owned().try_into().expect("a name");
    let mut client = ClientConnection::new(Arc::new(config(alpn)), name).expect("a client");
    let mut bytes = Vec::new();
    client.write_tls(&mut bytes).expect("a hello");
    bytes
}

/// The datagrams that a QUIC client sends first.
pub(crate) fn quic(name: &str, server: SocketAddr) -> Vec<Vec<u8>> {
    let tls = QuicClientConfig::try_from(config(&["h3"])).expect("TLS 1.3");
    let config = quinn_proto::ClientConfig::new(Arc::new(tls));
    let mut endpoint = Endpoint::new(Arc::new(EndpointConfig::default()), None, true, None);
    let now = Instant::now();
    let (_, mut connection) = endpoint.connect(now, config, server, name).expect("a connection");
    let mut sent = Vec::new();
    loop {
        let mut payload = Vec::new();
        if connection.poll_transmit(now, 1, &mut payload).is_none() {
            return sent;
        }
        sent.push(payload);
    }
}
