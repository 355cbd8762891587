//! Ctrl-C, SIGTERM and SIGHUP: they only raise a flag. Whoever waits looks at it and returns, so
//! that everything is taken down by the same path as on success.

use std::sync::{
    Arc,
    atomic::{AtomicBool, Ordering},
};

use anyhow::{Result, bail};
use nix::sys::signal::{SigSet, Signal};

/// Whether a signal asked to stop.
#[derive(Clone)]
pub(super) struct Stop(Arc<AtomicBool>);

impl Stop {
    /// Takes the signals over. To be called before threads are started, because they inherit that
    /// these signals are blocked; child processes do not (the standard library resets it).
    pub(super) fn on_signals() -> Result<Self> {
        let stop = Self(Arc::default());
        let flag = Arc::clone(&stop.0);
        let mut signals = SigSet::empty();
        for signal in [Signal::SIGINT, Signal::SIGTERM, Signal::SIGHUP] {
            signals.add(signal);
        }
        signals.thread_block()?;
        std::thread::Builder::new().name("signals".into()).spawn(move || {
            while let Ok(signal) = signals.wait() {
                eprintln!("\n==> {signal}: cleaning up");
                flag.store(true, Ordering::Relaxed);
            }
        })?;
        Ok(stop)
    }

    /// An error once a signal came.
    pub(super) fn check(&self) -> Result<()> {
        if self.0.load(Ordering::Relaxed) {
            bail!("stopped by a signal");
        }
        Ok(())
    }
}
