//! The control socket: the admin server for root only, on a UNIX socket. Whoever else can reach it by
//! a wrong mode or a mounted directory is refused by the kernel's word on who they are (`SO_PEERCRED`).

use std::{
    ffi::OsString,
    fs::{self, DirBuilder, File, TryLockError},
    io,
    os::unix::{
        fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt},
        net::{SocketAddr as SocketPath, UnixListener},
    },
    path::{Path, PathBuf},
    time::Duration,
};

use axum::serve::Listener;
use nix::{
    sys::stat::{Mode, umask},
    unistd::geteuid,
};
use thiserror::Error;
use tokio::net::{self, UnixStream, unix::SocketAddr};

/// Where it is unless told otherwise.
pub const DEFAULT_PATH: &str = "/run/detector/detector.sock";

/// After an error that is nobody's fault, as too many open files.
const PAUSE: Duration = Duration::from_secs(1);

/// Why there is no control socket.
#[derive(Debug, Error)]
pub enum SocketError {
    /// Another process serves it.
    #[error("control socket {path}: another agent uses it; give each its own spec.admin.socket", path = .0.display())]
    Taken(PathBuf),
    /// Something that nobody made as a socket is not removed.
    #[error("control socket {path}: is there and no socket; remove it, or choose another spec.admin.socket", path = .0.display())]
    NoSocket(PathBuf),
    /// The system refused.
    #[error("control socket {path}", path = path.display())]
    Io {
        /// Where.
        path: PathBuf,
        /// What it said.
        source: io::Error,
    },
}

/// Bound, and nobody else's as long as this is there.
#[derive(Debug)]
pub struct ControlSocket {
    listener: UnixListener,
    file: OwnFile,
}

/// The socket's file, removed at the end.
#[derive(Debug)]
struct OwnFile {
    path: PathBuf,
    _lock: File,
}

impl Drop for OwnFile {
    fn drop(&mut self) {
        let _ = fs::remove_file(&self.path);
    }
}

impl ControlSocket {
    /// Makes it, and its directory if it must, for this user alone; one that a killed agent left gives
    /// way. Changes the process's umask for a moment: to be called before there are threads.
    ///
    /// # Errors
    /// Another agent uses it, or the file system refuses.
    pub fn bind(path: &Path) -> Result<Self, SocketError> {
        let refuse = |source| SocketError::Io { path: path.to_owned(), source };
        // What cannot be is refused before there is a lock's file beside it.
        SocketPath::from_pathname(path).map_err(refuse)?;
        is_left(path)?;
        let lock = lock(path)?;
        if is_left(path)? {
            fs::remove_file(path).map_err(refuse)?;
        }
        // So that there is no moment in which others could connect.
        let before = umask(Mode::from_bits_truncate(0o177));
        let bound = UnixListener::bind(path);
        umask(before);
        let listener = bound.map_err(refuse)?;
        listener.set_nonblocking(true).map_err(refuse)?;
        Ok(Self { listener, file: OwnFile { path: path.to_owned(), _lock: lock } })
    }

    /// For a server inside a runtime.
    ///
    /// # Errors
    /// The runtime's.
    pub fn listen(self) -> io::Result<OwnersOnly> {
        let Self { listener, file } = self;
        let listener = net::UnixListener::from_std(listener)?;
        Ok(OwnersOnly { listener, own: geteuid().as_raw(), _file: file })
    }
}

