//! The standard library's source: the BPF target has no prebuilt `core`, so `-Z build-std` builds it.

use std::process::Command;

use anyhow::Result;

use crate::{env::Env, shell};

/// Adds the component unless it is there.
pub(super) fn ensure(env: &Env) -> Result<()> {
    if env.sysroot.join("lib/rustlib/src/rust/library/core/Cargo.toml").is_file() {
        return Ok(());
    }
    shell::step(&format!("rustup component add rust-src (Rust {})", env.rustc_version), || {
        shell::run(
            // In the workspace, so that rustup sees rust-toolchain.toml.
            Command::new("rustup").args(["component", "add", "rust-src"]).current_dir(&env.root),
        )
    })
}
