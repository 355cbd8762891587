//! `cargo xtask fuzz`: the fuzzing programs of `tests/fuzz`, each for a bounded time, as many at once
//! as there are cores.

mod report;
mod turns;

use std::{
    fs::{self, File},
    num::NonZeroUsize,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    thread::available_parallelism,
};

use anyhow::{Context as _, Result, bail};
use tempfile::TempDir;

use self::report::Report;
use crate::{env::Env, setup::cargo_fuzz, shell};

/// An input that takes longer, in seconds, is a finding.
const SLOWEST: u32 = 10;
/// So is one that takes more memory, in MiB.
const LARGEST: u32 = 2_048;

/// Options of `cargo xtask fuzz`.
#[derive(clap::Args)]
pub(crate) struct Args {
    /// Run only this target: the name of a file in tests/fuzz/targets/
    target: Option<String>,

    /// How long each target runs
    #[arg(long, default_value_t = 60, value_name = "N")]
    seconds: u32,

    /// Begin with this seed, so that a run can be repeated; a random one if left out
    #[arg(long, value_name = "N")]
    seed: Option<u32>,

    /// How many targets run at a time; as many as there are cores if left out
    #[arg(long, value_name = "N")]
    jobs: Option<NonZeroUsize>,
}

/// Runs the targets. All of them run; the first finding of each ends it.
pub(crate) fn run(env: &Env, args: &Args) -> Result<()> {
    let targets = targets(env, args.target.as_deref())?;
    cargo_fuzz::ensure(env)?;
    build(env)?;
    fs::create_dir_all(logs(env))?;
    let cores = available_parallelism().unwrap_or(NonZeroUsize::MIN);
    let jobs = args.jobs.unwrap_or(cores).get().min(targets.len());
    let what = format!("fuzz {} for {} s, {jobs} at a time", number(targets.len()), args.seconds);
    let found = shell::step(&what, || {
        Ok(turns::all(&targets, jobs, |target| one(env, target, args), |line| eprintln!("{line}")))
    })?;
    if found.is_empty() {
        return Ok(());
    }
    bail!(
        "findings in {}: the inputs are in {}, what was said in {}; put each under a name that says \
         what is wrong into tests/fuzz/regressions/<target>/, where `cargo test --test \
         fuzz_regressions` runs it",
        found.join(", "),
        artifacts(env).display(),
        logs(env).display()
    )
}

fn number(targets: usize) -> String {
    if targets == 1 { "1 target".to_owned() } else { format!("{targets} targets, each") }
}

fn targets(env: &Env, only: Option<&str>) -> Result<Vec<String>> {
    let directory = env.root.join("tests/fuzz/targets");
    let mut names = Vec::new();
    for file in fs::read_dir(&directory).context("cannot list tests/fuzz/targets")? {
        let path = file?.path();
        names.extend(path.file_stem().and_then(|name| name.to_str()).map(str::to_owned));
    }
    names.sort();
    match only {
        None => Ok(names),
        Some(only) if names.iter().any(|name| name == only) => Ok(vec![only.to_owned()]),
        Some(only) => bail!("no target `{only}`; there are {}", names.join(", ")),
    }
}

/// With libFuzzer's coverage and without a sanitizer: what is fuzzed is safe Rust, which panics where
/// C would read on, and runs twice as fast without.
fn build(env: &Env) -> Result<()> {
    shell::step("build the fuzzing programs", || {
        // The same versions of everything as in the product; cargo adds what only fuzzing needs.
        fs::copy(env.root.join("Cargo.lock"), env.root.join("tests/fuzz/Cargo.lock"))
            .context("cannot copy Cargo.lock")?;
        shell::run(
            Command::new(cargo_fuzz::program(env))
                .args(["build", "--sanitizer", "none", "--fuzz-dir", "tests/fuzz", "--target-dir"])
                .arg(directory(env))
                .current_dir(&env.root)
                // cargo-fuzz takes a nightly compiler for granted; the pinned stable one does too
                // what nightly does, with this.
                .env("RUSTC_BOOTSTRAP", "1")
                .env_remove("CARGO_TARGET_DIR"),
        )
    })
}

/// Runs one target to its end. What it says goes to a file, as others run beside it; what it amounts to
/// is returned, and with a finding the end of that file.
fn one(env: &Env, target: &str, args: &Args) -> Result<Report> {
    let path = logs(env).join(format!("{target}.log"));
    let log = File::create(&path).with_context(|| format!("cannot write {}", path.display()))?;
    let scratch = scratch()?;
    let mut program = program(env, target, args)?;
    let program = program
        .env("TMPDIR", scratch.path())
        .stdin(Stdio::null())
        .stdout(log.try_clone()?)
        .stderr(log);
    let status = program.status().with_context(|| format!("cannot start the target {target}"))?;
    let said = String::from_utf8_lossy(&fs::read(&path)?).into_owned();
    if !status.success() {
        bail!("{status}; the end of {}:\n{}", path.display(), report::end(&said));
    }
    Ok(Report::of(&said))
}

/// The program of one target. What it learns stays in `corpus` for the next run; it begins with the
/// seeds, and with what once failed.
fn program(env: &Env, target: &str, args: &Args) -> Result<Command> {
    let corpus = directory(env).join("corpus").join(target);
    let artifacts = artifacts(env).join(target);
    fs::create_dir_all(&corpus)?;
    fs::create_dir_all(&artifacts)?;
    let mut program = Command::new(directory(env).join(&env.host).join("release").join(target));
    program
        .arg(format!("-max_total_time={}", args.seconds))
        .arg(format!("-timeout={SLOWEST}"))
        .arg(format!("-rss_limit_mb={LARGEST}"))
        .arg(format!("-artifact_prefix={}/", artifacts.display()))
        // libFuzzer takes 0 for "choose one".
        .arg(format!("-seed={}", args.seed.unwrap_or(0)))
        .args(["-print_final_stats=1", "-verbosity=0"])
        .arg(corpus);
    let given = ["seeds", "regressions"].map(|kind| env.root.join("tests/fuzz").join(kind));
    program.args(given.map(|kind| kind.join(target)).into_iter().filter(|path| path.is_dir()));
    Ok(program)
}

/// What a target leaves behind when libFuzzer ends it goes with this; in memory where that can be.
fn scratch() -> Result<TempDir> {
    let memory = Path::new("/dev/shm");
    let base = if memory.is_dir() { memory.to_path_buf() } else { std::env::temp_dir() };
    let directory = tempfile::Builder::new().prefix("detector-fuzz-").tempdir_in(base);
    directory.context("cannot make a directory for what a target writes")
}

fn directory(env: &Env) -> PathBuf {
    env.target.join("fuzz")
}

fn artifacts(env: &Env) -> PathBuf {
    directory(env).join("artifacts")
}

fn logs(env: &Env) -> PathBuf {
    directory(env).join("logs")
}
