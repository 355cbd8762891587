//! A capture file in memory, window by window: without the copy that read(2) makes, which costs more time
//! than all the rest of reading.
//!
//! A mapped file that is cut is a SIGBUS, and one that is written to changes bytes that Rust takes for
//! constant. So a file is mapped only under a read lease (fcntl(2), `F_SETLEASE`), which the kernel gives
//! where nobody has the file open for writing: whoever opens it for writing, or cuts it, then waits until
//! the lease is given back, at most `/proc/sys/fs/lease-break-time` (45 s), and this process has a SIGIO
//! at once. From the next frame on the file is read. Where there is no lease (another's file, one that is
//! being written, a file system of the network), it is read from the start.

use std::{
    fs::File,
    io::{self, Seek, SeekFrom},
    num::NonZeroUsize,
    os::fd::{AsFd, AsRawFd},
    ptr::NonNull,
    sync::{
        Arc,
        atomic::{AtomicU32, AtomicU64, Ordering},
    },
};

use nix::{
    libc,
    sys::{
        mman::{MapFlags, MmapAdvise, ProtFlags, madvise, mmap, munmap},
        signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction},
        statfs::{self, FsType, fstatfs},
    },
};

/// Bytes that are mapped at a time: much for each call, little in memory. Longer blocks make it larger.
const WINDOW: usize = 4 << 20;
/// A window begins where a page does; 64 KiB is the largest that Linux has.
const PAGE: u64 = 64 << 10;

/// How often the kernel asked for a lease back.
static RECALLS: AtomicU32 = AtomicU32::new(0);

/// A file under a read lease, a window of which is mapped.
pub(super) struct Mapped {
    window: Window,
    /// Where the window begins in the file.
    start: u64,
    /// How much of the window is read.
    at: usize,
    lease: Lease,
    /// Where the file ends: while the lease lasts, it stays there.
    end: u64,
    read: Arc<AtomicU64>,
}

impl Mapped {
    /// Maps the file's beginning, where that is safe. `read` is told how far it was read.
    pub(super) fn new(file: &File, read: Arc<AtomicU64>) -> Option<Self> {
        let lease = Lease::take(file)?;
        let end = lease.file.metadata().ok()?.len();
        let window = Window::new(&lease, 0, end.min(WINDOW as u64))?;
        Some(Self { window, start: 0, at: 0, lease, end, read })
    }

    /// Whether the kernel has asked for the lease back.
    pub(super) fn is_recalled(&self) -> bool {
        self.lease.is_recalled()
    }

    pub(super) fn front(&self) -> &[u8] {
        &self.window.bytes()[self.at..]
    }

    pub(super) fn consume(&mut self, count: usize) {
        self.at = self.window.length.min(self.at + count);
    }

    /// What stands so far behind the front's start is needed soon. Nobody else has brought it from memory
    /// into the cache, as a copy would: to wait for it, frame by frame, took longer than to copy it all.
    #[inline]
    pub(super) fn expect(&self, distance: usize) {
        // A header of the file's own, Ethernet, IPv4 and TCP.
        const LINES: [usize; 2] = [0, 64];
        for line in LINES {
            if let Some(byte) = self.front().get(distance + line) {
                prefetch(byte);
            }
        }
    }

    /// Maps the next window, or one that is longer; whether there is more. `None` where it cannot be
    /// mapped.
    pub(super) fn more(&mut self) -> Option<bool> {
        let at = self.position();
        if self.start + self.window.length as u64 == self.end {
            return Some(false);
        }
        let start = at - at % PAGE;
        let unread = self.front().len();
        let length = (self.end - start).min((WINDOW.max(unread * 2) as u64) + PAGE);
        self.window = Window::new(&self.lease, start, length)?;
        self.start = start;
        self.at = (at - start) as usize;
        self.read.store(at, Ordering::Relaxed);
        Some(true)
    }

    /// The file from where it was read to, to be read on, and its count.
    ///
    /// # Errors
    /// When there is no such place.
    pub(super) fn reopen(&mut self) -> io::Result<(File, Arc<AtomicU64>)> {
        // A copy of the descriptor: the lease ends with the last of them, or when it is given back.
        let mut file = self.lease.file.try_clone()?;
        let at = self.position();
        file.seek(SeekFrom::Start(at))?;
        self.read.store(at, Ordering::Relaxed);
        Ok((file, self.read.clone()))
    }

