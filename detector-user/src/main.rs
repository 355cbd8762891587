//! `detector`: see `detector --help`.

use std::{io::IsTerminal, process::ExitCode};

use clap::Parser;
use detector_user::cli::{self, Cli};
use tracing_subscriber::EnvFilter;

fn main() -> ExitCode {
    let cli = Cli::parse();
    log_to_stderr();
    match cli::run(cli) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

/// Standard output is for results; colours only where a person reads.
fn log_to_stderr() {
    let filter = EnvFilter::try_from_env("DETECTOR_LOG")
        .unwrap_or_else(|_| EnvFilter::new("warn,detector_user=info"));
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(std::io::stderr)
        .with_ansi(std::io::stderr().is_terminal())
        .with_target(false)
        .init();
}