/// Whether there is a socket's file, if nothing else is there.
fn is_left(path: &Path) -> Result<bool, SocketError> {
    match fs::symlink_metadata(path) {
        Ok(there) if there.file_type().is_socket() => Ok(true),
        Ok(_) => Err(SocketError::NoSocket(path.to_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(source) => Err(SocketError::Io { path: path.to_owned(), source }),
    }
}

/// A killed agent leaves a file that only its lock tells from a served one.
fn lock(path: &Path) -> Result<File, SocketError> {
    let refuse = |source| SocketError::Io { path: path.to_owned(), source };
    if let Some(directory) = path.parent() {
        DirBuilder::new().recursive(true).mode(0o700).create(directory).map_err(refuse)?;
    }
    let mut beside = OsString::from(path);
    beside.push(".lock");
    let mut open = File::options();
    let lock = open.create(true).append(true).mode(0o600).open(beside).map_err(refuse)?;
    match lock.try_lock() {
        Ok(()) => Ok(lock),
        Err(TryLockError::WouldBlock) => Err(SocketError::Taken(path.to_owned())),
        Err(TryLockError::Error(source)) => Err(refuse(source)),
    }
}

/// Accepts root and the agent's own user.
#[derive(Debug)]
pub struct OwnersOnly {
    listener: net::UnixListener,
    own: u32,
    _file: OwnFile,
}

impl Listener for OwnersOnly {
    type Io = UnixStream;
    type Addr = SocketAddr;

    async fn accept(&mut self) -> (UnixStream, SocketAddr) {
        loop {
            let accepted = self.listener.accept().await;
            let peer = accepted.and_then(|(stream, from)| Ok((stream.peer_cred()?, stream, from)));
            match peer {
                Ok((peer, stream, from)) if may(peer.uid(), self.own) => return (stream, from),
                Ok((peer, ..)) => {
                    let (uid, pid) = (peer.uid(), peer.pid());
                    tracing::warn!(
                        uid,
                        pid,
                        "a user who is not root was refused at the control socket"
                    );
                }
                Err(error) => {
                    tracing::warn!(%error, "control socket");
                    tokio::time::sleep(PAUSE).await;
                }
            }
        }
    }

    fn local_addr(&self) -> io::Result<SocketAddr> {
        self.listener.local_addr()
    }
}

fn may(peer: u32, own: u32) -> bool {
    peer == 0 || peer == own
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    #[tokio::test]
    async fn it_is_for_its_owner_alone_and_gone_afterwards() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("run/detector.sock");
        let socket = ControlSocket::bind(&path).unwrap();
        let mode = |path: &Path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
        assert_eq!(mode(&path), 0o600);
        assert_eq!(mode(path.parent().unwrap()), 0o700);
        let mut listener = socket.listen().unwrap();
        let (accepted, connected) = tokio::join!(listener.accept(), UnixStream::connect(&path));
        assert_eq!(accepted.0.peer_cred().unwrap().uid(), geteuid().as_raw());
        connected.unwrap();
        drop(listener);
        assert!(!path.exists());
    }

    #[test]
    fn root_and_the_agents_own_user_may_and_nobody_else() {
        assert!(may(0, 1_000) && may(1_000, 1_000) && may(0, 0));
        assert!(!may(1_001, 1_000) && !may(1_000, 0));
    }

    #[test]
    fn two_agents_do_not_share_one_and_what_a_killed_one_left_gives_way() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("detector.sock");
        let first = ControlSocket::bind(&path).unwrap();
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::Taken(_))));
        drop(first);
        // A killed agent: the file stays, the lock does not.
        drop(UnixListener::bind(&path).unwrap());
        assert!(path.exists());
        ControlSocket::bind(&path).unwrap();
    }

    #[test]
    fn what_is_no_socket_is_not_removed() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("notes.txt");
        fs::write(&path, "mine").unwrap();
        let refused = ControlSocket::bind(&path).unwrap_err().to_string();
        assert!(refused.contains("is there and no socket"), "{refused}");
        assert_eq!(fs::read(&path).unwrap(), b"mine");
        assert_eq!(
            fs::read_dir(directory.path()).unwrap().count(),
            1,
            "and nothing is left beside it"
        );
    }

    #[test]
    fn a_path_that_no_socket_can_have_is_refused_and_nothing_is_made() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("s".repeat(108));
        assert!(matches!(ControlSocket::bind(&path), Err(SocketError::Io { .. })));
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 0);
    }
}
