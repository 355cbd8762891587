//! Where the bytes of a capture file come from: a file that is mapped where that is safe, and anything
//! else that can be read.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use super::mapped::Mapped;

/// Bytes read ahead: few enough to stay in a core's cache until they are parsed. Longer blocks make the
/// buffer grow.
const BUFFER: usize = 256 << 10;

/// The bytes of a capture from where it was read to.
pub(super) enum Source {
    Mapped(Mapped),
    Stream(Stream),
}

impl Source {
    /// A file's. `read` counts how far it was read.
    pub(super) fn of_file(file: File, read: &Arc<AtomicU64>) -> Self {
        match Mapped::new(&file, read.clone()) {
            Some(mapped) => Self::Mapped(mapped),
            None => Self::of(file, read),
        }
    }

    /// Those of anything that can be read.
    pub(super) fn of(source: impl Read + Send + 'static, read: &Arc<AtomicU64>) -> Self {
        Self::Stream(Stream::new(Counting { inner: source, read: read.clone() }))
    }

    /// What comes next, as far as it is there.
    pub(super) fn front(&self) -> &[u8] {
        match self {
            Self::Mapped(mapped) => mapped.front(),
            Self::Stream(stream) => stream.front(),
        }
    }

    /// So many bytes of the front are read.
    pub(super) fn consume(&mut self, count: usize) {
        match self {
            Self::Mapped(mapped) => mapped.consume(count),
            Self::Stream(stream) => stream.consume(count),
        }
    }

    /// So many bytes of the front are looked at first, and what stands behind them next.
    #[inline]
    pub(super) fn expect(&self, distance: usize) {
        match self {
            Self::Mapped(mapped) => mapped.expect(distance),
            // Still in the cache, by the copy that brought it.
            Self::Stream(_) => {}
        }
    }

    /// Makes the front longer; whether it could, or the capture ends there.
    ///
    /// # Errors
    /// What reading gives.
    pub(super) fn more(&mut self) -> io::Result<bool> {
        match self {
            Self::Mapped(mapped) => {
                if let Some(longer) = mapped.more() {
                    return Ok(longer);
                }
                self.unmap()?;
                self.more()
            }
            Self::Stream(stream) => stream.more(),
        }
    }

    /// Goes on by reading if the mapping cannot be trusted any longer. To be asked before each look at the
    /// front.
    ///
    /// # Errors
    /// When the file has no such place.
    pub(super) fn settle(&mut self) -> io::Result<()> {
        match self {
            Self::Mapped(mapped) if mapped.is_recalled() => self.unmap(),
            Self::Mapped(_) | Self::Stream(_) => Ok(()),
        }
    }

    fn unmap(&mut self) -> io::Result<()> {
        if let Self::Mapped(mapped) = self {
            let (file, read) = mapped.reopen()?;
            *self = Self::of(file, &read);
        }
        Ok(())
    }
}

/// Bytes that are read into a buffer.
pub(super) struct Stream {
    source: Box<dyn Read + Send>,
    buffer: Vec<u8>,
    /// What of the buffer was read from the source, and not yet from here.
    filled: std::ops::Range<usize>,
}

impl Stream {
    pub(super) fn new(source: impl Read + Send + 'static) -> Self {
        Self { source: Box::new(source), buffer: vec![0; BUFFER], filled: 0..0 }
    }

    fn front(&self) -> &[u8] {
        &self.buffer[self.filled.clone()]
    }

    fn consume(&mut self, count: usize) {
        self.filled.start = self.filled.end.min(self.filled.start + count);
    }

    fn more(&mut self) -> io::Result<bool> {
        self.buffer.copy_within(self.filled.clone(), 0);
        self.filled = 0..self.filled.len();
        if self.filled.end == self.buffer.len() {
            self.buffer.resize(self.buffer.len() * 2, 0);
        }
        loop {
            match self.source.read(&mut self.buffer[self.filled.end..]) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => return Err(error),
                Ok(count) => {
                    self.filled.end += count;
                    return Ok(count > 0);
                }
            }
        }
    }
}

/// Its bytes that are still to come, for a source that makes others of them.
impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.settle()?;
        if self.front().is_empty() && !self.more()? {
            return Ok(0);
        }
        let count = self.front().read(buffer)?;
        self.consume(count);
        Ok(count)
    }
}

/// Counts what is read, for a progress bar.
struct Counting<R> {
    inner: R,
    read: Arc<AtomicU64>,
}

impl<R: Read> Read for Counting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let count = self.inner.read(buffer)?;
        self.read.fetch_add(count as u64, Ordering::Relaxed);
        Ok(count)
    }
}
