//! `detector detach`: what an agent with `spec.pin` left in the kernel is removed.

use std::{io::Write, path::PathBuf};

use anyhow::Context as _;

use crate::pin::{self, DEFAULT_PATH, Removed};

/// Detach the kernel programs that an agent with `spec.pin` left, and remove their tables.
///
/// Such programs stay attached, and go on recording, when the agent ends or is killed: the next one
/// goes on where it was. Run this when there is to be no next one.
#[derive(clap::Args, Clone, Debug)]
#[command(after_help = "\
Exit codes: 0 nothing is pinned there any longer; 1 an agent uses it (stop it first), or it cannot be
removed; 2 wrong usage.")]
pub struct DetachArgs {
    /// The config's `spec.pin.path`.
    #[arg(value_name = "PATH", default_value = DEFAULT_PATH)]
    path: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// While an agent runs, or without the permission.
pub fn run(args: &DetachArgs) -> anyhow::Result<()> {
    let Removed { links, maps } = pin::remove_all(&args.path)?;
    let path = args.path.display();
    let said = match (links, maps) {
        (0, 0) => format!("nothing is pinned at {path}"),
        _ => format!("{path}: {links} attachments and {maps} tables removed"),
    };
    writeln!(std::io::stdout(), "{said}").context("cannot write to standard output")
}
