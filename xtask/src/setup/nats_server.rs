//! nats-server, for tests: Debian's, unpacked under `target/tools/` and not installed, as an installed
//! one would begin to serve on this machine.

use std::{
    env,
    ffi::OsString,
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result};

use super::apt;
use crate::{env::Env, shell};

const PROGRAM: &str = "nats-server";

/// Fetches it unless it is there. Without it its tests are skipped, and counted.
pub(super) fn ensure(env: &Env) -> Result<()> {
    if shell::on_path(PROGRAM) || bin_dir(env).join(PROGRAM).is_file() {
        return Ok(());
    }
    let fetched = shell::step("fetch nats-server for tests (once)", || fetch(&directory(env)));
    if let Err(error) = fetched {
        eprintln!("    tests with it will be skipped: {error:#}");
    }
    Ok(())
}

/// The PATH for tests.
pub(crate) fn path(env: &Env) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([bin_dir(env), super::tansu::directory(env)]);
    // Only a directory with a colon in its name cannot be joined.
    env::join_paths(directories).unwrap_or(path)
}

fn directory(env: &Env) -> PathBuf {
    env.target.join("tools").join(PROGRAM)
}

fn bin_dir(env: &Env) -> PathBuf {
    directory(env).join("usr/sbin")
}

fn fetch(directory: &Path) -> Result<()> {
    fs::create_dir_all(directory)?;
    apt::download(PROGRAM, directory)?;
    let mut files = directory.read_dir()?.flatten().map(|entry| entry.path());
    let package = files.find(|path| path.extension().is_some_and(|it| it == "deb"));
    let package = package.context("apt-get has left no package")?;
    shell::run(Command::new("dpkg").arg("-x").arg(&package).arg(directory))?;
    fs::remove_file(package)?;
    Ok(())
}
