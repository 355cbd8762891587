//! Against nats-server.

use std::{
    fs,
    path::Path,
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result};
use async_nats::jetstream::{self, consumer::pull, stream};
use cloudevents::{Event, binding::nats::MessageExt};
use detector_user::{
    config::{Login, SaslMechanism, StreamConfig},
    deliver::{Failure, HttpSettings, Target},
};
use futures::StreamExt;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use testbed::{
    process::{Output, Process},
    skip,
};

use crate::bed::{self, Bed, PATIENCE, USERS};

pub(crate) const ATTEMPT: Duration = Duration::from_secs(3);

pub(crate) fn is_installed() -> bool {
    let mut command = Command::new("nats-server");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

pub(crate) struct Server {
    process: Process,
    port: u16,
    store: TempDir,
    arguments: Vec<String>,
}

impl Server {
    pub(crate) fn start(arguments: &[&str]) -> Result<Self> {
        let arguments: Vec<String> = arguments.iter().map(|&it| it.to_owned()).collect();
        let store = tempfile::tempdir()?;
        // -1: a free port.
        let (process, port) = spawn(store.path(), "-1", &arguments)?;
        Ok(Self { process, port, store, arguments })
    }

    pub(crate) fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::SIGKILL)?;
        self.process.wait(PATIENCE).map(drop)
    }

    pub(crate) fn start_again_with(&mut self, arguments: &[&str]) -> Result<()> {
        self.arguments = arguments.iter().map(|&it| it.to_owned()).collect();
        self.start_again()
    }

    fn start_again(&mut self) -> Result<()> {
        (self.process, _) = spawn(self.store.path(), &self.port.to_string(), &self.arguments)?;
        Ok(())
    }

    pub(crate) fn url(&self) -> String {
        format!("nats://127.0.0.1:{}/detector.pressed", self.port)
    }

    async fn context(&self) -> Result<jetstream::Context> {
        let client = async_nats::connect(format!("127.0.0.1:{}", self.port)).await?;
        Ok(jetstream::new(client))
    }
}

fn spawn(store: &Path, port: &str, arguments: &[String]) -> Result<(Process, u16)> {
    let mut command = Command::new("nats-server");
    command.args(["-js", "-a", "127.0.0.1", "-p", port, "-sd"]).arg(store).args(arguments);
    let process = Process::spawn("nats-server", command)?;
    let listening = "Listening for client connections on 127.0.0.1:";
    let line = process.wait_for_line(PATIENCE, |line| line.contains(listening))?;
    process.wait_for_line(PATIENCE, |line| line.contains("Server is ready"))?;
    let (_, port) = line.split_once(listening).context("a port")?;
    assert!(!process.lines(Output::Stderr).is_empty());
    Ok((process, port.trim().parse()?))
}

async fn make_stream(context: &jetstream::Context, max_message_size: i32) -> Result<()> {
    let config = stream::Config {
        name: "events".into(),
        subjects: vec!["detector.>".into()],
        max_message_size,
        ..Default::default()
    };
    context.create_stream(config).await?;
    Ok(())
}

