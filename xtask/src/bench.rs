//! `cargo xtask bench`: what a packet and an event cost, as ratios measured side by side.

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::{env::Env, shell};

/// Runs the benchmarks; they print and never judge.
pub(crate) fn run(env: &Env) -> Result<()> {
    if !Uid::effective().is_root() {
        bail!("benchmarks load kernel programs and make network namespaces: run as root");
    }
    let mut cargo = env.cargo();
    cargo.args(["bench", "--package", "detector-tests"]);
    cargo.args(["--bench", "packet_path", "--bench", "event_latency"]);
    cargo.args(["--bench", "replay_speed", "--bench", "delivery", "--bench", "agent_memory"]);
    shell::run(&mut cargo)
}
