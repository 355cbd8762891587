//! Kafka against a broker that is not librdkafka's own: tansu, and in front of it what ends TLS, which it
//! does not do itself. It keeps what it is given in memory.

use std::{
    fs::{self, Permissions},
    net::TcpListener,
    os::unix::{fs::PermissionsExt as _, process::CommandExt as _},
    path::{Path, PathBuf},
    process::Command,
    sync::Arc,
    time::{Duration, Instant},
};

use anyhow::{Context, Result, ensure};
use cloudevents::{Event, binding::rdkafka::MessageExt};
use detector_user::{
    config::{Login, SaslMechanism, StreamConfig},
    deliver::{Failure, HttpSettings, Sink, Target},
};
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, DnType, IsCa, KeyPair};
use rdkafka::{
    ClientConfig,
    consumer::{BaseConsumer, Consumer},
};
use tempfile::TempDir;
use testbed::{process::Process, root::is_root, skip};
use tokio::{io::copy_bidirectional, net::TcpStream, task::JoinHandle};
use tokio_rustls::{
    TlsAcceptor,
    rustls::{
        RootCertStore, ServerConfig,
        crypto::ring::default_provider,
        pki_types::{CertificateDer, PrivateKeyDer, pem::PemObject},
        server::WebPkiClientVerifier,
    },
};

use crate::bed::{self, Bed, PATIENCE, USERS};

const TOPIC: &str = "pressed";
const ATTEMPT: Duration = Duration::from_secs(3);
/// Nobody: it needs no rights.
const USER: u32 = 65_534;

fn program() -> Option<PathBuf> {
    let path = std::env::var_os("PATH")?;
    std::env::split_paths(&path).map(|it| it.join("tansu")).find(|it| it.is_file())
}

struct Broker {
    process: Process,
    port: u16,
    /// What clients are told to connect to.
    advertised: u16,
    arguments: Vec<&'static str>,
    /// The program's copy, as the build's directory may be closed to others.
    files: TempDir,
}

