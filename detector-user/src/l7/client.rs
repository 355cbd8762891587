//! For tests: what real clients say first (rustls; over QUIC, quinn).

use std::sync::Arc;

use rustls::{
    ClientConfig, ClientConnection, Error, NamedGroup, RootCertStore,
    crypto::{ActiveKeyExchange, CryptoProvider, SharedSecret, SupportedKxGroup, ring},
    pki_types::ServerName,
};

/// Key shares as they are sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Shares {
    /// X25519: 32 bytes; the hello fits a segment.
    Classic,
    /// X25519MLKEM768: 1,216 bytes (draft-ietf-tls-ecdhe-mlkem), and the X25519 in it once more
    /// beside it, as browsers do; the hello does not fit a segment.
    PostQuantum,
}

/// A group that only sends: the hello is rustls's own, the share in it are bytes of the right
/// number. Making a true one needs a library that takes minutes to compile, and nobody answers.
#[derive(Debug)]
struct Mlkem;

impl SupportedKxGroup for Mlkem {
    fn start(&self) -> Result<Box<dyn ActiveKeyExchange>, Error> {
        Ok(Box::new(MlkemShare((0..1216u32).map(|at| (at * 37) as u8).collect())))
    }

    fn name(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

struct MlkemShare(Vec<u8>);

impl ActiveKeyExchange for MlkemShare {
    fn complete(self: Box<Self>, _peer: &[u8]) -> Result<SharedSecret, Error> {
        Err(Error::General("nobody answers".into()))
    }

    fn pub_key(&self) -> &[u8] {
        &self.0
    }

    fn hybrid_component(&self) -> Option<(NamedGroup, &[u8])> {
        Some((NamedGroup::X25519, self.0.last_chunk::<32>()?))
    }

    fn complete_hybrid_component(self: Box<Self>, peer: &[u8]) -> Result<SharedSecret, Error> {
        self.complete(peer)
    }

    fn group(&self) -> NamedGroup {
        NamedGroup::X25519MLKEM768
    }
}

/// A client that offers these protocols.
pub(super) fn config(shares: Shares, alpn: &[&str]) -> ClientConfig {
    let mut provider: CryptoProvider = ring::default_provider();
    if shares == Shares::PostQuantum {
        provider.kx_groups.insert(0, &Mlkem);
    }
    let mut config = ClientConfig::builder_with_provider(Arc::new(provider))
        .with_safe_default_protocol_versions()
        .expect("versions that ring can")
        .with_root_certificates(RootCertStore::empty())
        .with_no_client_auth();
    config.alpn_protocols = alpn.iter().map(|name| name.as_bytes().to_vec()).collect();
    config
}

/// The first bytes that it sends to the server of this name.
pub(super) fn first_flight(config: ClientConfig, name: &'static str) -> Vec<u8> {
    let name = ServerName::try_from(name).expect("a name or an address");
    let mut client = ClientConnection::new(Arc::new(config), name).expect("a client");
    let mut sent = Vec::new();
    while client.wants_write() {
        client.write_tls(&mut sent).expect("a vector takes everything");
    }
    sent
}
