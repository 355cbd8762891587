//! A BPF file system of one's own, for pins; what is pinned there goes with it.

use std::{
    fs,
    path::{Path, PathBuf},
    sync::atomic::{AtomicU32, Ordering},
};

use anyhow::{Context as _, Result};
use nix::mount::{MntFlags, MsFlags, mount, umount2};

/// Mounted on a new directory until dropped.
#[derive(Debug)]
pub struct BpfFs {
    directory: PathBuf,
}

impl BpfFs {
    /// Needs root.
    pub fn mount() -> Result<Self> {
        static MADE: AtomicU32 = AtomicU32::new(0);
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let name = format!("det{}-bpf{number}", std::process::id());
        let directory = std::env::temp_dir().join(name);
        fs::create_dir(&directory)?;
        let none: Option<&str> = None;
        let mounted = mount(Some("bpf"), &directory, Some("bpf"), MsFlags::empty(), none);
        let this = Self { directory };
        mounted.with_context(|| format!("cannot mount a BPF file system on {this:?}"))?;
        Ok(this)
    }

    /// A path on it.
    pub fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Where it is mounted.
    pub fn root(&self) -> &Path {
        &self.directory
    }
}

impl Drop for BpfFs {
    fn drop(&mut self) {
        // Lazily: an agent that a failing test left may still hold a file of it.
        let _ = umount2(self.root(), MntFlags::MNT_DETACH);
        let _ = fs::remove_dir(self.root());
    }
}