impl Broker {
    /// `None` if there is no program.
    fn start(arguments: &[&'static str]) -> Result<Option<Self>> {
        let port = free_port()?;
        Self::at(port, port, arguments)
    }

    fn at(port: u16, advertised: u16, arguments: &[&'static str]) -> Result<Option<Self>> {
        let Some(program) = program() else { return Ok(None) };
        let files = tempfile::tempdir()?;
        fs::set_permissions(files.path(), Permissions::from_mode(0o755))?;
        fs::copy(program, files.path().join("tansu"))?;
        let process = spawn(files.path(), port, advertised, arguments)?;
        Ok(Some(Self { process, port, advertised, arguments: arguments.to_vec(), files }))
    }

    fn kill(&mut self) -> Result<()> {
        self.process.signal(nix::sys::signal::Signal::SIGKILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    /// With nothing of what it had.
    fn start_again(&mut self) -> Result<()> {
        self.process = spawn(self.files.path(), self.port, self.advertised, &self.arguments)?;
        Ok(())
    }

    fn make_topic(&self) -> Result<()> {
        let mut command = Command::new(self.files.path().join("tansu"));
        command.args(["topic", "create", "--partitions", "3", "--broker"]);
        command.arg(format!("tcp://127.0.0.1:{}", self.port)).arg(TOPIC);
        ensure!(command.status()?.success(), "no topic");
        Ok(())
    }

    fn url(&self) -> String {
        format!("kafka://127.0.0.1:{}/{TOPIC}", self.advertised)
    }

    /// So many events of the topic, as the SDK reads them.
    fn events(&self, count: usize) -> Result<Vec<Event>> {
        let consumer: BaseConsumer = ClientConfig::new()
            .set("bootstrap.servers", format!("127.0.0.1:{}", self.port))
            .set("group.id", "test")
            .set("auto.offset.reset", "earliest")
            .create()?;
        let mut all = rdkafka::TopicPartitionList::new();
        for partition in 0..3 {
            all.add_partition_offset(TOPIC, partition, rdkafka::Offset::Beginning)?;
        }
        consumer.assign(&all)?;
        let (mut events, begin) = (Vec::new(), Instant::now());
        while events.len() < count {
            ensure!(begin.elapsed() < PATIENCE, "{} of {count} events", events.len());
            if let Some(message) = consumer.poll(Duration::from_millis(200)) {
                events.push(message?.to_event()?);
            }
        }
        Ok(events)
    }
}

fn free_port() -> Result<u16> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port())
}

fn spawn(files: &Path, port: u16, advertised: u16, arguments: &[&str]) -> Result<Process> {
    let mut command = Command::new(files.join("tansu"));
    command.args(["broker", "--storage-engine", "memory://tansu/", "--listener-url"]);
    command.arg(format!("tcp://127.0.0.1:{port}")).arg("--advertised-listener-url");
    command.arg(format!("tcp://127.0.0.1:{advertised}")).args(arguments);
    if is_root() {
        command.uid(USER).gid(USER);
    }
    let process = Process::spawn("tansu", command)?;
    process.wait_for_line(PATIENCE, |line| line.contains("ready in"))?;
    Ok(process)
}

fn open(config: &StreamConfig) -> Result<Arc<dyn Sink>> {
    let settings = HttpSettings { timeout: ATTEMPT, ..HttpSettings::default() };
    Ok(Target::Stream(Box::new(config.clone())).open("stream", &settings)?)
}

fn config(broker: &Broker) -> Result<StreamConfig> {
    Ok(StreamConfig::of(broker.url().parse().map_err(anyhow::Error::msg)?))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broker_that_was_killed_gets_what_waited_in_order() -> Result<()> {
    let Some(mut broker) = Broker::start(&[])? else { skip!("needs tansu") };
    broker.make_topic()?;
    let mut bed = Bed::start(&broker.url().parse()?, ATTEMPT, None)?;
    bed.send_numbers(0..20).await?;
    bed.all_delivered(20 * USERS).await?;
    assert_eq!(bed::numbers(&broker.events(20 * USERS)?)?, bed::in_order(20));
    broker.kill()?;
    bed.send_numbers(20..30).await?;
    bed.until_given_up()?;
    broker.start_again()?;
    broker.make_topic()?;
    bed.all_delivered(10 * USERS).await?;
    let numbers = bed::without_repeats(bed::numbers(&broker.events(10 * USERS)?)?);
    assert!(numbers.values().all(|of| of.iter().copied().eq(20..30)), "{numbers:?}");
    assert_eq!(bed.books()?, (30 * USERS as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_user_that_the_broker_does_not_know_is_named_with_its_field() -> Result<()> {
    let Some(broker) = Broker::start(&["--authentication"])? else { skip!("needs tansu") };
    let password_file = broker.files.path().join("password");
    fs::write(&password_file, "guessed-secret\n")?;
    for mechanism in [SaslMechanism::ScramSha256, SaslMechanism::ScramSha512] {
        let user = "me".to_owned();
        let login = Some(Login::User { user, password_file: password_file.clone(), mechanism });
        let sink = open(&StreamConfig { login, ..config(&broker)? })?;
        // The second attempt is another producer's, made with what is in the file by then.
        for _ in 0..2 {
            let Err(Failure::Credentials(said)) = sink.attempt(&bed::event(0, 0, 10)?).await else {
                panic!("let in")
            };
            assert!(said.contains("SCRAM") && said.contains("unknown-user"), "{said}");
            assert!(said.contains("login.user \"me\", login.passwordFile"), "{said}");
            assert!(!said.contains("guessed-secret"), "{said}");
        }
        fs::write(&password_file, "")?;
        let Err(Failure::Credentials(said)) = sink.attempt(&bed::event(0, 0, 10)?).await else {
            panic!("let in")
        };
        assert!(said.contains("login.passwordFile") && said.contains("is empty"), "{said}");
        fs::write(&password_file, "guessed-secret\n")?;
    }
    Ok(())
}

/// Signs, and writes what it signed.
struct Authority(CertifiedIssuer<'static, KeyPair>);

impl Authority {
    fn new() -> Result<Self> {
        let mut params = CertificateParams::new(Vec::new())?;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        Ok(Self(CertifiedIssuer::self_signed(params, KeyPair::generate()?)?))
    }

    fn write(&self, directory: &Path, name: &str) -> Result<(PathBuf, PathBuf)> {
        let key = KeyPair::generate()?;
        let mut params = CertificateParams::new(vec!["127.0.0.1".to_owned()])?;
        // One that has its issuer's name passes for self-signed with OpenSSL.
        params.distinguished_name.push(DnType::CommonName, name);
        let cert = params.signed_by(&key, &self.0)?;
        let path = |end: &str| directory.join(format!("{name}.{end}"));
        fs::write(path("pem"), cert.pem())?;
        fs::write(path("key"), key.serialize_pem())?;
        Ok((path("pem"), path("key")))
    }
}

/// Ends TLS in front of a port, for clients that this authority has signed.
async fn tls_in_front(port: u16, authority: &Authority) -> Result<(u16, JoinHandle<()>)> {
    let directory = tempfile::tempdir()?;
    let (cert, key) = authority.write(directory.path(), "server")?;
    let mut clients = RootCertStore::empty();
    clients.add(CertificateDer::from_pem_slice(authority.0.pem().as_bytes())?)?;
    let verifier = WebPkiClientVerifier::builder_with_provider(
        Arc::new(clients),
        Arc::new(default_provider()),
    );
    let server = ServerConfig::builder_with_provider(Arc::new(default_provider()))
        .with_safe_default_protocol_versions()?
        .with_client_cert_verifier(verifier.build()?)
        .with_single_cert(
            vec![CertificateDer::from_pem_file(cert)?],
            PrivateKeyDer::from_pem_file(key)?,
        )?;
    let acceptor = TlsAcceptor::from(Arc::new(server));
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await?;
    let front = listener.local_addr()?.port();
    let task = tokio::spawn(async move {
        while let Ok((stream, _)) = listener.accept().await {
            let acceptor = acceptor.clone();
            tokio::spawn(async move {
                let mut outside = acceptor.accept(stream).await?;
                let mut inside = TcpStream::connect(("127.0.0.1", port)).await?;
                copy_bidirectional(&mut outside, &mut inside).await
            });
        }
    });
    Ok((front, task))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn over_tls_each_shows_its_certificate_and_files_that_were_wrong_are_read_again() -> Result<()>
{
    let (ours, other) = (Authority::new()?, Authority::new()?);
    let port = free_port()?;
    let (front, _task) = tls_in_front(port, &ours).await?;
    let Some(broker) = Broker::at(port, front, &[])? else { skip!("needs tansu") };
    broker.make_topic()?;

    let directory = tempfile::tempdir()?;
    let ca = directory.path().join("ca.pem");
    fs::write(&ca, other.0.pem())?;
    let identity = Some(ours.write(directory.path(), "agent")?);
    let config = StreamConfig { tls: true, ca: Some(ca.clone()), identity, ..config(&broker)? };
    let (sink, event) = (open(&config)?, bed::event(0, 0, 10)?);
    let Err(Failure::Network(said)) = sink.attempt(&event).await else { panic!("trusted") };
    assert!(said.contains("certificate"), "{said}");
    fs::write(&ca, ours.0.pem())?;
    sink.attempt(&event).await?;

    // Signed by somebody whom the server does not know.
    let identity = Some(other.write(directory.path(), "stranger")?);
    let stranger = StreamConfig { identity, ..config.clone() };
    assert!(open(&stranger)?.attempt(&event).await.is_err());
    let nobody = StreamConfig { identity: None, ..config.clone() };
    assert!(open(&nobody)?.attempt(&event).await.is_err());
    let nowhere = StreamConfig { ca: Some(directory.path().join("nothing")), ..config };
    let said = open(&nowhere).err().context("opened")?.to_string();
    assert!(said.contains("tls.ca") && said.contains("nothing: No such file"), "{said}");
    Ok(())
}
