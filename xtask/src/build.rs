//! `cargo xtask build`: kernel programs first, because the agent embeds them.

use std::{
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{env::Env, setup::bpf_linker, shell};

const BPF_TARGET: &str = "bpfel-unknown-none";

/// How the kernel programs are compiled: with BTF for the verifier's messages, and with loads of
/// whole words from packets, which need not be aligned on the machines that run UPFs (x86-64,
/// arm64); else LLVM reads them byte by byte, which made the XDP program an eighth longer.
const RUSTFLAGS: &str = "-C debuginfo=2 -C link-arg=--btf \
     -C target-cpu=v3 \
     -C link-arg=--cpu-features=+allows-misaligned-mem-access";

/// Options of `cargo xtask build`.
#[derive(clap::Args, Default)]
pub(crate) struct Args {
    /// Build the agent and the sample function optimised (the kernel programs always are).
    #[arg(long)]
    pub(crate) release: bool,
}

/// Builds everything a user runs.
pub(crate) fn run(env: &Env, args: &Args) -> Result<()> {
    kernel_programs(env)?;
    host_programs(env, args.release)
}

/// The programs of `detector-ebpf`, each as `target/bpf/<name>.bpf.o`.
pub(crate) fn kernel_programs(env: &Env) -> Result<()> {
    shell::step("build the kernel programs", || {
        // Emptied first, so that it holds what the crate builds now and nothing older.
        let built = bpf_target_dir(env).join("built");
        let _ = fs::remove_dir_all(&built);
        shell::run(
            bpf_cargo(env, "build")
                .args(["--profile", "bpf", "--bins", "-Z", "unstable-options", "--artifact-dir"])
                .arg(&built),
        )?;
        for program in built.read_dir().context("cargo made no artifact directory")? {
            let program = program?;
            let object = format!("{}.bpf.o", program.file_name().to_string_lossy());
            copy_if_changed(&program.path(), &env.bpf_objects().join(object))?;
        }
        Ok(())
    })
}

/// The agent (`detector`) and the sample function.
pub(crate) fn host_programs(env: &Env, release: bool) -> Result<()> {
    shell::step("build the agent and the sample function", || {
        let mut cargo = env.cargo();
        // All default members, as plain `cargo build` and `cargo test` do: another selection would
        // be another set of features, and half of the dependencies built a second time.
        cargo.args(["build", "--bins"]);
        if release {
            cargo.arg("--release");
        }
        shell::run(&mut cargo)
    })
}

/// `cargo <subcommand> -p detector-ebpf` for the BPF target.
pub(crate) fn bpf_cargo(env: &Env, subcommand: &str) -> Command {
    let mut path = OsString::from(bpf_linker::bin_dir(env));
    if let Some(rest) = std::env::var_os("PATH") {
        path.push(":");
        path.push(rest);
    }
    let mut cargo = env.cargo();
    cargo
        .args([subcommand, "-p", "detector-ebpf"])
        .args(["--target", BPF_TARGET, "-Z", "build-std=core"])
        .env("PATH", path)
        // A directory of its own: nothing here may make the host's build look stale.
        .env("CARGO_TARGET_DIR", bpf_target_dir(env))
        // -Z build-std on the stable compiler.
        .env("RUSTC_BOOTSTRAP", "1")
        // BTF needs debug information; RUSTFLAGS would win over the per-target variable.
        .env_remove("RUSTFLAGS")
        .env_remove("CARGO_ENCODED_RUSTFLAGS")
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_RUSTFLAGS", RUSTFLAGS);
    cargo
}

fn bpf_target_dir(env: &Env) -> PathBuf {
    env.target.join("bpf-build")
}

/// Leaves the file's time alone when nothing changed, so that the agent is not built again.
fn copy_if_changed(from: &Path, to: &Path) -> Result<()> {
    let new = fs::read(from).with_context(|| format!("cannot read {}", from.display()))?;
    if fs::read(to).is_ok_and(|old| old == new) {
        return Ok(());
    }
    if let Some(dir) = to.parent() {
        fs::create_dir_all(dir)?;
    }
    fs::write(to, &new).with_context(|| format!("cannot write {}", to.display()))?;
    eprintln!("    new: {} ({} KB)", to.display(), new.len().div_ceil(1024));
    Ok(())
}
