//! One capture file, frame by frame, in constant memory.

use std::{
    fs::File,
    io::{self, ErrorKind, Read},
    path::Path,
    sync::{Arc, atomic::AtomicU64},
};

use flate2::read::MultiGzDecoder;
use thiserror::Error;

use super::{
    blocks::{Blocks, Halt},
    link::LinkType,
    source::Source,
};

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

/// An open capture file.
pub struct CaptureFile {
    source: Source,
    /// Bytes of the block that was given out last.
    last: usize,
    offset: u64,
    frames: u64,
    blocks: Blocks,
    read: Arc<AtomicU64>,
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
        let read = Arc::default();
        let source = Source::of_file(File::open(path)?, &read);
        Self::begin(source, read)
    }

    /// Reads a capture from any source.
    ///
    /// # Errors
    /// When it begins like no capture.
    pub fn read(source: impl Read + Send + 'static) -> Result<Self, CaptureError> {
        let read = Arc::default();
        let source = Source::of(source, &read);
        Self::begin(source, read)
    }

    fn begin(mut source: Source, read: Arc<AtomicU64>) -> Result<Self, CaptureError> {
        const GZIP: &[u8] = &[0x1f, 0x8b];
        while source.front().len() < GZIP.len() && source.more()? {}
        if source.front().starts_with(GZIP) {
            // Counted where it is compressed.
            source = Source::of(MultiGzDecoder::new(source), &Arc::default());
        }
        let (blocks, header) = loop {
            match Blocks::of(source.front()) {
                Ok(Some(begun)) => break begun,
                Ok(None) => return Err(CaptureError::UnknownFormat),
                Err(_) => lengthen_header(&mut source)?,
            }
        };
        source.consume(header);
        Ok(Self { source, last: 0, offset: header as u64, frames: 0, blocks, read })
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
            self.source.consume(std::mem::take(&mut self.last));
            self.source.settle()?;
            let (length, found) = match self.blocks.next(self.source.front()) {
                Ok(block) => block,
                Err(Halt::More) if self.lengthen()? => continue,
                Err(Halt::More) if self.source.front().is_empty() => return Ok(None),
                Err(Halt::More) => return Err(self.cut_short()),
                Err(Halt::Damage(what)) => return Err(self.damage(what)),
            };
            self.last = length;
            self.offset += length as u64;
            self.source.expect(length);
            if let Some(found) = found {
                self.frames += 1;
                return Ok(Some(found.frame(self.frames, self.source.front())));
            }
        }
    }

    /// Makes more of the file be there; whether there is more.
    fn lengthen(&mut self) -> Result<bool, CaptureError> {
        if self.source.front().len() >= LARGEST_BLOCK {
            return Err(self.damage("a length that no capture file has"));
        }
        self.source.more().map_err(|error| match error.kind() {
            // Compressed, and stopped the hard way.
            ErrorKind::UnexpectedEof => self.cut_short(),
            _ => error.into(),
        })
    }

    fn cut_short(&self) -> CaptureError {
        CaptureError::CutShort { frame: self.frames + 1 }
    }

    fn damage(&self, what: impl Into<String>) -> CaptureError {
        CaptureError::Damaged { frame: self.frames + 1, offset: self.offset, what: what.into() }
    }
}

/// Makes more of a file be there whose header goes on.
fn lengthen_header(source: &mut Source) -> Result<(), CaptureError> {
    if source.front().len() >= LARGEST_BLOCK {
        return Err(CaptureError::UnknownFormat);
    }
    match source.more() {
        Ok(true) => Ok(()),
        Ok(false) => Err(CaptureError::NoHeader),
        // Compressed, and cut short.
        Err(error) if error.kind() == ErrorKind::UnexpectedEof => Err(CaptureError::NoHeader),
        Err(error) => Err(error.into()),
    }
}
