//! Events at the end of a file, one a line; begun anew when it gets too big.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, Write},
    path::{Path, PathBuf},
};

use super::lines::{LineSink, LineWriter};

impl LineSink {
    /// One event a line at the end of the file, which is made if it is not there. Before it would
    /// get bigger than `max_bytes` it is renamed to `PATH.1`, that to `PATH.2` and so on; `keep` of
    /// them stay.
    ///
    /// # Errors
    /// It cannot be opened for appending.
    pub fn append(
        name: &str,
        path: &Path,
        max_bytes: Option<u64>,
        keep: usize,
    ) -> io::Result<Self> {
        let file = open(path)?;
        Ok(Self::new(name, Appender { path: path.to_owned(), file, max_bytes, keep }))
    }
}

fn open(path: &Path) -> io::Result<File> {
    OpenOptions::new().append(true).create(true).open(path)
}

struct Appender {
    path: PathBuf,
    file: File,
    max_bytes: Option<u64>,
    keep: usize,
}

impl Appender {
    fn rotate(&mut self) -> io::Result<()> {
        let numbered = |number: usize| {
            let mut name = self.path.as_os_str().to_owned();
            name.push(format!(".{number}"));
            PathBuf::from(name)
        };
        for number in (1..self.keep).rev() {
            match fs::rename(numbered(number), numbered(number + 1)) {
                Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        match self.keep {
            0 => fs::remove_file(&self.path)?,
            _ => fs::rename(&self.path, numbered(1))?,
        }
        self.file = open(&self.path)?;
        Ok(())
    }
}

impl LineWriter for Appender {
    /// A line that could be written in part only (a full disk) is taken back, so that the file
    /// holds whole events at all times. Nobody else may write to it meanwhile.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.file.metadata()?;
        let (is_file, length) = (before.is_file(), before.len());
        if self
            .max_bytes
            .is_some_and(|max| is_file && length > 0 && length + line.len() as u64 > max)
        {
            self.rotate()?;
            return self.file.write_all(line);
        }
        self.file.write_all(line).inspect_err(|_| {
            if is_file && let Err(error) = self.file.set_len(length) {
                tracing::error!(%error, "cannot take back an event that was cut");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::{AttributesReader, Event, EventBuilder, EventBuilderV10};

    use super::*;
    use crate::deliver::{
        http::HttpSettings,
        sink::{Failure, Sink, Target},
    };

    fn ids(path: &Path) -> Vec<String> {
        let text = fs::read_to_string(path).unwrap();
        let id = |line: &str| serde_json::from_str::<Event>(line).unwrap().id().to_owned();
        text.lines().map(id).collect()
    }

    #[tokio::test]
    async fn events_are_appended_one_a_line_in_structured_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let events = [Event::default(), Event::default()];
        for event in &events {
            // Opened anew each time: an agent that starts again keeps what is there.
            LineSink::append("file", &path, None, 0).unwrap().attempt(event).await.unwrap();
        }
        let text = fs::read_to_string(&path).unwrap();
        let read: Vec<Event> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events);
    }

    #[tokio::test]
    async fn a_file_that_gets_too_big_is_begun_anew_and_so_many_old_ones_stay() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let event =
            |id: usize| EventBuilderV10::new().id(id.to_string()).source("/s").ty("t").build();
        let line = serde_json::to_vec(&event(0).unwrap()).unwrap().len() as u64 + 1;
        let sink = LineSink::append("file", &path, Some(2 * line), 2).unwrap();
        for id in 0..9 {
            sink.attempt(&event(id).unwrap()).await.unwrap();
        }
        assert_eq!(ids(&path), ["8"]);
        assert_eq!(ids(&directory.path().join("events.jsonl.1")), ["6", "7"]);
        assert_eq!(ids(&directory.path().join("events.jsonl.2")), ["4", "5"]);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 3);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let target: Target = "file:/nowhere/events.jsonl".parse().unwrap();
        let message = target.open("file", &HttpSettings::default()).err().unwrap().to_string();
        assert!(message.contains("/nowhere/events.jsonl"), "{message}");
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_as_a_failure() {
        let sink = LineSink::append("file", Path::new("/dev/full"), None, 0).unwrap();
        let failure = sink.attempt(&Event::default()).await.unwrap_err();
        assert!(matches!(&failure, Failure::Io(why) if why.contains("No space")), "{failure}");
    }
}
