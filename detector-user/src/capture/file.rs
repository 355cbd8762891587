//! One capture file, frame by frame, in constant memory.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicU64, Ordering},
    },
};

use flate2::read::MultiGzDecoder;
use pcap_parser::{PcapError, create_reader, traits::PcapReaderIterator};
use thiserror::Error;

use super::{
    link::LinkType,
    section::{Found, Section},
};

/// Bytes read ahead: few enough to stay in a core's cache until they are parsed. Larger blocks make
/// the buffer grow, up to [`LARGEST_BLOCK`].
const BUFFER: usize = 256 << 10;
/// No capture tool writes a larger block; a length beyond it is damage.
const LARGEST_BLOCK: usize = 64 << 20;

/// Why a capture file cannot be read, or not to its end.
#[derive(Debug, Error)]
pub enum CaptureError {
    /// It cannot be opened or read.
    #[error("cannot read: {0}")]
    Io(io::Error),
    /// Neither pcap nor pcapng.
    #[error(
        "not a capture file: expected pcap or pcapng, perhaps gzipped; convert other formats with \
         `editcap -F pcap`"
    )]
    UnknownFormat,
    /// It ends before its header is complete.
    #[error("not a capture file: it ends inside the file header")]
    NoHeader,
    /// It ends inside a frame, as when a capture was stopped the hard way.
    #[error("cut short inside frame {frame}: the frames before it were read")]
    CutShort {
        /// The frame that is not complete.
        frame: u64,
    },
    /// A length or a block that no capture file has.
    #[error("damaged at frame {frame}, byte {offset}: {what}; the frames before it were read")]
    Damaged {
        /// The frame that would have come next.
        frame: u64,
        /// Where the damage begins, in (uncompressed) bytes from the start.
        offset: u64,
        /// What is wrong there.
        what: String,
    },
}

impl From<io::Error> for CaptureError {
    fn from(error: io::Error) -> Self {
        Self::Io(error)
    }
}

/// One captured frame.
#[derive(Clone, Copy, Debug)]
pub struct Frame<'a> {
    /// Its number in the file, from 1.
    pub number: u64,
    /// When it was captured, in ns since 1970.
    pub time_ns: u64,
    /// What `bytes` begin with.
    pub link: LinkType,
    /// The captured bytes.
    pub bytes: &'a [u8],
    /// Bytes of the frame on the wire; more than `bytes` when the capture was limited.
    pub length: u32,
}

/// Why there is no block at the front.
enum Halt {
    End,
    /// More of the file must be read first.
    More,
    /// The buffer is too small for it.
    Large,
    /// The file ends inside it.
    Short,
    Damage(&'static str),
}

/// An open capture file.
pub struct CaptureFile {
    reader: Box<dyn PcapReaderIterator + Send>,
    /// Bytes of the block that was given out last.
    last: usize,
    offset: u64,
    frames: u64,
    section: Section,
    read: Arc<AtomicU64>,
    failure: Failure,
}

impl CaptureFile {
    /// Opens a file, or standard input for `-`.
    ///
    /// # Errors
    /// When it cannot be opened, or is no capture.
    pub fn open(path: &Path) -> Result<Self, CaptureError> {
        if path == Path::new("-") {
            return Self::read(io::stdin());
        }
        Self::read(File::open(path)?)
    }

    /// Reads a capture from any source.
    ///
    /// # Errors
    /// When it begins like no capture.
    pub fn read(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let read = Arc::new(AtomicU64::new(0));
        let mut source = Counting { inner: source, read: read.clone() };
        let start = beginning(&mut source)?;
        let whole = io::Cursor::new(start.clone()).chain(source);
        let mut source: Box<dyn Read + Send> = match start.as_slice() {
            [0x1f, 0x8b, ..] => Box::new(MultiGzDecoder::new(whole)),
            _ => Box::new(whole),
        };
        let start = beginning(&mut source)?;
        if start.len() < 24 {
            return Err(CaptureError::NoHeader);
        }
        let failure = Failure::default();
        let source = io::Cursor::new(start).chain(source);
        let source = Noting { inner: source, failure: failure.clone() };
        let reader = create_reader(BUFFER, source).map_err(|error| match error {
            PcapError::Eof | PcapError::Incomplete(_) => CaptureError::NoHeader,
            _ => CaptureError::UnknownFormat,
        })?;
        let section = Section::default();
        Ok(Self { reader, last: 0, offset: 0, frames: 0, section, read, failure })
    }

