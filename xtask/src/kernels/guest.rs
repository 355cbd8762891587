//! A virtual machine that holds nothing but test programs: its disk, and its run.

use std::{
    fs,
    os::unix::fs::{PermissionsExt as _, symlink},
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context as _, Result, bail};

use super::{debian::Files, directory};
use crate::{env::Env, shell};

/// Modules that the tests need, each after those that it needs itself.
const MODULES: [&str; 4] = ["veth", "cls_bpf", "sch_ingress", "tun"];

/// Said when all programs have ended.
const DONE: &str = "all test programs have ended";

/// The first program: mounts, modules, tests, end.
const INIT: &str = "#!/bin/sh
export PATH=/bin:/usr/sbin HOME=/
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
mount -t tmpfs tmp /tmp
mount -t tmpfs run /run
mount -t bpf bpf /sys/fs/bpf
for module in MODULES; do [ -e /modules/$module.ko ] && insmod /modules/$module.ko; done
ip link set lo up
for program in /tests/*; do echo \"running $program\"; $program --test-threads 1; done
echo 'DONE'
poweroff -f
";

/// Makes the guest's only disk, which the kernel unpacks into memory.
pub(super) fn disk(env: &Env, kernel: &Files, programs: &[PathBuf]) -> Result<PathBuf> {
    let root = directory(env, "root")?;
    fs::remove_dir_all(&root)?;
    for name in ["bin", "dev", "proc", "sys", "tmp", "run", "modules", "tests"] {
        fs::create_dir_all(root.join(name))?;
    }
    fs::copy(program("busybox")?, root.join("bin/busybox"))?;
    for tool in ["sh", "mount", "insmod", "poweroff", "echo", "cat", "sleep"] {
        symlink("busybox", root.join("bin").join(tool))?;
    }
    for name in MODULES {
        add_module(&kernel.modules, name, &root.join("modules"))?;
    }
    for program in programs {
        let name = program.file_name().context("a program without a name")?;
        let to = root.join("tests").join(name);
        // Debug information would be nine tenths of the disk.
        shell::run(Command::new("strip").arg("-g").arg("-o").args([&to, program]))?;
        add_libraries(program, &root)?;
    }
    let ip = program("ip")?;
    fs::copy(&ip, root.join("bin/ip"))?;
    add_libraries(&ip, &root)?;
    let init = root.join("init");
    fs::write(&init, INIT.replace("MODULES", &MODULES.join(" ")).replace("DONE", DONE))?;
    fs::set_permissions(&init, fs::Permissions::from_mode(0o755))?;
    let disk = env.target.join("kernels/disk.cpio");
    let pack = format!("find . | cpio --quiet -o -H newc > {}", disk.display());
    shell::run(Command::new("sh").args(["-c", &pack]).current_dir(&root))?;
    Ok(disk)
}

fn program(name: &str) -> Result<PathBuf> {
    shell::find(name).with_context(|| format!("no `{name}` on the PATH"))
}

/// Adds a module, if the kernel has it as one.
fn add_module(modules: &Path, name: &str, to: &Path) -> Result<()> {
    let file = format!("{name}.ko");
    let found =
        shell::output(Command::new("find").arg(modules).args(["-name", &format!("{file}*")]))?;
    let Some(found) = found.lines().next() else { return Ok(()) };
    if found.ends_with(".xz") {
        let unpack = format!("xz -dc {found} > {}", to.join(file).display());
        return shell::run(Command::new("sh").args(["-c", &unpack]));
    }
    fs::copy(found, to.join(file))?;
    Ok(())
}

/// Adds the shared libraries that a program is loaded with.
fn add_libraries(program: &Path, root: &Path) -> Result<()> {
    let list = shell::output(Command::new("ldd").arg(program))?;
    for library in list.split_whitespace().filter(|word| word.starts_with('/')) {
        let to = root.join(library.trim_start_matches('/'));
        fs::create_dir_all(to.parent().context("a library without a directory")?)?;
        fs::copy(library, to)?;
    }
    Ok(())
}

/// Boots the kernel and hands over every line of its console; an error if the programs did not end.
pub(super) fn boot(
    image: &Path,
    disk: &Path,
    timeout: Duration,
    mut line: impl FnMut(&str),
) -> Result<()> {
    let mut qemu = Command::new("timeout");
    qemu.arg(timeout.as_secs().to_string()).arg("qemu-system-x86_64");
    // Not KVM: inside a virtual machine it is often there and does not work.
    qemu.args(["-accel", "tcg,thread=multi", "-cpu", "max"]);
    qemu.args(["-smp", "2", "-m", "2G", "-no-reboot", "-nic", "none"]);
    qemu.args(["-display", "none", "-monitor", "none", "-serial", "stdio"]);
    qemu.arg("-kernel").arg(image).arg("-initrd").arg(disk);
    qemu.args(["-append", "console=ttyS0 quiet panic=-1"]);
    qemu.stdin(Stdio::null());
    let mut done = false;
    shell::follow(&mut qemu, |text| {
        let text = text.trim_end();
        done |= text.ends_with(DONE);
        line(text);
    })?;
    if !done {
        bail!("the guest ended, or was ended after {timeout:?}, before its programs did");
    }
    Ok(())
}
