//! Memory of maps that this process shares with the kernel.

use std::{
    num::NonZeroUsize,
    os::fd::BorrowedFd,
    ptr::NonNull,
    sync::atomic::{AtomicU32, AtomicUsize},
};

use aya::maps::MapError;
use nix::sys::mman::{MapFlags, ProtFlags, mmap, munmap};

/// Memory shared with the kernel.
pub(super) struct Mapping {
    at: NonNull<u8>,
    length: usize,
}

// SAFETY: the memory belongs to no thread; what is written through a shared reference is an atomic word.
unsafe impl Send for Mapping {}

impl Mapping {
    /// # Errors
    /// When the kernel refuses.
    pub(super) fn new(
        fd: BorrowedFd<'_>,
        length: usize,
        protection: ProtFlags,
        offset: usize,
    ) -> Result<Self, MapError> {
        let refused = |error: nix::Error| MapError::IoError(error.into());
        let whole = NonZeroUsize::new(length).ok_or_else(|| refused(nix::Error::EINVAL))?;
        let offset = libc::off_t::try_from(offset).map_err(|_| refused(nix::Error::EINVAL))?;
        // SAFETY: a new mapping, of whose memory nobody else knows.
        let at = unsafe { mmap(None, whole, protection, MapFlags::MAP_SHARED, fd, offset) };
        Ok(Self { at: at.map_err(refused)?.cast(), length })
    }

    /// The word at the begin of a page of positions.
    pub(super) fn position(&self) -> &AtomicUsize {
        // SAFETY: a page begins aligned, is longer than a word, and lives as long as `self`; the
        // kernel accesses the word atomically too.
        unsafe { self.at.cast::<AtomicUsize>().as_ref() }
    }

    /// The word at an offset; `None` outside.
    pub(super) fn word(&self, offset: usize) -> Option<&AtomicU32> {
        let inside = offset.checked_add(size_of::<AtomicU32>())? <= self.length;
        // SAFETY: inside the mapping and aligned, as records begin at multiples of 8.
        (inside && offset.is_multiple_of(8))
            .then(|| unsafe { self.at.add(offset).cast::<AtomicU32>().as_ref() })
    }

    /// Bytes that nobody writes meanwhile: of a record, which the kernel does not write to until its place is
    /// released, or of tables, which no program writes to; `None` outside.
    pub(super) fn bytes(&self, offset: usize, length: usize) -> Option<&[u8]> {
        let inside = offset.checked_add(length)? <= self.length;
        // SAFETY: inside the mapping. `Ring` is borrowed anew to release a record, `SlotMap` to write tables.
        inside.then(|| unsafe {
            std::slice::from_raw_parts(self.at.add(offset).as_ptr().cast_const(), length)
        })
    }

    /// Puts bytes to an offset; whether they are inside. The mapping was made to be written to.
    pub(super) fn write(&mut self, offset: usize, bytes: &[u8]) -> bool {
        let inside = offset.checked_add(bytes.len()).is_some_and(|end| end <= self.length);
        if inside {
            // SAFETY: inside the mapping, to which no reference is held.
            unsafe {
                self.at
                    .add(offset)
                    .copy_from_nonoverlapping(NonNull::from(bytes).cast(), bytes.len())
            };
        }
        inside
    }
}

impl Drop for Mapping {
    fn drop(&mut self) {
        // SAFETY: mapped by `new`; no reference outlives `self`.
        let _ = unsafe { munmap(self.at.cast(), self.length) };
    }
}

/// Bytes of a page, at multiples of which mappings begin.
pub(super) fn page_size() -> usize {
    let size = nix::unistd::sysconf(nix::unistd::SysconfVar::PAGE_SIZE);
    size.ok().flatten().and_then(|size| usize::try_from(size).ok()).unwrap_or(4096)
}
