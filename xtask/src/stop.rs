//! Ctrl-C, SIGTERM and SIGHUP: they only raise a flag. Whoever waits looks at it and returns, so
//! that everything is taken down by the same path as on success.

use std::sync::atomic::{AtomicBool, Ordering};

use anyhow::{Result, bail};
use nix::sys::signal::{SaFlags, SigAction, SigHandler, SigSet, Signal, sigaction};

static ASKED: AtomicBool = AtomicBool::new(false);

extern "C" fn ask(_signal: i32) {
    ASKED.store(true, Ordering::Relaxed);
}

/// Takes the signals over. (Not by blocking them and waiting on a thread: child processes would
/// inherit that they are blocked, and no longer end on SIGTERM.)
pub(crate) fn on_signals() -> Result<()> {
    let action = SigAction::new(SigHandler::Handler(ask), SaFlags::SA_RESTART, SigSet::empty());
    for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
        // SAFETY: the handler does nothing but store to an atomic, which is async-signal-safe.
        unsafe { sigaction(signal, &action) }?;
    }
    Ok(())
}

/// Whether a signal asked to stop.
pub(crate) fn asked() -> bool {
    ASKED.load(Ordering::Relaxed)
}

/// An error once a signal came.
pub(crate) fn check() -> Result<()> {
    if asked() {
        bail!("stopped by a signal; everything was cleaned up");
    }
    Ok(())
}
