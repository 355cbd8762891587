//! Programs for tests and demo whose Debian packages begin to serve on the machine when they are
//! installed: such a package is unpacked under `target/tools/`, with the libraries that are not there,
//! and not installed.

use std::{
    env,
    ffi::OsString,
    fs,
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use super::apt;
use crate::{env::Env, shell};

/// A package, and the programs that are wanted of it, by their paths inside.
pub(crate) struct Package {
    name: &'static str,
    programs: &'static [&'static str],
}

/// GTP-U's two ends.
pub(crate) const OSMO_GGSN: Package =
    Package { name: "osmo-ggsn", programs: &["usr/bin/osmo-ggsn", "usr/bin/sgsnemu"] };
/// An MQTT broker.
pub(super) const MOSQUITTO: Package =
    Package { name: "mosquitto", programs: &["usr/sbin/mosquitto"] };
/// A NATS server.
pub(super) const NATS_SERVER: Package =
    Package { name: "nats-server", programs: &["usr/sbin/nats-server"] };

/// The PATH with what is unpacked or fetched, behind what is installed.
pub(crate) fn path(env: &Env) -> OsString {
    let path = env::var_os("PATH").unwrap_or_default();
    let directories = env::split_paths(&path).chain([starters(env), super::tansu::directory(env)]);
    // Only a directory with a colon in its name cannot be joined.
    env::join_paths(directories).unwrap_or(path)
}

/// Fetches what is not there. Without it its tests are skipped, and counted.
pub(super) fn want(env: &Env, packages: &[Package]) {
    for package in packages {
        if let Err(error) = need(env, package) {
            eprintln!("    tests with {} will be skipped: {error:#}", package.name);
        }
    }
}

/// Fetches the package unless its programs start.
pub(crate) fn need(env: &Env, package: &Package) -> Result<()> {
    if package.programs().all(|(name, _)| starts(name)) {
        return Ok(());
    }
    shell::step(&format!("unpack Debian's {} (once)", package.name), || {
        fetch(package.name, &directory(env, package))?;
        for (name, program) in package.programs() {
            write_starter(&directory(env, package), program, &starters(env).join(name))?;
            if !starts(name) {
                bail!("{name} does not start: a library that it needs was not found");
            }
        }
        Ok(())
    })
}

impl Package {
    /// Each program's name, and its path inside.
    fn programs(&self) -> impl Iterator<Item = (&'static str, &'static str)> {
        self.programs.iter().map(|path| (path.rsplit('/').next().unwrap_or(path), *path))
    }
}

fn directory(env: &Env, package: &Package) -> PathBuf {
    env.target.join("tools").join(package.name)
}

/// Where the programs are started from.
fn starters(env: &Env) -> PathBuf {
    env.target.join("tools/bin")
}

/// Whether a program of the PATH is there with all its libraries.
fn starts(program: &str) -> bool {
    let said = Command::new(program)
        .arg("-h")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status();
    // 127 is the dynamic linker's answer, or the shell's, when something is missing. What else the
    // programs answer to -h differs.
    said.is_ok_and(|status| status.code().is_some_and(|code| code != 127))
}

/// Unpacks the package, and what it depends on and is not installed.
fn fetch(package: &str, directory: &Path) -> Result<()> {
    if directory.is_dir() {
        fs::remove_dir_all(directory)?;
    }
    fs::create_dir_all(directory)?;
    apt::download(package, directory)?;
    for file in directory.read_dir()?.flatten().map(|entry| entry.path()) {
        if file.extension().is_some_and(|extension| extension == "deb") {
            shell::run(Command::new("dpkg").arg("-x").arg(&file).arg(directory))?;
            fs::remove_file(file)?;
        }
    }
    Ok(())
}

/// A script that starts an unpacked program with the libraries beside it.
fn write_starter(directory: &Path, program: &str, starter: &Path) -> Result<()> {
    let libraries = libraries(directory);
    let program = directory.join(program);
    // The dynamic linker takes an empty entry for the working directory.
    let text = format!(
        "#!/bin/sh\nLD_LIBRARY_PATH='{libraries}'\"${{LD_LIBRARY_PATH:+:$LD_LIBRARY_PATH}}\" \
         exec '{}' \"$@\"\n",
        program.display()
    );
    let cannot = || format!("cannot write {}", starter.display());
    fs::create_dir_all(starter.parent().unwrap_or(directory)).with_context(cannot)?;
    fs::write(starter, text).with_context(cannot)?;
    fs::set_permissions(starter, fs::Permissions::from_mode(0o755)).with_context(cannot)
}

/// Debian's directories of libraries (`usr/lib/x86_64-linux-gnu`), as far as there are any.
fn libraries(directory: &Path) -> String {
    let of = |lib: &str| directory.join(lib).read_dir().into_iter().flatten().flatten();
    let all = of("usr/lib").chain(of("lib")).map(|entry| entry.path().display().to_string());
    all.filter(|path| path.ends_with("-linux-gnu")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_that_lacks_something_does_not_count_as_there() {
        assert!(starts("sh"));
        assert!(!starts("no-such-program"));
        let directory = std::env::temp_dir().join(format!("unpacked-{}", std::process::id()));
        let starter = directory.join("bin/lacking");
        write_starter(&directory, "usr/bin/lacking", &starter).unwrap();
        assert!(!starts(starter.to_str().unwrap()), "a script whose program is not there");
        fs::remove_dir_all(directory).unwrap();
    }
}
