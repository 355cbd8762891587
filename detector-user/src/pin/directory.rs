//! The directory with the pins.

use std::{
    fs::{self, DirBuilder, File},
    io,
    os::unix::fs::{DirBuilderExt as _, MetadataExt as _},
    path::{Path, PathBuf},
};

use nix::{
    errno::Errno,
    fcntl::{Flock, FlockArg},
    sys::statfs::{BPF_FS_MAGIC, statfs},
};

use super::{carry, layout::Layout};
use crate::attach::plan::HookPoint;

/// Where pins are kept unless told otherwise.
pub const DEFAULT_PATH: &str = "/sys/fs/bpf/detector";

const LINKS: &str = "links";
const LAYOUT: &str = "layout-";

/// Pins cannot be kept here.
#[derive(Debug, thiserror::Error)]
pub enum PinError {
    /// Only a BPF file system takes pins.
    #[error(
        "pins: {} is not on a BPF file system; mount one (`mount -t bpf bpf /sys/fs/bpf`; systemd \
         does it, in a container mount the host's), or leave out spec.pin", path.display()
    )]
    NotBpf {
        /// Where.
        path: PathBuf,
    },
    /// Two agents must not read one ring buffer.
    #[error(
        "pins: another agent uses {}; stop it, or give this one a spec.pin.path of its own",
        path.display()
    )]
    InUse {
        /// Where.
        path: PathBuf,
    },
    /// Something else.
    #[error("pins: {}: {error}", path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What was said.
        error: io::Error,
    },
}

/// The pins of one agent, locked for it until dropped, which leaves them where they are.
#[derive(Debug)]
pub struct PinDirectory {
    path: PathBuf,
    maps: PathBuf,
    inherits: bool,
    /// Inode number of this process's network namespace: device numbers are unique only inside.
    namespace: u64,
    _lock: Flock<File>,
}

impl PinDirectory {
    /// Makes or opens it, for maps of this layout.
    ///
    /// # Errors
    /// Not on a BPF file system, used by another agent, or not permitted.
    pub fn open(path: &Path, layout: &str) -> Result<Self, PinError> {
        on_bpf(path)?;
        make(path)?;
        let lock = lock(path)?;
        make(&path.join(LINKS))?;
        let maps = path.join(layout);
        let inherits = maps.is_dir();
        carry::clear(path)?;
        if !inherits && let Some(old) = of_same_source(path, &maps)? {
            carry::carry(&old, &maps)?;
        }
        make(&maps)?;
        let this_namespace = Path::new("/proc/thread-self/ns/net");
        let namespace = fs::metadata(this_namespace).map_err(at(this_namespace))?.ino();
        Ok(Self { path: path.to_owned(), maps, inherits, namespace, _lock: lock })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// The pin of a map of this agent's layout.
    pub fn map(&self, name: &str) -> PathBuf {
        self.maps.join(name)
    }

    /// Whether maps of this layout were there already.
    pub fn inherits(&self) -> bool {
        self.inherits
    }

    /// The pin of an attachment.
    pub fn link(&self, ifindex: u32, hook: HookPoint) -> PathBuf {
        let name = format!("{}-{ifindex}-{}", self.namespace, hook.key());
        self.path.join(LINKS).join(name)
    }

    /// Removes, and so detaches, every attachment but those to keep; how many.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn keep_links(&self, keep: &[PathBuf]) -> Result<usize, PinError> {
        let mut removed = 0;
        for link in entries(&self.path.join(LINKS))? {
            if !keep.contains(&link) {
                fs::remove_file(&link).map_err(at(&link))?;
                removed += 1;
            }
        }
        Ok(removed)
    }

    /// Those that other agents have left.
    ///
    /// # Errors
    /// When the directory cannot be read.
    pub fn other_layouts(&self) -> Result<Vec<OtherLayout>, PinError> {
        let mut others = entries(&self.path)?;
        others.retain(|path| is_layout(path) && *path != self.maps);
        let own = Layout::of(&self.maps);
        let other = |maps: PathBuf| {
            let layout = Layout::of(&maps).zip(own.as_ref());
            let same_source = layout.is_some_and(|(other, own)| other.hash == own.hash);
            OtherLayout { maps, same_source }
        };
        Ok(others.into_iter().map(other).collect())
    }
}

