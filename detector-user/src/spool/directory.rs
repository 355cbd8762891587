//! The real disk: one directory, owned by one process.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    os::unix::fs::{DirBuilderExt, FileExt, OpenOptionsExt},
    path::{Path, PathBuf},
};

use nix::fcntl::{Flock, FlockArg};

use super::{Disk, SpoolError};

const LOCK: &str = "lock";

/// A directory of segments. Events say what people do, so only the agent's user may read them.
pub struct Directory {
    path: PathBuf,
    handle: File,
    /// The file that was written last.
    writing: Option<(String, File)>,
    /// The file that was read last.
    reading: Option<(String, File)>,
    _lock: Flock<File>,
}

impl Directory {
    /// Makes it if it is not there, and locks it until this value is dropped or the process ends.
    ///
    /// # Errors
    /// It cannot be written, or another process has it.
    pub fn open(path: &Path) -> Result<Self, SpoolError> {
        let refuse = |error| SpoolError::Directory { path: path.to_owned(), error };
        fs::DirBuilder::new().recursive(true).mode(0o700).create(path).map_err(refuse)?;
        let handle = File::open(path).map_err(refuse)?;
        let lock = private().append(true).open(path.join(LOCK)).map_err(refuse)?;
        let lock = Flock::lock(lock, FlockArg::LockExclusiveNonblock).map_err(|(_, error)| {
            if error == nix::errno::Errno::EWOULDBLOCK {
                return SpoolError::Taken { path: path.to_owned() };
            }
            refuse(error.into())
        })?;
        Ok(Self { path: path.to_owned(), handle, writing: None, reading: None, _lock: lock })
    }

    fn writer(&mut self, name: &str) -> io::Result<&mut File> {
        let file = match self.writing.take() {
            Some((open, file)) if open == name => file,
            Some(_) | None => OpenOptions::new().append(true).open(self.path.join(name))?,
        };
        Ok(&mut self.writing.insert((name.to_owned(), file)).1)
    }

    fn reader(&mut self, name: &str) -> io::Result<&File> {
        let file = match self.reading.take() {
            Some((open, file)) if open == name => file,
            Some(_) | None => File::open(self.path.join(name))?,
        };
        Ok(&self.reading.insert((name.to_owned(), file)).1)
    }
}

fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

impl Disk for Directory {
    fn list(&self) -> io::Result<Vec<String>> {
        let name = |entry: io::Result<fs::DirEntry>| Ok(entry?.file_name().into_string().ok());
        let names: io::Result<Vec<Option<String>>> = fs::read_dir(&self.path)?.map(name).collect();
        Ok(names?.into_iter().flatten().filter(|name| name != LOCK).collect())
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        let path = self.path.join(name);
        private().write(true).truncate(true).open(&path)?;
        self.reading.take_if(|(open, _)| open == name);
        self.writing = Some((name.to_owned(), OpenOptions::new().append(true).open(path)?));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.writer(name)?.write_all(bytes)
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.writer(name)?.set_len(length)
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        Ok(fs::metadata(self.path.join(name))?.len())
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        self.reader(name)?.read_exact_at(buffer, offset)
    }

    fn sync(&mut self, name: &str) -> io::Result<()> {
        self.writer(name)?.sync_data()
    }

    fn sync_names(&mut self) -> io::Result<()> {
        self.handle.sync_all()
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.writing.take_if(|(open, _)| open == name);
        self.reading.take_if(|(open, _)| open == name);
        fs::remove_file(self.path.join(name))
    }
}
