//! The `detector` binary under test.

use std::{
    net::SocketAddr,
    ops::{Deref, DerefMut},
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result};

use crate::{
    client::{Answer, Client},
    netns::{self, Netns},
    process::{Output, Process},
    wait,
};

/// Rules for benchmarks: one application, and one button in it.
pub const BUY_RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  endpoints: [{cidr: 10.45.0.10, ports: [80]}]
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: buy}
spec:
  application: shop
  match: {http: {method: POST, path: /api/buttons/buy}}
  emit: {type: com.example.buy}
";

/// A program of the workspace, built beside this one: `target/debug/<name>`.
pub fn binary(name: &str) -> Result<PathBuf> {
    let here = std::env::current_exe()?;
    // target/debug/xtask, or target/debug/deps/<test>-<hash>
    let found =
        here.ancestors().skip(1).take(2).map(|dir| dir.join(name)).find(|path| path.is_file());
    found.with_context(|| {
        format!("no `{name}` beside {}: run `cargo xtask build` first", here.display())
    })
}

/// `detector`, to be run inside a namespace or, with `None`, in this one.
pub fn command(namespace: Option<&Netns>) -> Result<Command> {
    let program = binary("detector")?;
    Ok(match namespace {
        Some(namespace) => namespace.command(program),
        None => Command::new(program),
    })
}

/// A running `detector run`; it is ended when this is dropped.
pub struct Agent<'n> {
    process: Process,
    namespace: Option<&'n Netns>,
    admin: SocketAddr,
}

impl<'n> Agent<'n> {
    /// Starts `detector run --config FILE --output json` and waits until `/readyz` says yes.
    /// `admin` is the address that the config file gives for `/readyz` and `/metrics`.
    pub fn start(namespace: Option<&'n Netns>, config: &Path, admin: SocketAddr) -> Result<Self> {
        let mut agent = Self::spawn(namespace, config, admin)?;
        agent.wait_until_ready(Duration::from_secs(60))?;
        Ok(agent)
    }

    /// Starts it without waiting: for configs that it should refuse.
    pub fn spawn(namespace: Option<&'n Netns>, config: &Path, admin: SocketAddr) -> Result<Self> {
        Self::spawn_and_follow(namespace, config, admin, |_, _| {})
    }

    /// As [`Agent::spawn`], and hands every line it prints to a function as it comes.
    pub fn spawn_and_follow(
        namespace: Option<&'n Netns>,
        config: &Path,
        admin: SocketAddr,
        follow: impl Fn(Output, &str) + Send + Sync + 'static,
    ) -> Result<Self> {
        let command = Self::command(namespace, config)?;
        let process = Process::spawn_and_follow("detector run", command, follow)?;
        Ok(Self { process, namespace, admin })
    }

    /// The command that the others start, e.g. to run it as another user.
    pub fn command(namespace: Option<&Netns>, config: &Path) -> Result<Command> {
        let mut command = command(namespace)?;
        command.args(["run", "--output", "json", "--config"]).arg(config);
        Ok(command)
    }

    /// Starts a command made of [`Agent::command`], e.g. with other environment variables.
    pub fn of(namespace: Option<&'n Netns>, command: Command, admin: SocketAddr) -> Result<Self> {
        Ok(Self { process: Process::spawn("detector run", command)?, namespace, admin })
    }

    /// Waits until `/readyz` answers 200; fails at once when the agent ends before that.
    pub fn wait_until_ready(&mut self, limit: Duration) -> Result<()> {
        wait::until("the agent's /readyz", limit, || {
            self.process.must_run()?;
            // Refused while it is not listening yet.
            let answer = self.admin_get("/readyz").ok();
            Ok(answer.filter(|answer| answer.status == 200).map(|_| ()))
        })
    }

    /// One value of `/metrics`, by the series as it is written there, labels included.
    pub fn metric(&self, series: &str) -> Result<Option<f64>> {
        let answer = self.admin_get("/metrics")?;
        let text = String::from_utf8_lossy(&answer.body);
        Ok(text.lines().find_map(|line| line.strip_prefix(series)?.trim().parse().ok()))
    }

    /// `GET` at the admin port.
    pub fn admin_get(&self, path: &str) -> Result<Answer> {
        let stream = match self.namespace {
            Some(namespace) => namespace.connect(None, self.admin)?,
            None => netns::connect(None, self.admin)?,
        };
        Client::over(stream)?.get(path)
    }

    /// What `--output json` printed so far, one value a line.
    pub fn output(&self) -> Vec<serde_json::Value> {
        let lines = self.process.lines(Output::Stdout);
        lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect()
    }
}

impl Deref for Agent<'_> {
    type Target = Process;

    fn deref(&self) -> &Process {
        &self.process
    }
}

impl DerefMut for Agent<'_> {
    fn deref_mut(&mut self) -> &mut Process {
        &mut self.process
    }
}
