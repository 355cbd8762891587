//! Kernels as Debian ships them.

use std::{
    fs,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context as _, Result, bail};

use super::directory;
use crate::{env::Env, shell};

const MIRROR: &str = "http://deb.debian.org/debian";
const KEYS: &str = "/usr/share/keyrings/debian-archive-keyring.gpg";

/// A kernel and the suite of Debian that it comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Kernel {
    /// Its release, e.g. `6.1`.
    pub(super) release: &'static str,
    suite: &'static str,
}

/// The long-term kernels between the oldest that Detector runs on and today's. 5.10 has TC only.
const KERNELS: [Kernel; 3] = [
    Kernel { release: "5.10", suite: "bullseye" },
    Kernel { release: "6.1", suite: "bookworm" },
    Kernel { release: "6.12", suite: "trixie" },
];

/// What a kernel's package holds.
pub(super) struct Files {
    /// What boots.
    pub(super) image: PathBuf,
    /// The directory of its modules.
    pub(super) modules: PathBuf,
}

/// The kernels of these releases; all if none is named.
pub(super) fn chosen(releases: &[String]) -> Result<Vec<Kernel>> {
    if releases.is_empty() {
        return Ok(KERNELS.to_vec());
    }
    let find = |release: &String| KERNELS.into_iter().find(|kernel| kernel.release == *release);
    releases
        .iter()
        .map(|release| {
            let known = KERNELS.map(|kernel| kernel.release).join(", ");
            find(release).with_context(|| format!("no kernel {release} here; there are {known}"))
        })
        .collect()
}

/// Downloads and unpacks a kernel's package, unless that was done before.
pub(super) fn fetch(env: &Env, kernel: Kernel) -> Result<Files> {
    let unpacked = directory(env, kernel.release)?;
    if let Some(files) = files(&unpacked) {
        return Ok(files);
    }
    shell::step(&format!("download Linux {} of Debian {}", kernel.release, kernel.suite), || {
        let apt = Apt::of(env, kernel)?;
        apt.run("apt-get", &["update", "-q"])?;
        let package = apt.newest_kernel()?;
        apt.run("apt-get", &["download", "-q", &package])?;
        let found = fs::read_dir(&apt.directory)?.filter_map(Result::ok).map(|entry| entry.path());
        let archive = found
            .into_iter()
            .find(|path| path.extension().is_some_and(|extension| extension == "deb"))
            .with_context(|| format!("apt-get left no {package}"))?;
        shell::run(Command::new("dpkg-deb").arg("-x").args([&archive, &unpacked]))?;
        fs::remove_file(archive)?;
        Ok(())
    })?;
    files(&unpacked).with_context(|| format!("no kernel in {}", unpacked.display()))
}

fn files(unpacked: &Path) -> Option<Files> {
    let image = only(&unpacked.join("boot"), "vmlinuz-")?;
    // Since Debian 13 below /usr.
    let places = ["lib/modules", "usr/lib/modules"].map(|place| unpacked.join(place));
    let modules = places.iter().find_map(|place| only(place, ""))?;
    Some(Files { image, modules })
}

/// The entry of a directory whose name begins so.
fn only(directory: &Path, prefix: &str) -> Option<PathBuf> {
    let mut entries = fs::read_dir(directory).ok()?.filter_map(Result::ok);
    entries.find(|entry| entry.file_name().to_string_lossy().starts_with(prefix)).map(|e| e.path())
}

/// apt with lists of its own, so that this machine's stay as they are.
struct Apt {
    kernel: Kernel,
    directory: PathBuf,
}

impl Apt {
    fn of(env: &Env, kernel: Kernel) -> Result<Self> {
        let directory = directory(env, &format!("apt-{}", kernel.suite))?;
        for part in ["lists/partial", "cache/archives/partial"] {
            fs::create_dir_all(directory.join(part))?;
        }
        let source = format!("deb [signed-by={KEYS}] {MIRROR} {} main\n", kernel.suite);
        fs::write(directory.join("sources.list"), source)?;
        Ok(Self { kernel, directory })
    }

    fn command(&self, program: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.current_dir(&self.directory);
        let at = |name: &str| self.directory.join(name).display().to_string();
        for option in [
            format!("Dir::Etc::sourcelist={}", at("sources.list")),
            "Dir::Etc::sourceparts=/dev/null".to_owned(),
            format!("Dir::State::lists={}", at("lists")),
            format!("Dir::Cache={}", at("cache")),
            "APT::Sandbox::User=root".to_owned(),
        ] {
            command.args(["-o", &option]);
        }
        command.args(arguments);
        command
    }

    fn run(&self, program: &str, arguments: &[&str]) -> Result<()> {
        shell::run(&mut self.command(program, arguments))
    }

    /// The newest package of this release, in the flavour for virtual machines.
    fn newest_kernel(&self) -> Result<String> {
        let pattern = format!("^linux-image-{}[.].*-cloud-amd64$", self.kernel.release);
        let names = shell::output(&mut self.command("apt-cache", &["search", "-n", &pattern]))?;
        let mut names: Vec<&str> =
            names.lines().filter_map(|line| line.split(' ').next()).collect();
        names.sort_by_key(|name| numbers(name));
        let Some(newest) = names.last() else {
            bail!("Debian {} has no linux-image-{}", self.kernel.suite, self.kernel.release);
        };
        Ok((*newest).to_owned())
    }
}

/// The numbers in a name, to sort versions by.
fn numbers(name: &str) -> Vec<u32> {
    name.split(|c: char| !c.is_ascii_digit()).filter_map(|part| part.parse().ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kernels_are_chosen_by_release_and_an_unknown_one_is_named() {
        assert_eq!(chosen(&[]).expect("all").len(), KERNELS.len());
        assert_eq!(chosen(&["6.1".to_owned()]).expect("one"), [KERNELS[1]]);
        let error = chosen(&["4.19".to_owned()]).expect_err("unknown").to_string();
        assert!(error.contains("4.19") && error.contains("6.12"), "{error}");
    }

    #[test]
    fn versions_are_sorted_by_their_numbers() {
        assert!(numbers("linux-image-6.12.117+deb13") > numbers("linux-image-6.12.95+deb12"));
    }
}