    fn position(&self) -> u64 {
        self.start + self.at as u64
    }
}

/// Pages of a file in memory.
struct Window {
    address: NonNull<libc::c_void>,
    length: usize,
}

// SAFETY: the mapping belongs to this value alone, and nothing writes to it.
unsafe impl Send for Window {}

impl Window {
    /// `None` where it cannot be had whole, read errors of the disk included: nobody shall find them by a
    /// SIGBUS.
    fn new(lease: &Lease, start: u64, length: u64) -> Option<Self> {
        let length = NonZeroUsize::new(usize::try_from(length).ok()?)?;
        let start = i64::try_from(start).ok()?;
        // SAFETY: a new mapping, at an address that the kernel chooses.
        let mapped = unsafe {
            mmap(
                None,
                length,
                ProtFlags::PROT_READ,
                MapFlags::MAP_PRIVATE,
                lease.file.as_fd(),
                start,
            )
        };
        let window = Self { address: mapped.ok()?, length: length.get() };
        for advice in [MmapAdvise::MADV_SEQUENTIAL, MmapAdvise::MADV_POPULATE_READ] {
            // SAFETY: all of the mapping, which is this value's own; neither changes what it holds.
            unsafe { madvise(window.address, window.length, advice) }.ok()?;
        }
        Some(window)
    }

    fn bytes(&self) -> &[u8] {
        // SAFETY: mapped readable and whole as long as `self` lives, and unchanged: nobody writes to the
        // file while the lease lasts, and after its recall nobody comes here (`Source::settle`) unless a
        // single frame takes longer than the kernel waits.
        unsafe { std::slice::from_raw_parts(self.address.as_ptr().cast(), self.length) }
    }
}

impl Drop for Window {
    fn drop(&mut self) {
        // SAFETY: mapped by `new` in this length, and nobody has a reference that outlives `self`.
        let _cannot_fail = unsafe { munmap(self.address, self.length) };
    }
}

#[cfg(target_arch = "x86_64")]
#[inline]
fn prefetch(byte: &u8) {
    use std::arch::x86_64::{_MM_HINT_T0, _mm_prefetch};
    // SAFETY: every x86-64 has the instruction (SSE), and it changes nothing that a program can see.
    unsafe { _mm_prefetch::<_MM_HINT_T0>(std::ptr::from_ref(byte).cast()) };
}

/// Stable Rust knows none here.
#[cfg(not(target_arch = "x86_64"))]
#[inline]
fn prefetch(_byte: &u8) {}

/// A read lease on a file.
struct Lease {
    file: File,
    /// [`RECALLS`] before it was given.
    recalls: u32,
}

impl Lease {
    /// `None` where the kernel gives none, or where more than this kernel may change the file.
    fn take(file: &File) -> Option<Self> {
        if !is_local(file) {
            return None;
        }
        note_recalls().ok()?;
        let lease = Self { file: file.try_clone().ok()?, recalls: RECALLS.load(Ordering::Relaxed) };
        lease.set(libc::F_RDLCK).ok()?;
        Some(lease)
    }

    fn is_recalled(&self) -> bool {
        RECALLS.load(Ordering::Relaxed) != self.recalls
    }

    fn set(&self, kind: libc::c_int) -> io::Result<()> {
        // SAFETY: an open descriptor, and a command whose argument is a number.
        match unsafe { libc::fcntl(self.file.as_raw_fd(), libc::F_SETLEASE, kind) } {
            -1 => Err(io::Error::last_os_error()),
            _ => Ok(()),
        }
    }
}

impl Drop for Lease {
    fn drop(&mut self) {
        // It fails if there is none any more.
        let _given_back = self.set(libc::F_UNLCK);
    }
}

