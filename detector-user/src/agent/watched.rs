//! The admin server on its thread: whoever watches the agent never waits behind its work.

use std::{io, net};

use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use crate::{
    admin::{Admin, socket::ControlSocket},
    own_thread::OwnThread,
};

/// The running server.
pub(super) struct Watched(OwnThread);

impl Watched {
    /// Serves on both.
    pub(super) fn start(
        admin: Admin,
        listener: net::TcpListener,
        control: Option<ControlSocket>,
    ) -> io::Result<Self> {
        let thread = OwnThread::start("admin")?;
        let inside = thread.enter();
        // They end with their thread, and with them connections and the control socket.
        let never = CancellationToken::new();
        if let Some(control) = control {
            admin.clone().start(control.listen()?, never.clone());
        }
        admin.start(TcpListener::from_std(listener)?, never);
        drop(inside);
        Ok(Self(thread))
    }

    /// Ends it, and waits for the end. Not for use inside a runtime.
    pub(super) fn stop(self) {
        self.0.stop();
    }
}
