//! The commands a contributor types: `cargo xtask --help`.

mod bench;
mod build;
mod demo;
mod env;
mod fuzz;
mod kernels;
mod lint;
mod setup;
mod shell;
mod soak;
mod state;
mod stop;
mod test;

use std::process::ExitCode;

use anyhow::Result;
use clap::{Parser, Subcommand};

/// Build, test and show Detector.
///
/// The two commands to begin with are `cargo xtask demo` and `cargo xtask test`; both install what
/// they need and say so.
#[derive(Parser)]
#[command(name = "cargo xtask", bin_name = "cargo xtask", version, about, long_about)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Check what building and running needs, and install what is missing.
    ///
    /// Debian packages (as root), rust-src for the pinned toolchain, and bpf-linker built against
    /// the LLVM that this toolchain brings, cached under target/tools/. The other commands call
    /// this themselves; a second run changes nothing.
    Setup,
    /// Build the kernel programs, then the agent and the sample function.
    Build(build::Args),
    /// Build, then run all tests and say how many passed, failed and were skipped.
    ///
    /// Tests that need root (network namespaces, kernel programs) are skipped without it, and
    /// listed at the end. `--sudo` builds as you and runs only the test programs as root.
    Test(test::Args),
    /// Watch a button press become packets through N6, an event, and a function call. Needs root.
    ///
    /// Makes network namespaces for users, UPF and data network, starts the application, the
    /// function, the local Broker and the agent, lets five users act at once over IPv4 and IPv6,
    /// and prints what each hop saw and how long it took. Exit code 0 only when the function got
    /// exactly the expected events, each with the right user. Everything is taken down again, also
    /// on Ctrl-C.
    Demo(demo::Args),
    /// Measure what a packet and an event cost, as ratios with the goal beside them. Needs root.
    ///
    /// Each ratio is the median of many pairs measured in turn, so that it holds when the machine's
    /// speed drifts. Takes a minute, and an optimised build of the agent before that.
    Bench,
    /// Keep the agent busy for a while and watch its memory and file descriptors. Needs root.
    ///
    /// Users come and go, press, download; the sink goes away and comes back; the rules are read
    /// again. A row every ten seconds; exit code 0 only when memory and descriptors stayed flat and
    /// no event was lost. In network namespaces of its own, cleaned up after, also on Ctrl-C.
    Soak(soak::Args),
    /// Feed the readers of packets, records, files and protocols what nobody sends.
    ///
    /// The targets are in tests/fuzz/, each a libFuzzer program that cargo-fuzz builds (with the
    /// pinned compiler; cached under target/tools/). Each runs for `--seconds`, as many at a time as
    /// there are cores. What each says is in target/fuzz/logs/, what it learns is kept under
    /// target/fuzz/corpus/ for the next run. Exit code 0 only without a finding.
    Fuzz(fuzz::Args),
    /// Run the tests that ask a kernel on other kernels: Debian's 5.10, 6.1 and 6.12, in QEMU.
    ///
    /// Older kernels have verifiers that know less. Each kernel is downloaded once (30 MB, kept under
    /// target/kernels/), and booted with nothing but the test programs; nothing of this machine's is
    /// touched. Takes half a minute for each. Exit code 0 only when no test failed.
    Kernels(kernels::Args),
    /// Deny every warning: clippy for user space and kernel programs, and the documentation.
    Lint,
}

fn main() -> ExitCode {
    match run(Cli::parse()) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("error: {error:#}");
            ExitCode::FAILURE
        }
    }
}

fn run(cli: Cli) -> Result<ExitCode> {
    let env = env::Env::find()?;
    // SAFETY: no thread has been started yet that could read the environment.
    unsafe { std::env::set_var("PATH", setup::unpacked::path(&env)) };
    match cli.command {
        Command::Setup => setup::run(&env)?,
        Command::Build(args) => {
            setup::run(&env)?;
            build::run(&env, &args)?;
        }
        Command::Test(args) => {
            setup::run(&env)?;
            setup::features()?;
            setup::tests(&env)?;
            build::run(&env, &build::Args::default())?;
            return test::run(&env, &args);
        }
        Command::Demo(args) => {
            demo::prepare(&env, &args)?;
            setup::run(&env)?;
            build::run(&env, &build::Args::default())?;
            return demo::run(&env, &args);
        }
        Command::Bench => {
            setup::run(&env)?;
            build::run(&env, &build::Args { release: true })?;
            bench::run(&env)?;
        }
        Command::Soak(args) => {
            setup::run(&env)?;
            build::run(&env, &build::Args::default())?;
            return soak::run(&env, &args);
        }
        Command::Kernels(args) => {
            setup::run(&env)?;
            build::kernel_programs(&env)?;
            return kernels::run(&env, &args);
        }
        Command::Fuzz(args) => fuzz::run(&env, &args)?,
        Command::Lint => {
            setup::run(&env)?;
            setup::features()?;
            build::kernel_programs(&env)?;
            lint::run(&env)?;
        }
    }
    Ok(ExitCode::SUCCESS)
}
