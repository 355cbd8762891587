//! Events at the end of a file, one a line.

use std::{
    fs::{File, OpenOptions},
    io::{self, Write},
    path::Path,
};

use super::lines::{LineSink, LineWriter};

impl LineSink {
    /// One event a line at the end of the file, which is made if it is not there.
    pub fn append(path: &Path) -> io::Result<Self> {
        Ok(Self::new("file", Appender(OpenOptions::new().append(true).create(true).open(path)?)))
    }
}

struct Appender(File);

impl LineWriter for Appender {
    /// A line that could be written in part only (a full disk) is taken back, so that the file
    /// holds whole events at all times. Nobody else may write to it meanwhile.
    fn write_line(&mut self, line: &[u8]) -> io::Result<()> {
        let before = self.0.metadata()?;
        self.0.write_all(line).inspect_err(|_| {
            if before.is_file()
                && let Err(error) = self.0.set_len(before.len())
            {
                tracing::error!(%error, "cannot take back an event that was cut");
            }
        })
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::Event;

    use super::*;
    use crate::deliver::{
        http::HttpSettings,
        sink::{Failure, Sink, Target},
    };

    #[tokio::test]
    async fn events_are_appended_one_a_line_in_structured_form() {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("events.jsonl");
        let events = [Event::default(), Event::default()];
        for event in &events {
            // Opened anew each time: an agent that starts again keeps what is there.
            LineSink::append(&path).unwrap().attempt(event).await.unwrap();
        }
        let text = std::fs::read_to_string(&path).unwrap();
        let read: Vec<Event> =
            text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
        assert_eq!(read, events);
    }

    #[test]
    fn a_file_that_cannot_be_opened_is_named() {
        let target = Target::File("/nowhere/events.jsonl".into());
        let message = target.open(&HttpSettings::default()).err().unwrap().to_string();
        assert!(message.contains("/nowhere/events.jsonl"), "{message}");
    }

    #[tokio::test]
    async fn a_full_disk_is_reported_as_a_failure() {
        let sink = LineSink::append(Path::new("/dev/full")).unwrap();
        let failure = sink.attempt(&Event::default()).await.unwrap_err();
        assert!(matches!(&failure, Failure::Io(why) if why.contains("No space")), "{failure}");
    }
}
