//! `cargo xtask lint`: clippy for both kinds of crates, and the documentation, warnings denied.

use anyhow::Result;

use crate::{
    build,
    env::{Env, FEATURES},
    shell,
};

/// Fails on the first warning.
pub(crate) fn run(env: &Env) -> Result<()> {
    shell::step("clippy: what runs in user space", || {
        let features = ["--features", &FEATURES.join(",")];
        shell::run(
            env.cargo()
                .args(["clippy", "--all-targets"])
                .args(features)
                .args(["--", "-D", "warnings"]),
        )
    })?;
    shell::step("without features", || {
        shell::run(env.cargo().args(["check", "--package", "detector-user"]))
    })?;
    shell::step("clippy: kernel programs", || {
        let mut clippy = build::bpf_cargo(env, "clippy");
        shell::run(clippy.args(["--profile", "bpf", "--all-features", "--", "-D", "warnings"]))
    })?;
    shell::step("documentation", || {
        shell::run(env.cargo().args(["doc", "--no-deps"]).env("RUSTDOCFLAGS", "-D warnings"))
    })
}
