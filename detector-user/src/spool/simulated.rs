//! A disk that can lose power between any two calls, tear what was not synced, fill up and fail.

use std::{
    collections::{BTreeMap, BTreeSet},
    io,
};

use super::Disk;

/// A file as the process sees it, and as a power loss would leave it at least.
#[derive(Clone, Debug, Default)]
struct File {
    now: Vec<u8>,
    durable: Vec<u8>,
}

/// How much of what was not synced survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Survives {
    Nothing,
    Half,
    /// All of it, but its second half is zeros: length written before data.
    Zeros,
    Everything,
}

impl Survives {
    pub(super) const ALL: [Self; 4] = [Self::Nothing, Self::Half, Self::Zeros, Self::Everything];
}

#[derive(Clone, Debug, Default)]
pub(super) struct Simulated {
    files: BTreeMap<String, File>,
    /// Names that a power loss leaves at least.
    durable_names: BTreeSet<String>,
    /// Files removed since the names were synced: they may come back.
    removed: BTreeMap<String, File>,
    /// Calls that change something.
    pub(super) calls: usize,
    /// The call that is cut by the power loss; all later ones fail too.
    pub(super) power_lost_at: Option<usize>,
    /// All files together cannot be longer.
    pub(super) capacity: Option<usize>,
    pub(super) read_only: bool,
    pub(super) sync_fails: bool,
}

fn error(kind: io::ErrorKind) -> io::Error {
    kind.into()
}

impl Simulated {
    /// What the next process finds.
    pub(super) fn after_power_loss(&self, survives: Survives) -> Self {
        let mut after = Self::default();
        let come_back = self.removed.iter().filter(|_| survives == Survives::Everything);
        for (name, file) in come_back.chain(&self.files) {
            if !self.durable_names.contains(name) && survives == Survives::Nothing {
                continue;
            }
            let bytes = surviving(file, survives);
            let file = File { now: bytes.clone(), durable: bytes };
            after.files.insert(name.clone(), file);
            after.durable_names.insert(name.clone());
        }
        after
    }

    /// What the next process finds after this one was killed: the kernel has it all.
    pub(super) fn after_kill(&self) -> Self {
        self.after_power_loss(Survives::Everything).without(&self.removed)
    }

    fn without(mut self, removed: &BTreeMap<String, File>) -> Self {
        self.files.retain(|name, _| !removed.contains_key(name));
        self
    }

    pub(super) fn bytes_mut(&mut self, name: &str) -> &mut Vec<u8> {
        &mut self.files.get_mut(name).unwrap().now
    }

    pub(super) fn names(&self) -> Vec<String> {
        self.files.keys().cloned().collect()
    }

    pub(super) fn total(&self) -> usize {
        self.files.values().map(|file| file.now.len()).sum()
    }

    /// Whether this call is the one that is cut (`Ok(true)`), or comes after it (an error).
    fn call(&mut self) -> io::Result<bool> {
        self.calls += 1;
        if self.read_only {
            return Err(error(io::ErrorKind::ReadOnlyFilesystem));
        }
        match self.power_lost_at {
            Some(at) if self.calls > at => Err(io::Error::other("power lost")),
            Some(at) => Ok(self.calls == at),
            None => Ok(false),
        }
    }

    fn file(&mut self, name: &str) -> io::Result<&mut File> {
        self.files.get_mut(name).ok_or_else(|| error(io::ErrorKind::NotFound))
    }
}

fn surviving(file: &File, survives: Survives) -> Vec<u8> {
    let common = file.now.iter().zip(&file.durable).take_while(|(a, b)| a == b).count();
    let half = common + (file.now.len() - common) / 2;
    match survives {
        Survives::Nothing => file.durable.clone(),
        Survives::Half => file.now[..half].to_vec(),
        Survives::Zeros => {
            let mut bytes = file.now.clone();
            bytes[half..].fill(0);
            bytes
        }
        Survives::Everything => file.now.clone(),
    }
}

impl Disk for Simulated {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.names())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let cut = self.call()?;
        self.files.insert(name.to_owned(), File::default());
        if cut { Err(io::Error::other("power lost")) } else { Ok(()) }
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        let cut = self.call()?;
        let room = self.capacity.map_or(usize::MAX, |capacity| capacity - self.total());
        let file = self.file(name)?;
        // A full disk takes what fits, a power loss what it had got so far.
        let taken = if cut { bytes.len() / 2 } else { bytes.len() }.min(room);
        file.now.extend_from_slice(&bytes[..taken]);
        match taken == bytes.len() {
            true => Ok(()),
            false if cut => Err(io::Error::other("power lost")),
            false => Err(error(io::ErrorKind::StorageFull)),
        }
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        let cut = self.call()?;
        if cut {
            return Err(io::Error::other("power lost"));
        }
        self.file(name)?.now.truncate(length as usize);
        Ok(())
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        let file = self.files.get(name).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        Ok(file.now.len() as u64)
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let offset = offset as usize;
        let file = self.file(name)?;
        let bytes = file.now.get(offset..offset + buffer.len());
        buffer.copy_from_slice(bytes.ok_or_else(|| error(io::ErrorKind::UnexpectedEof))?);
        Ok(())
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        let cut = self.call()?;
        if cut || self.sync_fails {
            return Err(io::Error::other("not synced"));
        }
        let file = self.file(name)?;
        file.durable = file.now.clone();
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        let cut = self.call()?;
        if cut || self.sync_fails {
            return Err(io::Error::other("not synced"));
        }
        self.durable_names = self.files.keys().cloned().collect();
        self.removed.clear();
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        let cut = self.call()?;
        if cut {
            return Err(io::Error::other("power lost"));
        }
        let file = self.files.remove(name).ok_or_else(|| error(io::ErrorKind::NotFound))?;
        if self.durable_names.contains(name) {
            self.removed.insert(name.to_owned(), file);
        }
        Ok(())
    }
}
