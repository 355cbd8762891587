//! cargo-fuzz, which knows the compiler flags that libFuzzer wants.

use std::{path::PathBuf, process::Stdio};

use anyhow::Result;

use crate::{env::Env, shell};

/// The version that was tried.
const VERSION: &str = "0.13.2";

/// The program.
pub(crate) fn program(env: &Env) -> PathBuf {
    install_dir(env).join("bin/cargo-fuzz")
}

/// Builds it unless it is there and starts. Only `cargo xtask fuzz` needs it.
pub(crate) fn ensure(env: &Env) -> Result<()> {
    let starts = std::process::Command::new(program(env))
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success());
    if starts {
        return Ok(());
    }
    shell::step(&format!("build cargo-fuzz {VERSION} (once)"), || {
        shell::run(
            env.cargo()
                .args(["install", "cargo-fuzz", "--version", VERSION, "--locked", "--force"])
                .arg("--quiet")
                .arg("--root")
                .arg(install_dir(env)),
        )
    })
}

fn install_dir(env: &Env) -> PathBuf {
    env.target.join("tools").join(format!("cargo-fuzz-{VERSION}"))
}
