//! Who the agent is to nats-server: credentials of its operator, a token, and secrets that change.

use std::{fs, path::Path};

use anyhow::{Context, Result};
use base64::{Engine, engine::general_purpose::URL_SAFE_NO_PAD};
use detector_user::{
    config::{Login, SaslMechanism, StreamConfig},
    deliver::{Failure, HttpSettings, Sink, Target},
};
use nkeys::KeyPair;
use serde_json::{Value, json};
use testbed::skip;

use crate::{
    bed::{self, PATIENCE},
    nats::{ATTEMPT, Server, is_installed},
};

/// NATS JWT, version 2: what `nsc` writes.
fn jwt(issuer: &KeyPair, subject: &KeyPair, claims: Value) -> Result<String> {
    let encode = |value: &Value| URL_SAFE_NO_PAD.encode(value.to_string());
    let header = encode(&json!({"typ": "JWT", "alg": "ed25519-nkey"}));
    let (iss, sub) = (issuer.public_key(), subject.public_key());
    let body = encode(&json!({
        "jti": sub, "iat": 1_750_000_000, "iss": iss, "sub": sub, "name": sub, "nats": claims,
    }));
    let signed = format!("{header}.{body}");
    let signature = URL_SAFE_NO_PAD.encode(issuer.sign(signed.as_bytes())?);
    Ok(format!("{signed}.{signature}"))
}

/// With streams or without, which the system's own account must be.
fn account(operator: &KeyPair, account: &KeyPair, streams: i32) -> Result<String> {
    let limits = json!({
        "subs": -1, "data": -1, "payload": -1, "imports": -1, "exports": -1, "wildcards": true,
        "conn": -1, "leaf": -1, "mem_storage": streams, "disk_storage": streams, "streams": streams, "consumer": streams,
    });
    jwt(operator, account, json!({"type": "account", "version": 2, "limits": limits}))
}

/// A credentials file of a user of this account.
fn credentials(path: &Path, account: &KeyPair) -> Result<()> {
    let user = KeyPair::new_user();
    let claims = json!({"type": "user", "version": 2, "subs": -1, "data": -1, "payload": -1});
    let (jwt, seed) = (jwt(account, &user, claims)?, user.seed()?);
    let text = format!(
        "-----BEGIN NATS USER JWT-----\n{jwt}\n------END NATS USER JWT------\n\n\
         -----BEGIN USER NKEY SEED-----\n{seed}\n------END USER NKEY SEED------\n"
    );
    Ok(fs::write(path, text)?)
}

/// A server that trusts what this operator has signed, and the account there is.
fn operated(directory: &Path) -> Result<(Server, KeyPair)> {
    let (operator, system, ours) =
        (KeyPair::new_operator(), KeyPair::new_account(), KeyPair::new_account());
    let itself = jwt(&operator, &operator, json!({"type": "operator", "version": 2}))?;
    let preload = |key: &KeyPair, streams| -> Result<String> {
        Ok(format!("  {}: {}\n", key.public_key(), account(&operator, key, streams)?))
    };
    let text = format!(
        "operator: {itself}\nsystem_account: {}\nresolver: MEMORY\nresolver_preload: {{\n{}{}}}\n",
        system.public_key(),
        preload(&system, 0)?,
        preload(&ours, -1)?
    );
    let config = directory.join("server.conf");
    fs::write(&config, text)?;
    let server = Server::start(&["-c", config.to_str().context("text")?])?;
    Ok((server, ours))
}

fn config(server: &Server, login: Login) -> Result<StreamConfig> {
    let address = server.url().parse().map_err(anyhow::Error::msg)?;
    Ok(StreamConfig { login: Some(login), ..StreamConfig::of(address) })
}

fn open(config: &StreamConfig) -> Result<std::sync::Arc<dyn Sink>> {
    let settings = HttpSettings { timeout: ATTEMPT, ..HttpSettings::default() };
    Ok(Target::Stream(Box::new(config.clone())).open("stream", &settings)?)
}

/// Let in: no stream is all that is left to go wrong.
fn is_let_in(result: &Result<(), Failure>) -> bool {
    matches!(result, Err(Failure::Unavailable(said)) if said.contains("no stream takes"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn credentials_of_the_server_s_operator_are_let_in_and_no_others() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let directory = tempfile::tempdir()?;
    let (server, account) = operated(directory.path())?;
    let path = directory.path().join("detector.creds");
    credentials(&path, &account)?;
    let config = config(&server, Login::Credentials(path.clone()))?;
    let event = bed::event(0, 0, 10)?;
    let result = open(&config)?.attempt(&event).await;
    assert!(is_let_in(&result), "{result:?}");

    // Of an account that nobody here knows.
    credentials(&path, &KeyPair::new_account())?;
    let Err(Failure::Credentials(said)) = open(&config)?.attempt(&event).await else {
        panic!("let in")
    };
    assert!(said.contains(&format!("login.credentials {}", path.display())), "{said}");
    fs::write(&path, "no credentials: secret")?;
    let said = open(&config).err().context("taken")?.to_string();
    assert!(
        said.contains("login.credentials") && said.contains("a NATS credentials file"),
        "{said}"
    );
    assert!(!said.contains("secret"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_token_is_read_from_its_file() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("token");
    let server = Server::start(&["--auth", "open-sesame"])?;
    let config = config(&server, Login::Token(path.clone()))?;
    let said = open(&config).err().context("taken")?.to_string();
    assert!(said.contains("login.tokenFile") && said.contains("token: No such file"), "{said}");
    fs::write(&path, "open-sesame\n")?;
    let event = bed::event(0, 0, 10)?;
    let result = open(&config)?.attempt(&event).await;
    assert!(is_let_in(&result), "{result:?}");
    fs::write(&path, "open-barley\n")?;
    let Err(Failure::Credentials(said)) = open(&config)?.attempt(&event).await else {
        panic!("let in")
    };
    assert!(said.contains("login.tokenFile") && !said.contains("barley"), "{said}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_changed_password_is_used_from_the_next_connection_on() -> Result<()> {
    if !is_installed() {
        skip!("needs nats-server (Debian: nats-server)");
    }
    let directory = tempfile::tempdir()?;
    let path = directory.path().join("password");
    fs::write(&path, "old\n")?;
    let mut server = Server::start(&["--user", "me", "--pass", "old"])?;
    let mechanism = SaslMechanism::default();
    let login = Login::User { user: "me".into(), password_file: path.clone(), mechanism };
    let (sink, event) = (open(&config(&server, login)?)?, bed::event(0, 0, 10)?);
    assert!(is_let_in(&sink.attempt(&event).await));

    server.kill()?;
    server.start_again_with(&["--user", "me", "--pass", "new"])?;
    let refused = async {
        loop {
            match sink.attempt(&event).await {
                Err(Failure::Credentials(said)) => return said,
                // The loss of the old connection takes its time to be seen.
                Err(Failure::Closed(_) | Failure::Network(_) | Failure::Timeout) => {}
                other => panic!("{other:?}"),
            }
        }
    };
    let said = tokio::time::timeout(PATIENCE, refused).await?;
    assert!(said.contains("login.user \"me\", login.passwordFile"), "{said}");
    fs::write(&path, "new\n")?;
    let result = sink.attempt(&event).await;
    assert!(is_let_in(&result), "{result:?}");
    Ok(())
}