/// Maps of another layout.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OtherLayout {
    /// Their directory.
    pub maps: PathBuf,
    /// Whether only sizes differ.
    pub same_source: bool,
}

/// What was removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    /// Attachments.
    pub links: usize,
    /// Maps.
    pub maps: usize,
}

/// Removes everything that an agent has pinned there, and with it what is attached.
///
/// # Errors
/// While an agent uses it, or when it is not permitted.
pub fn remove_all(path: &Path) -> Result<Removed, PinError> {
    let mut removed = Removed::default();
    if !path.try_exists().map_err(at(path))? {
        return Ok(removed);
    }
    on_bpf(path)?;
    let _lock = lock(path)?;
    // Attachments first: a program must not run with nobody to read what it writes.
    let mut directories = vec![path.join(LINKS)];
    directories.extend(entries(path)?.into_iter().filter(|entry| is_layout(entry)));
    for directory in directories.iter().filter(|directory| directory.is_dir()) {
        let count = remove_directory(directory)?;
        match is_layout(directory) {
            true => removed.maps += count,
            false => removed.links += count,
        }
    }
    fs::remove_dir(path).map_err(at(path))?;
    Ok(removed)
}

/// Removes a directory of pins; how many there were.
pub(crate) fn remove_directory(directory: &Path) -> Result<usize, PinError> {
    let pins = entries(directory)?;
    for pin in &pins {
        fs::remove_file(pin).map_err(at(pin))?;
    }
    fs::remove_dir(directory).map_err(at(directory))?;
    Ok(pins.len())
}

/// Maps that differ from these in their sizes only, if there are any.
fn of_same_source(pins: &Path, maps: &Path) -> Result<Option<PathBuf>, PinError> {
    let hash = |path: &Path| Layout::of(path).map(|layout| layout.hash);
    let own = hash(maps);
    Ok(entries(pins)?.into_iter().find(|path| hash(path).is_some() && hash(path) == own))
}

fn is_layout(path: &Path) -> bool {
    path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(LAYOUT))
}

pub(super) fn entries(directory: &Path) -> Result<Vec<PathBuf>, PinError> {
    let entries = fs::read_dir(directory).and_then(Iterator::collect::<io::Result<Vec<_>>>);
    Ok(entries.map_err(at(directory))?.iter().map(fs::DirEntry::path).collect())
}

/// Is it, or the directory that it is to be made in, on a BPF file system?
fn on_bpf(path: &Path) -> Result<(), PinError> {
    let there = if path.exists() { path } else { path.parent().unwrap_or(path) };
    match statfs(there) {
        Ok(system) if system.filesystem_type() == BPF_FS_MAGIC => Ok(()),
        Ok(_) | Err(Errno::ENOENT) => Err(PinError::NotBpf { path: path.to_owned() }),
        Err(error) => Err(at(there)(error.into())),
    }
}

pub(super) fn make(path: &Path) -> Result<(), PinError> {
    match DirBuilder::new().mode(0o700).create(path) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => Err(at(path)(error)),
        Ok(()) | Err(_) => Ok(()),
    }
}

fn lock(path: &Path) -> Result<Flock<File>, PinError> {
    let directory = File::open(path).map_err(at(path))?;
    Flock::lock(directory, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| match error {
        Errno::EWOULDBLOCK => PinError::InUse { path: path.to_owned() },
        error => at(path)(error.into()),
    })
}

pub(super) fn at(path: &Path) -> impl Fn(io::Error) -> PinError + use<> {
    let path = path.to_owned();
    move |error| PinError::Io { path: path.clone(), error }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_directory_that_is_on_no_bpf_file_system_is_refused_with_the_remedy() {
        let directory = tempfile::tempdir().unwrap();
        for path in [directory.path().join("pins"), "/nonexistent/pins".into()] {
            let said = PinDirectory::open(&path, "layout-x").unwrap_err().to_string();
            assert!(said.contains("mount -t bpf") && said.contains("spec.pin"), "{said}");
        }
        assert!(!directory.path().join("pins").exists());
    }

    #[test]
    fn removing_what_is_not_there_is_no_error() {
        assert_eq!(remove_all(Path::new("/nonexistent/pins")).unwrap(), Removed::default());
    }
}