    /// How many bytes of the file were read so far (compressed ones count as they are).
    pub fn progress(&self) -> Arc<AtomicU64> {
        self.read.clone()
    }

    /// The next frame; `None` at the end.
    ///
    /// # Errors
    /// When the file goes no further. What came before it counts.
    pub fn next_frame(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        loop {
            // What is left is moved when the buffer is filled again, and only then.
            self.reader.consume_noshift(std::mem::take(&mut self.last));
            let (length, found) = match self.next_block() {
                Ok(block) => block,
                Err(Halt::End | Halt::Short) => return self.end(),
                Err(Halt::More) => {
                    self.refill()?;
                    continue;
                }
                Err(Halt::Large) => {
                    self.grow()?;
                    continue;
                }
                Err(Halt::Damage(what)) => return Err(self.damage(what)),
            };
            self.last = length;
            self.offset += length as u64;
            if let Some(found) = found {
                self.frames += 1;
                return Ok(Some(found.frame(self.frames, self.reader.data())));
            }
        }
    }

    /// The block at the front: its length, and where a frame is in it.
    fn next_block(&mut self) -> Result<(usize, Option<Found>), Halt> {
        const UNREADABLE: &str = "no block or frame that can be read";
        if self.section.is_next_generation()
            && self.section.begins_with_impossible_block(self.reader.data())
        {
            return Err(Halt::Damage(UNREADABLE));
        }
        match self.reader.next() {
            Ok((length, block)) => {
                let found = self.section.block(&block).map_err(Halt::Damage)?;
                Ok((length, found))
            }
            Err(PcapError::Eof) => Err(Halt::End),
            Err(PcapError::Incomplete(_)) => Err(Halt::More),
            Err(PcapError::BufferTooSmall) => Err(Halt::Large),
            Err(PcapError::UnexpectedEof) => Err(Halt::Short),
            Err(_) => Err(Halt::Damage(UNREADABLE)),
        }
    }

    /// No block comes any more.
    fn end(&mut self) -> Result<Option<Frame<'_>>, CaptureError> {
        let cut = || CaptureError::CutShort { frame: self.frames + 1 };
        match self.failure.take() {
            // Compressed, and stopped the hard way.
            Some(error) if error.kind() == ErrorKind::UnexpectedEof => Err(cut()),
            Some(error) => Err(error.into()),
            None if self.reader.data().is_empty() => Ok(None),
            None => Err(cut()),
        }
    }

    fn refill(&mut self) -> Result<(), CaptureError> {
        self.reader.refill().map_err(|_| io::Error::from(ErrorKind::Other).into())
    }

    fn grow(&mut self) -> Result<(), CaptureError> {
        let size = (self.reader.data().len().max(BUFFER)).saturating_mul(2);
        if size > LARGEST_BLOCK || !self.reader.grow(size) {
            return Err(self.damage("a length that no capture file has"));
        }
        self.refill()
    }

    fn damage(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Damaged { frame: self.frames + 1, offset: self.offset, what: what.into() }
    }
}

/// The first bytes of a source, enough for every file header; fewer only if it ends before.
fn beginning(source: &mut impl Read) -> io::Result<Vec<u8>> {
    const ENOUGH: u64 = 4096;
    let mut start = Vec::new();
    match source.by_ref().take(ENOUGH).read_to_end(&mut start) {
        // Compressed, and cut short: what is there counts.
        Err(error) if error.kind() != ErrorKind::UnexpectedEof || start.is_empty() => Err(error),
        Err(_) | Ok(_) => Ok(start),
    }
}

/// Why reading failed: the parser of captures would say only that it did.
#[derive(Clone, Default)]
struct Failure(Arc<Mutex<Option<io::Error>>>);

impl Failure {
    fn take(&self) -> Option<io::Error> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).take()
    }
}

/// A source that ends where it fails, and notes why: the frames before it count.
struct Noting<R> {
    inner: R,
    failure: Failure,
}

impl<R: Read> Read for Noting<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            match self.inner.read(buffer) {
                Err(error) if error.kind() == ErrorKind::Interrupted => {}
                Err(error) => {
                    *self.failure.0.lock().unwrap_or_else(PoisonError::into_inner) = Some(error);
                    return Ok(0);
                }
                Ok(count) => return Ok(count),
            }
        }
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
