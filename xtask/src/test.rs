//! `cargo xtask test`: `cargo test` over the workspace, with skipped tests counted as skipped.

use std::process::{Command, ExitCode};

use anyhow::{Result, bail};
use nix::unistd::Uid;
use testbed::root::SKIPPED;

use crate::{
    env::{Env, FEATURES},
    shell,
};

/// Options of `cargo xtask test`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only tests with this in their name
    filter: Option<String>,

    /// Run only tests of this package, e.g. detector-tests
    #[arg(short, long, value_name = "NAME")]
    package: Option<String>,

    /// Run the test programs, and nothing else, as root through sudo
    #[arg(long)]
    sudo: bool,
}

/// Runs the tests; the exit code is a failure when a test failed.
pub(crate) fn run(env: &Env, args: &Args) -> Result<ExitCode> {
    let mut tally = Tally::default();
    let status = shell::follow(&mut command(env, args), |line| {
        println!("{line}");
        tally.count(line);
    })?;
    if !status.success() && tally.failed == 0 {
        bail!("`cargo test` failed outside of the tests ({status})");
    }
    if let (Some(filter), 0) = (&args.filter, tally.passed + tally.failed) {
        bail!("no test has `{filter}` in its name");
    }
    tally.print(Uid::effective().is_root() || args.sudo);
    Ok(if tally.failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn command(env: &Env, args: &Args) -> Command {
    let mut cargo = env.cargo();
    cargo.args(["test", "--no-fail-fast"]);
    if let Some(package) = &args.package {
        cargo.args(["--package", package]);
    }
    cargo.args(["--features", &features(args.package.as_deref())]);
    if args.sudo {
        // Cargo builds as the user and starts each test program with this in front.
        let triple = env.host.to_uppercase().replace('-', "_");
        cargo.env(format!("CARGO_TARGET_{triple}_RUNNER"), "sudo --preserve-env");
    }
    cargo.arg("--").args(&args.filter);
    cargo
}

/// Of one package, or all.
fn features(package: Option<&str>) -> String {
    let of = |feature: &&&str| {
        package.is_none_or(|package| feature.split_once('/').is_some_and(|(of, _)| of == package))
    };
    FEATURES.iter().filter(of).copied().collect::<Vec<_>>().join(",")
}

/// What the lines of `cargo test` add up to.
#[derive(Default, Debug, PartialEq, Eq)]
pub(crate) struct Tally {
    pub(crate) passed: usize,
    pub(crate) failed: usize,
    /// Marked `#[ignore]`.
    ignored: usize,
    /// Skipped by the test itself, with the reason; the harness counts these as passed.
    skipped: Vec<String>,
}

impl Tally {
    pub(crate) fn count(&mut self, line: &str) {
        // The harness prints a test's name without a newline before the test runs, so that what
        // the test itself writes need not begin a line.
        if let Some((_, skipped)) = line.split_once(SKIPPED) {
            self.skipped.push(skipped.trim().to_owned());
        } else if let Some(result) = line.strip_prefix("test result: ") {
            self.passed += number_before(result, " passed");
            self.failed += number_before(result, " failed");
            self.ignored += number_before(result, " ignored");
        }
    }

    pub(crate) fn print(&self, root: bool) {
        println!();
        for skipped in &self.skipped {
            println!("skipped: {skipped}");
        }
        if self.ignored > 0 {
            println!("skipped: {} tests are marked #[ignore]", self.ignored);
        }
        if !root && !self.skipped.is_empty() {
            println!("For tests that need root: `cargo xtask test --sudo`, or run this as root.");
        }
        let skipped = self.skipped.len() + self.ignored;
        let passed = self.passed.saturating_sub(self.skipped.len());
        println!("{passed} passed, {} failed, {skipped} skipped", self.failed);
    }
}

/// The number that stands before a word, as in `ok. 5 passed; 0 failed`.
fn number_before(text: &str, word: &str) -> usize {
    text.split(word)
        .next()
        .and_then(|before| before.rsplit(' ').next()?.parse().ok())
        .unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::{SKIPPED, Tally, features};

    #[test]
    fn a_package_has_its_own_features_and_the_whole_has_all() {
        assert_eq!(features(Some("detector-user")), "detector-user/otlp");
        assert_eq!(features(Some("xtask")), "");
        assert_eq!(features(None), "detector-user/otlp,detector-tests/streams");
    }

    #[test]
    fn results_of_all_test_programs_add_up() {
        let mut tally = Tally::default();
        let lines = [
            "running 6 tests",
            "test a ... ok",
            &format!("test b ... {SKIPPED} kernel::b: needs root"),
            "ok",
            "test result: ok. 5 passed; 0 failed; 1 ignored; 0 measured; 0 filtered out",
            "test result: FAILED. 12 passed; 3 failed; 0 ignored; 0 measured; 7 filtered out",
        ];
        lines.iter().for_each(|line| tally.count(line));
        let skipped = vec!["kernel::b: needs root".to_owned()];
        assert_eq!(tally, Tally { passed: 17, failed: 3, ignored: 1, skipped });
    }
}
