//! Debian packages.

use std::{path::Path, process::Command};

use anyhow::{Result, bail};
use nix::unistd::Uid;

use crate::shell;

/// What must be there and the Debian package that brings it.
pub(crate) struct Need {
    /// A program on the PATH, or a file's absolute path.
    pub(crate) program: &'static str,
    /// The package that is installed when it is missing.
    pub(crate) package: &'static str,
}

/// Installs the packages whose programs are missing.
pub(crate) fn need(needs: &[Need]) -> Result<()> {
    let missing: Vec<&str> = needs
        .iter()
        .filter(|need| !shell::on_path(need.program))
        .map(|need| need.package)
        .collect();
    if missing.is_empty() {
        return Ok(());
    }
    let list = missing.join(" ");
    if !shell::on_path("apt-get") {
        bail!("missing: {list} (Debian names). This is not a Debian system: install them yourself");
    }
    if !Uid::effective().is_root() {
        bail!("missing: {list}. Run `sudo apt-get install {list}`, or this command as root");
    }
    shell::step(&format!("install Debian packages: {list}"), || install(&missing))
}

fn install(packages: &[&str]) -> Result<()> {
    with_lists(|| try_install(packages))
}

/// Puts a package's file into the directory, and does not install it.
pub(crate) fn download(package: &str, directory: &Path) -> Result<()> {
    with_lists(|| {
        let mut apt = Command::new("apt-get");
        shell::run(apt.args(["download", "-q", package]).current_dir(directory))
    })
}

/// Package lists are fetched only when there are none or when they no longer fit the mirror.
fn with_lists(act: impl Fn() -> Result<()>) -> Result<()> {
    if !have_lists() || act().is_err() {
        shell::run(Command::new("apt-get").args(["update", "-q"]))?;
        return act();
    }
    Ok(())
}

fn try_install(packages: &[&str]) -> Result<()> {
    shell::run(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

fn have_lists() -> bool {
    let lists = Path::new("/var/lib/apt/lists");
    lists.read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}