/// Whether the file system is this machine's alone: one of the network may change a file without this
/// kernel's knowledge, whatever lease it gave.
fn is_local(file: &File) -> bool {
    const LOCAL: [FsType; 5] = [
        statfs::EXT4_SUPER_MAGIC, // and ext2, ext3
        statfs::XFS_SUPER_MAGIC,
        statfs::BTRFS_SUPER_MAGIC,
        statfs::TMPFS_MAGIC,
        statfs::OVERLAYFS_SUPER_MAGIC,
    ];
    fstatfs(file).is_ok_and(|about| LOCAL.contains(&about.filesystem_type()))
}

/// Counts SIGIO from here on, which would end the process.
fn note_recalls() -> nix::Result<()> {
    extern "C" fn note(_signal: libc::c_int) {
        RECALLS.fetch_add(1, Ordering::Relaxed);
    }
    let action = SigAction::new(SigHandler::Handler(note), SaFlags::SA_RESTART, SigSet::empty());
    // SAFETY: the handler does nothing but count, and nobody else here handles SIGIO.
    unsafe { sigaction(Signal::SIGIO, &action) }.map(drop)
}

#[cfg(test)]
mod tests {
    use std::{
        fs::OpenOptions,
        io::{Read as _, Write as _},
        thread,
    };

    use super::super::source::Source;
    use super::*;

    /// Windows that the file takes.
    const WINDOWS: usize = 3;

    /// A file of more than one window.
    fn file() -> (tempfile::NamedTempFile, Vec<u8>) {
        let bytes: Vec<u8> = (0..WINDOWS * WINDOW).map(|at| (at / 7) as u8).collect();
        let mut file = tempfile::NamedTempFile::new().expect("a file");
        file.write_all(&bytes).expect("room on disk");
        let (_writer, path) = file.into_parts();
        let file =
            tempfile::NamedTempFile::from_parts(File::open(&path).expect("it is there"), path);
        (file, bytes)
    }

    fn mapped(file: &tempfile::NamedTempFile) -> Source {
        match Mapped::new(file.as_file(), Arc::default()) {
            Some(mapped) => Source::Mapped(mapped),
            None => panic!("no lease on a file of one's own that nobody writes to"),
        }
    }

    fn rest(source: &mut Source) -> Vec<u8> {
        let mut bytes = Vec::new();
        source.read_to_end(&mut bytes).expect("it can be read");
        bytes
    }

    #[test]
    fn a_file_is_read_window_by_window_whatever_was_left_of_the_one_before() {
        let (file, bytes) = file();
        let mut source = mapped(&file);
        let mut at = 0;
        while source.more().expect("it can be mapped") {
            assert!(bytes[at..].starts_with(source.front()));
            let step = source.front().len() - 5;
            source.consume(step);
            at += step;
        }
        assert_eq!(source.front(), &bytes[at..]);
    }

    #[test]
    fn a_file_that_somebody_writes_to_is_not_mapped() {
        let (file, _) = file();
        let _writer = OpenOptions::new().append(true).open(file.path()).expect("it is there");
        assert!(Mapped::new(file.as_file(), Arc::default()).is_none());
    }

    #[test]
    fn who_wants_to_write_waits_until_the_next_frame_and_the_file_is_read_on() {
        let (file, bytes) = file();
        let mut source = mapped(&file);
        source.consume(1_000);
        let path = file.path().to_owned();
        let writer = thread::spawn(move || OpenOptions::new().append(true).open(path).map(drop));
        while !matches!(&source, Source::Mapped(mapped) if mapped.is_recalled()) {
            thread::yield_now();
        }
        source.settle().expect("it can be read");
        writer.join().expect("no panic").expect("it is there");
        assert!(matches!(source, Source::Stream(_)));
        assert!(rest(&mut source) == bytes[1_000..]);
    }

    #[test]
    fn a_file_that_is_cut_while_it_is_read_ends_there() {
        let (file, bytes) = file();
        let mut source = mapped(&file);
        source.consume(1_000);
        let path = file.path().to_owned();
        let writer = thread::spawn(move || {
            OpenOptions::new().write(true).open(path).and_then(|file| file.set_len(2_000))
        });
        while matches!(source, Source::Mapped(_)) {
            source.settle().expect("it can be read");
            thread::yield_now();
        }
        writer.join().expect("no panic").expect("it can be cut");
        assert!(rest(&mut source) == bytes[1_000..2_000]);
    }
}
