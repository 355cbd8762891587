//! The HTTP client with its certificates, made anew when their files change.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::{Mutex, PoisonError},
    time::{Duration, Instant, SystemTime},
};

use reqwest::{Certificate, Client, Identity, redirect, tls::Version};

use super::{http::HttpSettings, sink::TargetError};
use crate::config::HttpConfig;

/// Files are looked at this often, when there is something to send.
const LOOK: Duration = Duration::from_secs(1);

/// What tells that a file was replaced.
type Stamp = Vec<Option<(SystemTime, u64)>>;

struct State {
    client: Client,
    stamp: Stamp,
    looked: Instant,
}

/// A client that follows its files.
pub(super) struct Clients {
    config: HttpConfig,
    settings: HttpSettings,
    state: Mutex<State>,
}

impl Clients {
    pub(super) fn new(config: &HttpConfig, settings: &HttpSettings) -> Result<Self, TargetError> {
        let stamp = stamp(config);
        let client = build(config, settings)?;
        let state = Mutex::new(State { client, stamp, looked: Instant::now() });
        Ok(Self { config: config.clone(), settings: settings.clone(), state })
    }

    /// The client of now. New files that cannot be used leave the last good one in place.
    pub(super) fn client(&self) -> Client {
        let mut state = self.state.lock().unwrap_or_else(PoisonError::into_inner);
        if !state.stamp.is_empty() && state.looked.elapsed() >= LOOK {
            state.looked = Instant::now();
            let stamp = stamp(&self.config);
            if stamp != state.stamp {
                match build(&self.config, &self.settings) {
                    Ok(client) => {
                        tracing::info!(url = %self.config.url, "certificates were read again");
                        (state.client, state.stamp) = (client, stamp);
                    }
                    Err(error) => tracing::error!(%error, "the certificates before stay in use"),
                }
            }
        }
        state.client.clone()
    }
}

fn files(config: &HttpConfig) -> impl Iterator<Item = &PathBuf> {
    let identity = config.identity.iter().flat_map(|(cert, key)| [cert, key]);
    config.ca.iter().chain(identity)
}

fn stamp(config: &HttpConfig) -> Stamp {
    let one = |path: &PathBuf| {
        let metadata = fs::metadata(path).ok()?;
        Some((metadata.modified().ok()?, metadata.len()))
    };
    files(config).map(one).collect()
}

fn build(config: &HttpConfig, settings: &HttpSettings) -> Result<Client, TargetError> {
    let mut builder = Client::builder()
        .http1_only()
        .no_gzip()
        // The sink is on this site; a proxy from the environment is meant for others.
        .no_proxy()
        .redirect(redirect::Policy::none())
        .timeout(settings.timeout)
        .connect_timeout(settings.connect_timeout)
        .pool_idle_timeout(settings.idle_timeout)
        .pool_max_idle_per_host(settings.idle_connections)
        .user_agent(concat!("detector/", env!("CARGO_PKG_VERSION")));
    if config.url.scheme() == "https" {
        // Knative's ingress refuses 1.2 too.
        builder = builder.use_rustls_tls().min_tls_version(Version::TLS_1_3);
    }
    if let Some(path) = &config.ca {
        builder = builder.tls_built_in_root_certs(false);
        for certificate in certificates(&read(path)?, &path.display().to_string())? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some(text) = &config.more_ca {
        for certificate in certificates(text.as_bytes(), "K_CA_CERTS")? {
            builder = builder.add_root_certificate(certificate);
        }
    }
    if let Some((cert, key)) = &config.identity {
        let mut pem = read(cert)?;
        pem.push(b'\n');
        pem.extend(read(key)?);
        let identity = Identity::from_pem(&pem).map_err(|_| TargetError::Certificate {
            what: format!("{} with {}", cert.display(), key.display()),
            expected: "a certificate and its private key, in PEM",
        })?;
        builder = builder.identity(identity);
    }
    Ok(builder.build()?)
}

fn certificates(pem: &[u8], what: &str) -> Result<Vec<Certificate>, TargetError> {
    let refuse = || TargetError::Certificate {
        what: what.to_owned(),
        expected: "at least one certificate, in PEM",
    };
    let certificates = Certificate::from_pem_bundle(pem).map_err(|_| refuse())?;
    if certificates.is_empty() { Err(refuse()) } else { Ok(certificates) }
}

fn read(path: &Path) -> Result<Vec<u8>, TargetError> {
    fs::read(path).map_err(|error| TargetError::Read { path: path.to_owned(), error })
}
