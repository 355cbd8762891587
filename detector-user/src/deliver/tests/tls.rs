//! https: whom the agent trusts, who it says it is, and files that change.

use std::{fs, net::Ipv4Addr, path::Path, sync::Mutex};

use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use tokio::{
    io::{AsyncReadExt, AsyncWriteExt},
    net::TcpListener,
    task::JoinSet,
};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig, SupportedProtocolVersion,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
        version::{TLS12, TLS13},
    },
};

use url::Url;

use super::*;

/// An authority that signs.
struct Authority(CertifiedIssuer<'static, KeyPair>);

/// A certificate and its key, in PEM.
struct Pair {
    cert: String,
    key: String,
}

impl Authority {
    fn new() -> Self {
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Self(CertifiedIssuer::self_signed(params, KeyPair::generate().unwrap()).unwrap())
    }

    fn pem(&self) -> String {
        self.0.pem()
    }

    fn sign(&self, name: &str) -> Pair {
        let key = KeyPair::generate().unwrap();
        let params = CertificateParams::new(vec![name.to_owned()]).unwrap();
        let cert = params.signed_by(&key, &self.0).unwrap();
        Pair { cert: cert.pem(), key: key.serialize_pem() }
    }
}

/// What the receiver is.
struct Server<'a> {
    pair: Pair,
    clients: Option<&'a Authority>,
    version: &'static SupportedProtocolVersion,
}

/// A receiver over TLS that answers 202 and closes; the URL lives as long as the set.
async fn serve(server: Server<'_>) -> (Url, Arc<Mutex<u32>>, JoinSet<()>) {
    let builder = ServerConfig::builder_with_provider(default_provider().into())
        .with_protocol_versions(&[server.version])
        .unwrap();
    let builder = match server.clients {
        None => builder.with_no_client_auth(),
        Some(authority) => {
            let mut roots = RootCertStore::empty();
            roots.add(CertificateDer::from_pem_slice(authority.pem().as_bytes()).unwrap()).unwrap();
            let provider = default_provider().into();
            let verifier =
                WebPkiClientVerifier::builder_with_provider(roots.into(), provider).build();
            builder.with_client_cert_verifier(verifier.unwrap())
        }
    };
    let cert = CertificateDer::from_pem_slice(server.pair.cert.as_bytes()).unwrap();
    let key = PrivateKeyDer::from_pem_slice(server.pair.key.as_bytes()).unwrap();
    let acceptor = TlsAcceptor::from(Arc::new(builder.with_single_cert(vec![cert], key).unwrap()));
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).await.unwrap();
    let url = format!("https://localhost:{}/", listener.local_addr().unwrap().port());
    let (taken, mut tasks) = (Arc::new(Mutex::new(0)), JoinSet::new());
    let counter = taken.clone();
    tasks.spawn(async move {
        loop {
            let (stream, _) = listener.accept().await.unwrap();
            let Ok(mut stream) = acceptor.accept(stream).await else { continue };
            let mut head = Vec::new();
            while !head.ends_with(b"\r\n\r\n") {
                let Ok(byte) = stream.read_u8().await else { break };
                head.push(byte);
            }
            if head.ends_with(b"\r\n\r\n") {
                *counter.lock().unwrap() += 1;
                let answer =
                    b"HTTP/1.1 202 Accepted\r\ncontent-length: 0\r\nconnection: close\r\n\r\n";
                let _ = stream.write_all(answer).await;
                let _ = stream.shutdown().await;
            }
        }
    });
    (url.parse().unwrap(), taken, tasks)
}

fn sink(config: &HttpConfig) -> HttpSink {
    HttpSink::new("https", config, &HttpSettings::default()).unwrap()
}

fn write(directory: &Path, name: &str, text: &str) -> Option<std::path::PathBuf> {
    let path = directory.join(name);
    fs::write(&path, text).unwrap();
    Some(path)
}

