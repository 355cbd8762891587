//! Where things are: the workspace, the target directory, the toolchain.

use std::{
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::shell;

/// Features that are not in the default build; linted and tested all together.
pub(crate) const FEATURES: &[&str] = &["detector-user/otlp", "detector-tests/streams"];

/// The places every command works with.
pub(crate) struct Env {
    /// The workspace root.
    pub(crate) root: PathBuf,
    /// Cargo's target directory, whichever way it was configured.
    pub(crate) target: PathBuf,
    /// The pinned toolchain's sysroot.
    pub(crate) sysroot: PathBuf,
    /// The pinned compiler's release, e.g. `1.95.0`.
    pub(crate) rustc_version: String,
    /// The machine's own target triple.
    pub(crate) host: String,
}

impl Env {
    /// Looks them up.
    pub(crate) fn find() -> Result<Self> {
        let root = Path::new(env!("CARGO_MANIFEST_DIR"))
            .parent()
            .context("xtask's crate directory has no parent")?
            .to_path_buf();
        // This program lies in <target>/debug/: that holds for every way to configure the directory
        // (CARGO_TARGET_DIR, build.target-dir, --target-dir).
        let program = std::env::current_exe().context("cannot find the path of this program")?;
        let target = program
            .ancestors()
            .nth(2)
            .context("this program does not lie in a target directory")?
            .to_path_buf();
        let sysroot = PathBuf::from(shell::output(
            Command::new("rustc").args(["--print", "sysroot"]).current_dir(&root),
        )?);
        let verbose = shell::output(Command::new("rustc").arg("-vV").current_dir(&root))?;
        let field = |name: &str| {
            let value = verbose.lines().find_map(|line| line.strip_prefix(name));
            value.map(str::to_owned).with_context(|| format!("`rustc -vV` says no `{name}`"))
        };
        let (rustc_version, host) = (field("release: ")?, field("host: ")?);
        Ok(Self { root, target, sysroot, rustc_version, host })
    }

    /// `cargo`, in the workspace, with the same target directory as this program.
    pub(crate) fn cargo(&self) -> Command {
        let mut cargo = Command::new("cargo");
        // `cargo run` told this program about xtask (CARGO_PKG_NAME, CARGO_MANIFEST_DIR, ...). Build
        // scripts watch these (ring does): passed on, they would make half of the tree look stale.
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            if ["CARGO_PKG_", "CARGO_MANIFEST_"].iter().any(|prefix| known.starts_with(prefix)) {
                cargo.env_remove(name);
            }
        }
        cargo.current_dir(&self.root).env("CARGO_TARGET_DIR", &self.target);
        cargo
    }

    /// Where the finished kernel programs lie; the agent's build script looks here.
    pub(crate) fn bpf_objects(&self) -> PathBuf {
        self.target.join("bpf")
    }
}