/// All that is in the stream, as the SDK reads it.
async fn events(context: &jetstream::Context) -> Result<Vec<Event>> {
    let mut stream = context.get_stream("events").await?;
    let count = stream.info().await?.state.messages as usize;
    let consumer = stream.create_consumer(pull::Config::default()).await?;
    let mut messages = consumer.messages().await?.take(count);
    let mut events = Vec::new();
    while let Some(message) = messages.next().await {
        let message = message?.message;
        let headers = message.headers.as_ref().context("no headers")?;
        let event = message.to_event()?;
        let id = headers.get(async_nats::header::NATS_MESSAGE_ID).context("no id")?;
        assert_eq!(id.as_str(), cloudevents::AttributesReader::id(&event));
        events.push(event);
    }
    Ok(events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_event_is_in_the_stream_once_and_a_users_in_order() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let server = Server::start(&[])?;
    let context = server.context().await?;
    make_stream(&context, -1).await?;
    let mut bed = Bed::start(&server.url().parse()?, ATTEMPT, None)?;
    bed.send_numbers(0..100).await?;
    bed.all_delivered(100 * USERS).await?;
    assert_eq!(bed::numbers(&events(&context).await?)?, bed::in_order(100));
    assert_eq!(bed.books()?, (100 * USERS as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_server_that_was_killed_gets_everything_once_when_it_is_back() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let mut server = Server::start(&[])?;
    make_stream(&server.context().await?, -1).await?;
    let mut bed = Bed::start(&server.url().parse()?, ATTEMPT, None)?;
    bed.send_numbers(0..20).await?;
    // In the middle of it.
    bed.all_delivered(USERS).await?;
    server.kill()?;
    bed.send_numbers(20..40).await?;
    server.start_again()?;
    bed.all_delivered(39 * USERS).await?;
    let events = events(&server.context().await?).await?;
    assert_eq!(bed::numbers(&events)?, bed::in_order(40));
    assert_eq!(bed.books()?, (40 * USERS as u64, 0));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn without_a_stream_events_wait_until_there_is_one() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let server = Server::start(&[])?;
    let target: Target = server.url().parse()?;
    let sink = target.open("stream", &HttpSettings::default())?;
    let failure = sink.attempt(&bed::event(0, 0, 10)?).await.unwrap_err();
    let said = failure.to_string();
    assert!(said.contains("no stream takes the subject \"detector.pressed\""), "{said}");

    let mut bed = Bed::start(&target, ATTEMPT, None)?;
    bed.send_numbers(0..3).await?;
    let context = server.context().await?;
    make_stream(&context, -1).await?;
    bed.all_delivered(3 * USERS).await?;
    assert_eq!(bed::numbers(&events(&context).await?)?, bed::in_order(3));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_too_large_is_a_dead_letter_and_holds_up_nobody() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let server = Server::start(&[])?;
    let context = server.context().await?;
    make_stream(&context, 2_000).await?;
    let directory = tempfile::tempdir()?;
    let letters = directory.path().join("letters.jsonl");
    let mut bed = Bed::start(&server.url().parse()?, ATTEMPT, Some(&letters))?;
    // One that the stream does not take, and one for which the server would end the connection.
    for (user, size) in [(0, 3_000), (1, 2 << 20)] {
        bed.send(bed::event(user, 1_000, size)?).await;
        let (_, outcome, reason) = bed.outcome().await?;
        assert_eq!(outcome, "rejected", "{reason}");
        assert!(
            reason.contains("message size exceeds") || reason.contains("the server takes"),
            "{reason}"
        );
    }
    bed.send_numbers(0..2).await?;
    bed.all_delivered(2 * USERS).await?;
    assert_eq!(bed::numbers(&events(&context).await?)?, bed::in_order(2));
    assert_eq!(bed.books()?, (2 * USERS as u64, 2));
    assert_eq!(fs::read_to_string(&letters)?.lines().count(), 2);
    Ok(())
}

/// Of a sink with these files: what an attempt ends with.
async fn attempt(config: &StreamConfig) -> Result<Result<(), Failure>> {
    let target = Target::Stream(Box::new(config.clone()));
    let settings = HttpSettings { timeout: ATTEMPT, ..HttpSettings::default() };
    Ok(target.open("stream", &settings)?.attempt(&bed::event(0, 0, 10)?).await)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn tls_and_a_password_are_needed_where_the_server_wants_them() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let directory = tempfile::tempdir()?;
    let path = |name: &str| directory.path().join(name);
    let key = rcgen::generate_simple_self_signed(["127.0.0.1".to_owned()])?;
    fs::write(path("cert.pem"), key.cert.pem())?;
    fs::write(path("key.pem"), key.signing_key.serialize_pem())?;
    fs::write(path("good"), "secret\n")?;
    fs::write(path("bad"), "guess\n")?;
    let text = |name: &str| path(name).display().to_string();
    let (cert, key) = (text("cert.pem"), text("key.pem"));
    let server = Server::start(&[
        "--user",
        "me",
        "--pass",
        "secret",
        "--tls",
        "--tlscert",
        &cert,
        "--tlskey",
        &key,
    ])?;
    let login = |password: &str| Login::User {
        user: "me".into(),
        password_file: path(password),
        mechanism: SaslMechanism::default(),
    };
    let good = StreamConfig {
        tls: true,
        ca: Some(path("cert.pem")),
        login: Some(login("good")),
        ..StreamConfig::of(server.url().parse().map_err(anyhow::Error::msg)?)
    };
    // No stream: what is left to go wrong when it is connected.
    let connected = |result: Result<(), Failure>| matches!(result, Err(Failure::Unavailable(_)));
    assert!(connected(attempt(&good).await?));

    let stranger = StreamConfig { login: Some(login("bad")), ..good.clone() };
    let Err(Failure::Credentials(said)) = attempt(&stranger).await? else { panic!("let in") };
    assert!(said.contains("authorization violation") && !said.contains("guess"), "{said}");
    assert!(said.contains("login.user \"me\", login.passwordFile"), "{said}");

    let distrustful = StreamConfig { ca: None, ..good.clone() };
    let Err(Failure::Network(said)) = attempt(&distrustful).await? else { panic!("trusted") };
    assert!(said.contains("certificate"), "{said}");

    let nowhere = StreamConfig { ca: Some(path("nothing")), ..good };
    let said = attempt(&nowhere).await.unwrap_err().to_string();
    assert!(said.contains("tls.ca") && said.contains("nothing: No such file"), "{said}");
    Ok(())
}
