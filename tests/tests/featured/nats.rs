//! NATS: over TLS with certificates of both, before and after the server was killed and came back with
//! another password.

use std::{process::Command, process::Stdio};

use anyhow::Result;
use async_nats::{ConnectOptions, jetstream};
use nix::sys::signal::Signal;
use rcgen::{BasicConstraints, CertificateParams, CertifiedIssuer, IsCa, KeyPair};
use testbed::{need_root, process::Process, skip};

use crate::{
    assert_confined,
    bed::{Bed, LIMIT, UE, config_with, eventually, metric, settled},
    said, start,
};

const ADDRESS: &str = "127.0.0.1:4222";
const SECRETS: [&str; 2] = ["first-secret-4711", "second-secret-0815"];

fn is_installed() -> bool {
    let mut command = Command::new("nats-server");
    command.arg("--version").stdout(Stdio::null()).stderr(Stdio::null());
    command.status().is_ok_and(|status| status.success())
}

/// An authority, and what it says the server and the agent are.
fn write_certificates(bed: &Bed) {
    let mut params = CertificateParams::new(Vec::new()).expect("parameters");
    params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let key = || KeyPair::generate().expect("a key");
    let authority = CertifiedIssuer::self_signed(params, key()).expect("an authority");
    bed.write("ca.pem", &authority.pem());
    for name in ["server", "agent"] {
        let key = key();
        let params = CertificateParams::new(vec!["127.0.0.1".to_owned()]).expect("parameters");
        let cert = params.signed_by(&key, &authority).expect("signed");
        bed.write(&format!("{name}.pem"), &cert.pem());
        bed.write(&format!("{name}.key"), &key.serialize_pem());
    }
}

/// On the agent's host, with the stream's files beside the agent's.
fn server(bed: &Bed, password: &str) -> Process {
    let mut command = bed.dn.command("nats-server");
    command.args(["-js", "-a", "127.0.0.1", "-p", "4222", "--user", "me", "--pass", password]);
    command.args(["--tlsverify", "-sd"]).arg(bed.path("nats"));
    for (argument, file) in
        [("--tlscert", "server.pem"), ("--tlskey", "server.key"), ("--tlscacert", "ca.pem")]
    {
        command.arg(argument).arg(bed.path(file));
    }
    let process = Process::spawn("nats-server", command).expect("nats-server");
    process.wait_for_line(LIMIT, |line| line.contains("Server is ready")).expect("ready");
    process
}

/// Does something with the stream, as a client on the agent's host.
fn with_stream<T: Send>(
    bed: &Bed,
    password: &str,
    act: impl AsyncFnOnce(jetstream::Context) -> Result<T> + Send,
) -> T {
    let inside = || {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        runtime.block_on(async {
            let options = ConnectOptions::new()
                .user_and_password("me".into(), password.into())
                .require_tls(true)
                .add_root_certificates(bed.path("ca.pem"))
                .add_client_certificate(bed.path("agent.pem"), bed.path("agent.key"));
            act(jetstream::new(options.connect(ADDRESS).await?)).await
        })
    };
    bed.dn.enter(inside).expect("inside").expect("NATS")
}

fn messages(bed: &Bed, password: &str) -> u64 {
    with_stream(bed, password, async |context| {
        Ok(context.get_stream("events").await?.cached_info().state.messages)
    })
}

#[test]
fn events_reach_the_stream_over_tls_also_after_a_kill_of_the_server_and_a_new_password() {
    need_root!();
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let bed = Bed::new();
    write_certificates(&bed);
    bed.write("password", &format!("{}\n", SECRETS[0]));
    let tls = "tls: {ca: ca.pem, cert: agent.pem, key: agent.key}";
    let sink = format!("url: 'nats://{ADDRESS}/detector.pressed', {tls}");
    let rest = format!(
        "sink: {{{sink}, login: {{user: me, passwordFile: password}}}}
  delivery: {{timeout: 3s, spool: {{directory: spool}}}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let mut first = server(&bed, SECRETS[0]);
    with_stream(&bed, SECRETS[0], async |context| {
        let subjects = vec!["detector.>".into()];
        let stream =
            jetstream::stream::Config { name: "events".into(), subjects, ..Default::default() };
        context.create_stream(stream).await?;
        Ok(())
    });
    let Some(agent) = start(&bed) else { skip!("needs a detector with the feature nats") };
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    assert_confined(&agent);

    first.signal(Signal::SIGKILL).expect("signal");
    first.wait(LIMIT).expect("killed");
    bed.buy(UE);
    // Which knows the old password no longer, while the agent knows no other.
    let second = server(&bed, SECRETS[1]);
    eventually("the agent is not let in", || {
        metric(&agent, "detector_delivery_attempts_total", &["credentials"]) > 0.0
    });
    assert_eq!(messages(&bed, SECRETS[1]), 1);
    bed.write("password", &format!("{}\n", SECRETS[1]));
    settled(&agent, "delivered", 2);
    assert_eq!(messages(&bed, SECRETS[1]), 2, "each once");
    assert_confined(&agent);
    assert!(SECRETS.iter().all(|secret| !said(&agent, secret)), "{}", agent.tail());
    drop(second);
}
