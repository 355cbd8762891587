//! bpf-linker, built against the LLVM library that the pinned toolchain itself brings: the linker
//! reads the compiler's bitcode, so both must be of one LLVM version, and no other LLVM need be
//! installed.

use std::{
    fs,
    os::unix::fs::symlink,
    path::{Path, PathBuf},
    process::{Command, Stdio},
};

use anyhow::{Context as _, Result, bail};

use crate::{env::Env, shell};

/// The version that aya 0.14 / aya-ebpf 0.2 and the pinned toolchain were tried with.
const VERSION: &str = "0.13.0";

/// The directory to put in front of the PATH when the kernel programs are built.
pub(crate) fn bin_dir(env: &Env) -> PathBuf {
    install_dir(env).join("bin")
}

/// Builds it unless it is there and starts.
pub(super) fn ensure(env: &Env) -> Result<()> {
    if starts(&bin_dir(env).join("bpf-linker")) {
        return Ok(());
    }
    let what = format!("build bpf-linker {VERSION} for Rust {} (once)", env.rustc_version);
    shell::step(&what, || build(env))
}

fn install_dir(env: &Env) -> PathBuf {
    env.target.join("tools").join(format!("bpf-linker-{VERSION}-{}", env.rustc_version))
}

fn starts(program: &Path) -> bool {
    Command::new(program)
        .arg("--version")
        .stdin(Stdio::null())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .status()
        .is_ok_and(|status| status.success())
}

fn build(env: &Env) -> Result<()> {
    let dir = install_dir(env);
    let (library, major) = toolchain_llvm(&env.sysroot)?;

    // llvm-sys wants a prefix with lib/libLLVM.so; the toolchain's file has the version in its name.
    let prefix = dir.join("llvm");
    let link = prefix.join("lib/libLLVM.so");
    fs::create_dir_all(prefix.join("lib"))?;
    if link.symlink_metadata().is_ok() {
        fs::remove_file(&link)?;
    }
    symlink(&library, &link).with_context(|| format!("cannot link {}", link.display()))?;

    let objects = dir.join("build");
    let rpath = env.sysroot.join("lib");
    shell::run(
        env.cargo()
            .args(["install", "bpf-linker", "--version", VERSION, "--locked", "--force", "--quiet"])
            .args(["--no-default-features", "--features", &format!("llvm-{major}")])
            .arg("--root")
            .arg(&dir)
            .env("CARGO_TARGET_DIR", &objects)
            .env("LLVM_PREFIX", &prefix)
            .env("RUSTFLAGS", format!("-C link-arg=-Wl,-rpath,{}", rpath.display())),
    )?;
    fs::remove_dir_all(&objects)?;
    if !starts(&bin_dir(env).join("bpf-linker")) {
        bail!("the new {} does not start", bin_dir(env).join("bpf-linker").display());
    }
    Ok(())
}

/// The toolchain's LLVM library, e.g. `libLLVM.so.22.1-rust-1.95.0-stable`, and its major version.
fn toolchain_llvm(sysroot: &Path) -> Result<(PathBuf, u32)> {
    let lib = sysroot.join("lib");
    let entries = lib.read_dir().with_context(|| format!("cannot read {}", lib.display()))?;
    entries
        .flatten()
        .find_map(|entry| {
            let major = llvm_major(entry.file_name().to_str()?)?;
            Some((entry.path(), major))
        })
        .with_context(|| {
            format!(
                "no libLLVM.so.* in {}: bpf-linker needs a toolchain from rustup \
                 (distribution toolchains link another LLVM)",
                lib.display()
            )
        })
}

fn llvm_major(file_name: &str) -> Option<u32> {
    file_name.strip_prefix("libLLVM.so.")?.split(['.', '-']).next()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::llvm_major;

    #[test]
    fn the_major_version_is_read_from_the_library_name() {
        assert_eq!(llvm_major("libLLVM.so.22.1-rust-1.95.0-stable"), Some(22));
        assert_eq!(llvm_major("libLLVM-22-rust-1.95.0-stable.so"), None);
        assert_eq!(llvm_major("librustc_driver-6108105cd7e839cf.so"), None);
    }
}
