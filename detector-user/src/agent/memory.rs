//! Memory that is needed no longer.

/// Gives it back to the system. At the start: reading the kernel programs and their types takes some
/// 5 MiB, which the allocator would keep, as small pieces that stay in use lie behind them.
pub(super) fn give_back() {
    #[cfg(target_env = "gnu")]
    // SAFETY: it takes no pointer, and may be called at any time on any thread (glibc's manual: MT-Safe).
    unsafe {
        libc::malloc_trim(0);
    }
}
