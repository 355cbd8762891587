//! The admin server's thread. It has one for itself: whoever watches the agent never waits behind its
//! work, and what they cost is told by the thread's clock ([`crate::cpu_budget`]).

use std::{net, sync::mpsc, thread::JoinHandle};

use anyhow::Context as _;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::admin::{Admin, socket::ControlSocket};

/// The running server.
pub(super) struct Watched {
    stop: CancellationToken,
    thread: JoinHandle<()>,
}

impl Watched {
    /// Serves on both.
    pub(super) fn start(
        admin: Admin,
        listener: net::TcpListener,
        control: Option<ControlSocket>,
    ) -> anyhow::Result<Self> {
        let stop = CancellationToken::new();
        let stopped = stop.clone();
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build()?;
        let (tell, told) = mpsc::channel();
        let work = async move {
            let begun = serve(admin, listener, control, &stopped);
            let serves = begun.is_ok();
            // Somebody waits for it.
            let _ = tell.send(begun);
            if serves {
                stopped.cancelled().await;
            }
        };
        // The runtime ends with its thread, and with it connections and the control socket.
        let thread = std::thread::Builder::new().name("admin".to_owned());
        let thread = thread.spawn(move || runtime.block_on(work))?;
        told.recv().context("the admin server's thread")??;
        Ok(Self { stop, thread })
    }

    /// Ends it, and waits for the end. Not for use inside a runtime.
    pub(super) fn stop(self) {
        self.stop.cancel();
        if self.thread.join().is_err() {
            tracing::error!("the admin server's thread panicked");
        }
    }
}

fn serve(
    admin: Admin,
    listener: net::TcpListener,
    control: Option<ControlSocket>,
    stop: &CancellationToken,
) -> anyhow::Result<()> {
    if let Some(control) = control {
        admin.clone().start(control.listen()?, stop.clone());
    }
    admin.start(TcpListener::from_std(listener)?, stop.clone());
    Ok(())
}
