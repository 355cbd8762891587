//! What the stdout and the file sink have in common: one event a line, in the JSON format of
//! CloudEvents 1.0 (structured form).

use std::{
    io::{self, Write},
    sync::{Arc, Mutex, PoisonError},
};

use cloudevents::Event;
use futures::{FutureExt, future::BoxFuture};

use super::sink::{Failure, Sink, unsendable};

/// Something that takes whole lines. After an error it must be ready for the next line.
pub(super) trait LineWriter: Send + 'static {
    /// Writes one line, its end included, and does not return before it is handed on.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()>;
}

/// Writes events as lines, one after the other, off the async threads: a pipe that nobody reads
/// and a slow disk both block.
pub struct LineSink {
    name: String,
    writer: Arc<Mutex<dyn LineWriter>>,
}

impl LineSink {
    pub(super) fn new(name: &str, writer: impl LineWriter) -> Self {
        Self { name: name.to_owned(), writer: Arc::new(Mutex::new(writer)) }
    }

    async fn write(&self, event: &Event) -> Result<(), Failure> {
        let mut line = serde_json::to_vec(event).map_err(unsendable)?;
        line.push(b'\n');
        let writer = self.writer.clone();
        let written = tokio::task::spawn_blocking(move || {
            writer.lock().unwrap_or_else(PoisonError::into_inner).write_line(&line)
        });
        match written.await {
            Ok(Ok(())) => Ok(()),
            Ok(Err(error)) => Err(Failure::Io(error.to_string())),
            Err(error) => Err(Failure::Io(error.to_string())),
        }
    }
}

impl Sink for LineSink {
    fn name(&self) -> &str {
        &self.name
    }

    fn attempt<'a>(&'a self, event: &'a Event) -> BoxFuture<'a, Result<(), Failure>> {
        self.write(event).boxed()
    }
}

/// Lines to a stream that cannot take back what it was given.
pub(super) struct Stream<W> {
    pub(super) writer: W,
    /// The last line was cut by an error.
    pub(super) torn: bool,
}

impl<W: Write + Send + 'static> LineWriter for Stream<W> {
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        if self.torn {
            // Ends the cut line, so that this one can be read.
            self.writer.write_all(b"\n")?;
            self.torn = false;
        }
        let written = self.writer.write_all(line).and_then(|()| self.writer.flush());
        self.torn = written.is_err();
        written
    }
}