#[tokio::test]
async fn a_given_authority_is_trusted_and_another_is_not() {
    let (ours, other, directory) =
        (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let server = Server { pair: ours.sign("localhost"), clients: None, version: &TLS13 };
    let (url, taken, _server) = serve(server).await;
    let ca = |authority: &Authority| HttpConfig {
        ca: write(directory.path(), "ca.pem", &authority.pem()),
        ..HttpConfig::of(url.clone())
    };
    sink(&ca(&ours)).attempt(&event("1", "a")).await.unwrap();
    let failure = sink(&ca(&other)).attempt(&event("2", "a")).await.unwrap_err();
    assert!(matches!(&failure, Failure::Network(why) if why.contains("certificate")), "{failure}");
    let system = HttpConfig::of(url.clone());
    assert!(sink(&system).attempt(&event("3", "a")).await.is_err());
    let k_ca_certs = HttpConfig { more_ca: Some(ours.pem()), ..system };
    sink(&k_ca_certs).attempt(&event("4", "a")).await.unwrap();
    assert_eq!(*taken.lock().unwrap(), 2);
}

#[tokio::test]
async fn the_agent_shows_its_certificate_when_it_has_one() {
    let (ours, directory) = (Authority::new(), tempfile::tempdir().unwrap());
    let server = Server { pair: ours.sign("localhost"), clients: Some(&ours), version: &TLS13 };
    let (url, taken, _server) = serve(server).await;
    let nobody = HttpConfig { more_ca: Some(ours.pem()), ..HttpConfig::of(url) };
    assert!(sink(&nobody).attempt(&event("1", "a")).await.is_err());
    let pair = ours.sign("agent");
    let cert = write(directory.path(), "cert.pem", &pair.cert);
    let key = write(directory.path(), "key.pem", &pair.key);
    let somebody = HttpConfig { identity: cert.zip(key), ..nobody };
    sink(&somebody).attempt(&event("2", "a")).await.unwrap();
    assert_eq!(*taken.lock().unwrap(), 1);
}

#[tokio::test]
async fn changed_files_are_read_again_and_bad_ones_are_not_used() {
    let (ours, other, directory) =
        (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let server = Server { pair: ours.sign("localhost"), clients: None, version: &TLS13 };
    let (url, _, _server) = serve(server).await;
    let ca = write(directory.path(), "ca.pem", &other.pem());
    let sink = sink(&HttpConfig { ca, ..HttpConfig::of(url) });
    assert!(sink.attempt(&event("1", "a")).await.is_err());
    write(directory.path(), "ca.pem", &ours.pem());
    let soon = async {
        while sink.attempt(&event("2", "a")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, soon).await.expect("the new authority is trusted");
    write(directory.path(), "ca.pem", "no certificate");
    tokio::time::sleep(Duration::from_millis(1_100)).await;
    sink.attempt(&event("3", "a")).await.expect("the last good one stays");
}

#[tokio::test]
async fn a_changed_certificate_of_the_agent_is_shown() {
    let (ours, other, directory) =
        (Authority::new(), Authority::new(), tempfile::tempdir().unwrap());
    let server = Server { pair: ours.sign("localhost"), clients: Some(&ours), version: &TLS13 };
    let (url, taken, _server) = serve(server).await;
    let show = |pair: &Pair| {
        let cert = write(directory.path(), "cert.pem", &pair.cert);
        cert.zip(write(directory.path(), "key.pem", &pair.key))
    };
    let identity = show(&other.sign("agent"));
    let sink = sink(&HttpConfig { more_ca: Some(ours.pem()), identity, ..HttpConfig::of(url) });
    assert!(sink.attempt(&event("1", "a")).await.is_err());
    show(&ours.sign("agent"));
    let soon = async {
        while sink.attempt(&event("2", "a")).await.is_err() {
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    timeout(PATIENCE, soon).await.expect("the new certificate is shown");
    assert_eq!(*taken.lock().unwrap(), 1);
}

#[tokio::test]
async fn tls_1_2_is_refused() {
    let ours = Authority::new();
    let server = Server { pair: ours.sign("localhost"), clients: None, version: &TLS12 };
    let (url, taken, _server) = serve(server).await;
    let config = HttpConfig { more_ca: Some(ours.pem()), ..HttpConfig::of(url) };
    assert!(sink(&config).attempt(&event("1", "a")).await.is_err());
    assert_eq!(*taken.lock().unwrap(), 0);
}

#[test]
fn a_file_that_holds_no_certificate_is_named_and_not_shown() {
    let directory = tempfile::tempdir().unwrap();
    let ca = write(directory.path(), "ca.pem", "my secret");
    let url = "https://b/".parse().unwrap();
    let config = HttpConfig { ca, ..HttpConfig::of(url) };
    let message = HttpSink::new("https", &config, &HttpSettings::default()).err().unwrap();
    let message = message.to_string();
    assert!(message.contains("ca.pem: expected at least one certificate"), "{message}");
    assert!(!message.contains("secret"), "{message}");
}
