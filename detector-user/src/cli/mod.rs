//! The command line: arguments in, exit code out. Nothing is decided here.

pub mod capture;
pub mod detach;
pub mod devices;
pub mod dlq;
mod events;
mod facts;
pub mod replay;
pub mod rules;
pub mod status;

use std::{path::PathBuf, process::ExitCode};

use clap::{Parser, Subcommand};

use crate::{
    agent::{self, Output},
    broker::BrokerArgs,
};

/// Turns packets at a 5G edge's N6 link into CloudEvents.
///
/// Begin with `detector devices` (what could be seen where), write rules and check them with
/// `detector rules check`, then `detector run --config FILE`. On one box without Knative,
/// `detector broker` is the Broker.
#[derive(Debug, Parser)]
#[command(name = "detector", version)]
pub struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Watch devices, match rules, and send CloudEvents: the agent.
    Run(RunArgs),
    /// Show what a running agent does.
    Status(status::StatusArgs),
    /// Remove what an agent with `spec.pin` left in the kernel.
    Detach(detach::DetachArgs),
    /// Check rules files, or print their schema.
    Rules(rules::RulesArgs),
    /// List network devices, and what Detector would see on each.
    Devices(devices::DevicesArgs),
    /// Read capture files as the agent reads packets.
    Replay(replay::ReplayArgs),
    /// Watch a device without eBPF, at a higher cost.
    Capture(capture::CaptureArgs),
    /// List, show, send again or drop events that a sink would not take.
    Dlq(dlq::DlqArgs),
    /// Run the embedded Broker for one box; a cluster runs Knative.
    Broker(BrokerArgs),
}

/// Watch devices, match rules, and send CloudEvents.
#[derive(Debug, clap::Args)]
#[command(after_help = "\
Signals: SIGTERM and SIGINT deliver what is waiting, then stop; SIGHUP reads the rules again (so does
a changed file). Rules that cannot be read are refused whole; the last good ones stay.

Environment: K_SINK is the sink when the config names none; K_CE_OVERRIDES are extensions for every
event; DETECTOR_LOG is the log filter, e.g. detector_user=debug.

Exit codes: 0 stopped; 1 cannot start (config, rules, privileges, kernel) or failed; 2 wrong usage.")]
pub struct RunArgs {
    /// The Config document.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
    /// Rules files or directories, instead of those that the config names.
    #[arg(long, value_name = "PATH")]
    rules: Vec<PathBuf>,
    /// What to print on standard output: nothing, or a JSON line for each detection and delivery.
    #[arg(long, value_enum, default_value_t)]
    output: Output,
}

/// Runs the command; the exit code.
///
/// # Errors
/// What stopped it.
pub fn run(cli: Cli) -> anyhow::Result<ExitCode> {
    match cli.command {
        Command::Run(RunArgs { config, rules, output }) => {
            agent::run(&config, rules, output)?;
            Ok(ExitCode::SUCCESS)
        }
        Command::Status(args) => block_on(status::run(args)),
        Command::Detach(args) => detach::run(&args).map(|()| ExitCode::SUCCESS),
        Command::Rules(args) => rules::run(args),
        Command::Devices(args) => block_on(devices::run(args)).map(|()| ExitCode::SUCCESS),
        Command::Replay(args) => replay::run(args),
        Command::Capture(args) => capture::run(&args),
        Command::Dlq(args) => block_on(dlq::run(args)),
        Command::Broker(args) => block_on(crate::broker::run(args)).map(|()| ExitCode::SUCCESS),
    }
}

/// On a runtime of its own: the agent starts its own too, once it has given up its privileges.
fn block_on<T>(work: impl Future<Output = anyhow::Result<T>>) -> anyhow::Result<T> {
    tokio::runtime::Runtime::new()?.block_on(work)
}
