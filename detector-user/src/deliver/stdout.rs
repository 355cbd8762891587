//! Events on standard output, for a look at them and for pipes. Logs go to standard error.

use std::io;

use super::lines::{LineSink, Stream};

impl LineSink {
    /// One event a line on standard output.
    pub fn stdout(name: &str) -> Self {
        Self::new(name, Stream { writer: io::stdout(), torn: false })
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Write,
        sync::{Arc, Mutex},
    };

    use cloudevents::Event;

    use super::*;
    use crate::deliver::sink::{Failure, Sink};

    /// A pipe whose reader fails in the middle of the second write.
    #[derive(Clone, Default)]
    struct Pipe {
        taken: Arc<Mutex<Vec<u8>>>,
        writes: Arc<Mutex<u32>>,
    }

    impl Write for Pipe {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            let mut writes = self.writes.lock().unwrap();
            *writes += 1;
            let room = match *writes {
                2 => 10,
                3 => return Err(io::ErrorKind::BrokenPipe.into()),
                _ => bytes.len(),
            };
            self.taken.lock().unwrap().extend_from_slice(&bytes[..room]);
            Ok(room)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    #[tokio::test]
    async fn a_line_that_was_cut_does_not_spoil_the_next_one() {
        let pipe = Pipe::default();
        let sink = LineSink::new("stdout", Stream { writer: pipe.clone(), torn: false });
        let event = Event::default();
        assert_eq!(sink.attempt(&event).await, Ok(()));
        assert!(matches!(sink.attempt(&event).await, Err(Failure::Io(_))));
        assert_eq!(sink.attempt(&event).await, Ok(()));
        let text = String::from_utf8(pipe.taken.lock().unwrap().clone()).unwrap();
        let whole: Vec<bool> =
            text.lines().map(|line| serde_json::from_str::<Event>(line).is_ok()).collect();
        assert_eq!(whole, [true, false, true], "{text}");
    }
}
