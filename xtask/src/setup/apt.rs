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

/// Another apt-get may be at work: it is waited for, in seconds.
const PATIENCE: [&str; 2] = ["-o", "DPkg::Lock::Timeout=120"];

/// Installs the packages whose programs are missing.
pub(crate) fn need(needs: &[Need]) -> Result<()> {
    let mut missing: Vec<&str> = needs
        .iter()
        .filter(|need| !shell::on_path(need.program))
        .map(|need| need.package)
        .collect();
    missing.sort_unstable();
    missing.dedup();
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

/// Puts the files of a package, and of those that it depends on and that are not there, into the
/// directory, and installs none.
pub(crate) fn download(package: &str, directory: &Path) -> Result<()> {
    with_lists(|| {
        let missing = missing(package)?;
        let mut apt = Command::new("apt-get");
        shell::run(apt.args(["download", "-q"]).args(missing).current_dir(directory))
    })
}

/// Package lists are fetched only when there are none or when they no longer fit the mirror.
fn with_lists(act: impl Fn() -> Result<()>) -> Result<()> {
    if !have_lists() || act().is_err() {
        shell::run(Command::new("apt-get").args(["update", "-q"]).args(PATIENCE))?;
        return act();
    }
    Ok(())
}

fn try_install(packages: &[&str]) -> Result<()> {
    shell::run(
        Command::new("apt-get")
            .args(["install", "-y", "-q", "--no-install-recommends"])
            .args(PATIENCE)
            .args(packages)
            .env("DEBIAN_FRONTEND", "noninteractive"),
    )
}

/// What would be installed for this package: itself, and what it depends on and is not there.
fn missing(package: &str) -> Result<Vec<String>> {
    let mut simulate = Command::new("apt-get");
    simulate.args(["install", "--simulate", "-q", "--no-install-recommends", package]);
    let missing = would_install(&shell::output(simulate.env("LC_ALL", "C"))?);
    if missing.is_empty() {
        bail!("apt-get would not install {package}: it is there already");
    }
    Ok(missing)
}

/// Of lines like `Inst libcjson1 (1.7.15-1 Debian:12.11/stable [amd64])`.
fn would_install(said: &str) -> Vec<String> {
    let names = said.lines().filter_map(|line| line.strip_prefix("Inst ")?.split(' ').next());
    names.map(str::to_owned).collect()
}

fn have_lists() -> bool {
    let lists = Path::new("/var/lib/apt/lists");
    lists.read_dir().is_ok_and(|entries| {
        entries.flatten().any(|entry| entry.file_name().to_string_lossy().contains("_Packages"))
    })
}

#[cfg(test)]
mod tests {
    use super::would_install;

    #[test]
    fn what_a_package_brings_is_read_from_a_simulated_installation() {
        let said = "Reading package lists...\nThe following NEW packages will be installed:\n  a b\n\
                    Inst libcjson1 (1.7.15-1+deb12u4 Debian:12.12/oldstable [amd64])\n\
                    Inst mosquitto (2.0.11-1.2+deb12u2 Debian:12.12/oldstable [amd64])\n\
                    Conf libcjson1 (1.7.15-1+deb12u4 Debian:12.12/oldstable [amd64])\n";
        assert_eq!(would_install(said), ["libcjson1", "mosquitto"]);
    }
}
