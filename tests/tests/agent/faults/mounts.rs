//! Files and file systems of a test's own, in the places where the agent looks.

use std::{
    ffi::CString,
    fs, io,
    os::unix::process::CommandExt as _,
    path::{Path, PathBuf},
    process::Command,
};

use nix::{
    mount::{MntFlags, MsFlags, mount, umount2},
    sched::{CloneFlags, unshare},
};
use tempfile::TempDir;

/// Files that one process sees in the place of others.
pub(super) struct Files(TempDir);

impl Files {
    pub(super) fn new() -> Self {
        Self(tempfile::tempdir().expect("a directory"))
    }

    pub(super) fn path(&self, name: &str) -> PathBuf {
        self.0.path().join(name)
    }

    /// In place, so that it changes where it is mounted too.
    pub(super) fn write(&self, name: &str, text: &str) {
        fs::write(self.path(name), text).expect("written");
    }

    /// The command will see these files in these places, in a mount namespace of its own.
    pub(super) fn over(&self, command: &mut Command, files: &[(&str, &str)]) {
        let text = |path: &Path| CString::new(path.to_str().expect("text")).expect("no zeroes");
        let pairs: Vec<(CString, CString)> = files
            .iter()
            .map(|(name, place)| (text(&self.path(name)), text(Path::new(place))))
            .collect();
        let none: Option<&str> = None;
        let enter = move || -> nix::Result<()> {
            unshare(CloneFlags::CLONE_NEWNS)?;
            mount(none, "/", none, MsFlags::MS_REC | MsFlags::MS_PRIVATE, none)?;
            for (from, to) in &pairs {
                mount(Some(from.as_c_str()), to.as_c_str(), none, MsFlags::MS_BIND, none)?;
            }
            Ok(())
        };
        // SAFETY: between fork and exec only unshare and mount are called; nix copies their short
        // arguments on the stack, and nothing is allocated.
        unsafe { command.pre_exec(move || enter().map_err(io::Error::from)) };
    }
}

/// A small disk, mounted until dropped.
pub(super) struct Tmpfs(PathBuf);

impl Tmpfs {
    /// On this directory, which is made.
    pub(super) fn mount(directory: &Path, bytes: u64) -> Self {
        fs::create_dir_all(directory).expect("a directory");
        let options = format!("size={bytes},mode=0700");
        mount(Some("tmpfs"), directory, Some("tmpfs"), MsFlags::empty(), Some(options.as_str()))
            .expect("tmpfs");
        Self(directory.to_owned())
    }

    /// Takes all the room there is, until the file is removed.
    pub(super) fn fill(&self) -> PathBuf {
        let path = self.0.join("filler");
        let mut file = fs::File::create(&path).expect("a file");
        for size in [64 << 10, 4 << 10, 1] {
            while io::Write::write_all(&mut file, &vec![0; size]).is_ok() {}
        }
        path
    }
}

impl Drop for Tmpfs {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}

/// A directory seen read-only by whoever opens files in it from now on, until dropped.
pub(super) struct ReadOnly(PathBuf);

impl ReadOnly {
    pub(super) fn mount(directory: &Path) -> Self {
        let none: Option<&str> = None;
        mount(Some(directory), directory, none, MsFlags::MS_BIND, none).expect("bound");
        let this = Self(directory.to_owned());
        let flags = MsFlags::MS_BIND | MsFlags::MS_REMOUNT | MsFlags::MS_RDONLY;
        mount(none, directory, none, flags, none).expect("read-only");
        this
    }
}

impl Drop for ReadOnly {
    fn drop(&mut self) {
        let _ = umount2(&self.0, MntFlags::MNT_DETACH);
    }
}
