//! Ends what other threads of a test do.

use std::sync::atomic::{AtomicBool, Ordering};

/// Sets the flag when dropped, so also when the test fails: a scope waits for its threads.
pub(crate) struct Stop<'s>(pub(crate) &'s AtomicBool);

impl Drop for Stop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
