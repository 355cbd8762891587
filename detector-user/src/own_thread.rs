//! A thread with a runtime of its own: for work that is to wait behind no other.
//!
//! Delivery has one, because the tasks of its connections and of its sinks wake each other all the time.
//! Within one thread they take turns; over the threads of a runtime that shares its tasks out, each
//! hand-over may be a system call, and an event costs a quarter more. The admin server has one, because its
//! thread's clock tells what it costs ([`crate::cpu_budget`]).

use std::{io, thread::JoinHandle};

use tokio::runtime::{Builder, EnterGuard, Handle};
use tokio_util::sync::CancellationToken;

/// The running thread. Dropping it ends it, with all its tasks.
pub struct OwnThread {
    handle: Handle,
    stop: CancellationToken,
    thread: Option<JoinHandle<()>>,
}

impl OwnThread {
    /// Starts it.
    ///
    /// # Errors
    /// The operating system's, for want of threads or file descriptors.
    pub fn start(name: &str) -> io::Result<Self> {
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let (handle, stop) = (runtime.handle().clone(), CancellationToken::new());
        let stopped = stop.clone();
        let work = move || {
            runtime.block_on(stopped.cancelled());
            // A system call that hangs, for a file system that does, must not keep the thread.
            runtime.shutdown_background();
        };
        let thread = std::thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self { handle, stop, thread: Some(thread) })
    }

    /// What is spawned while the guard is there runs on this thread.
    pub fn enter(&self) -> EnterGuard<'_> {
        self.handle.enter()
    }

    /// Ends it, and waits for the end. Not for use inside a runtime.
    pub fn stop(mut self) {
        self.stop.cancel();
        let ended = self.thread.take().map(JoinHandle::join);
        if ended.is_some_and(|ended| ended.is_err()) {
            tracing::error!("a thread panicked");
        }
    }
}

impl Drop for OwnThread {
    fn drop(&mut self) {
        self.stop.cancel();
    }
}

#[cfg(test)]
mod tests {
    use std::{sync::mpsc, thread};

    use super::*;

    #[test]
    fn tasks_run_on_the_thread_and_end_with_it() {
        let own = OwnThread::start("own").expect("a thread");
        let (tell, told) = mpsc::channel();
        {
            let _inside = own.enter();
            tokio::spawn(async move {
                let _ = tell.send(thread::current().name().map(str::to_owned));
                std::future::pending::<()>().await;
                drop(tell);
            });
        }
        assert_eq!(told.recv().expect("it ran").as_deref(), Some("own"));
        own.stop();
        assert!(told.recv().is_err(), "the task is gone");
    }
}
