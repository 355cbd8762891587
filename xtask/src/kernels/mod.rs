//! `cargo xtask kernels`: the tests that ask a kernel, on kernels other than the one that runs here.

mod debian;
mod guest;

use std::{path::PathBuf, process::ExitCode, time::Duration};

use anyhow::{Context as _, Result, bail};

use crate::{env::Env, setup::apt, shell, test::Tally};

/// Options of `cargo xtask kernels`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Kernels to boot, of 5.10, 6.1 and 6.12; all of them unless told
    kernels: Vec<String>,

    /// Test programs of detector-tests to run in each
    #[arg(long = "test", value_name = "NAME", default_value = "verifier")]
    tests: Vec<String>,

    /// Give up on a kernel after this long, e.g. 10m; QEMU's emulated processor is some twenty times slower
    #[arg(long, value_name = "TIME", default_value = "10m", value_parser = humantime::parse_duration)]
    timeout: Duration,
}

/// Boots each kernel with the test programs and runs them there.
pub(crate) fn run(env: &Env, args: &Args) -> Result<ExitCode> {
    let kernels = debian::chosen(&args.kernels)?;
    apt::need(&[
        apt::Need { program: "qemu-system-x86_64", package: "qemu-system-x86" },
        apt::Need { program: "busybox", package: "busybox-static" },
        apt::Need { program: "cpio", package: "cpio" },
        apt::Need { program: "xz", package: "xz-utils" },
    ])?;
    let programs = shell::step("build the test programs", || test_programs(env, &args.tests))?;
    let mut tally = Tally::default();
    for kernel in kernels {
        let files = debian::fetch(env, kernel)?;
        let disk = guest::disk(env, &files, &programs)?;
        let before = tally.passed + tally.failed;
        shell::step(&format!("boot Linux {}", kernel.release), || {
            guest::boot(&files.image, &disk, args.timeout, |line| {
                println!("{line}");
                tally.count(line);
            })
        })?;
        if tally.passed + tally.failed == before {
            bail!("no test ran on Linux {}: its output is above", kernel.release);
        }
    }
    tally.print(true);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

/// Builds test programs of detector-tests and says where they are.
fn test_programs(env: &Env, names: &[String]) -> Result<Vec<PathBuf>> {
    let mut cargo = env.cargo();
    cargo.args(["test", "--no-run", "--package", "detector-tests", "--message-format", "json"]);
    for name in names {
        cargo.args(["--test", name]);
    }
    let messages = shell::output(&mut cargo)?;
    let programs: Vec<PathBuf> = messages
        .lines()
        .filter_map(|line| serde_json::from_str::<serde_json::Value>(line).ok())
        .filter(|message| message["profile"]["test"] == true)
        .filter_map(|message| message["executable"].as_str().map(PathBuf::from))
        .collect();
    if programs.len() != names.len() {
        bail!("cargo built {} test programs of {}", programs.len(), names.join(", "));
    }
    Ok(programs)
}

/// A directory of this command's under target/.
fn directory(env: &Env, name: &str) -> Result<PathBuf> {
    let path = env.target.join("kernels").join(name);
    std::fs::create_dir_all(&path).with_context(|| format!("cannot make {}", path.display()))?;
    Ok(path)
}
