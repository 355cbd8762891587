//! The dead letter file: events that a sink will not take, with the reason and the answer, one JSON
//! object a line. The agent adds at the end; `detector dlq` takes out. Both hold a lock while they do,
//! and taking out replaces the file as a whole, so that it is good at all times.

use std::{
    fs::{self, File, OpenOptions},
    io::{self, BufRead, BufReader, Seek, SeekFrom, Write},
    os::unix::fs::OpenOptionsExt,
    path::{Path, PathBuf},
};

use cloudevents::Event;
use nix::fcntl::{Flock, FlockArg};
use serde::{Deserialize, Serialize};

/// One line.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DeadLetter {
    /// When it was given up (RFC 3339, UTC).
    pub at: String,
    /// The sink that did not take it.
    pub sink: String,
    /// The rule that made it.
    pub rule: String,
    /// `rejected` or `exhausted`.
    pub outcome: String,
    /// What the sink answered last, or why there was no answer.
    pub reason: String,
    /// How often it was tried.
    pub attempts: u32,
    /// The event, in the JSON format of CloudEvents.
    pub event: Event,
}

/// A sink's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadLetters {
    path: PathBuf,
    max_bytes: u64,
}

impl DeadLetters {
    /// The file of a sink, which is made when the first letter comes. It never gets longer than
    /// `max_bytes`.
    pub fn new(path: PathBuf, max_bytes: u64) -> Self {
        Self { path, max_bytes }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// Adds a letter, which is on the disk when this returns.
    ///
    /// # Errors
    /// The file is full, or the disk's.
    pub fn add(&self, letter: &DeadLetter) -> io::Result<()> {
        let _lock = self.lock()?;
        let mut file = private().read(true).append(true).open(&self.path)?;
        let length = file.metadata()?.len();
        let mut line = serde_json::to_vec(letter)?;
        line.push(b'\n');
        if length > 0 && !ends_a_line(&mut file)? {
            // What a power loss cut ends here, and spoils only itself.
            line.insert(0, b'\n');
        }
        if length + line.len() as u64 > self.max_bytes {
            return Err(io::Error::new(
                io::ErrorKind::FileTooLarge,
                "the dead letter file is full",
            ));
        }
        let written = file.write_all(&line).and_then(|()| file.sync_data());
        written.inspect_err(|_| {
            // A part of a line would be read as damage.
            let _ = file.set_len(length);
        })
    }

    /// All letters in the order they came, and how many lines are none.
    ///
    /// # Errors
    /// The file cannot be read. That there is none is no error.
    pub fn read(&self) -> io::Result<(Vec<DeadLetter>, usize)> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok((vec![], 0)),
            Err(error) => return Err(error),
        };
        let (mut letters, mut damaged) = (Vec::new(), 0);
        for line in BufReader::new(file).split(b'\n') {
            let line = line?;
            if line.is_empty() {
                continue;
            }
            match serde_json::from_slice(&line) {
                Ok(letter) => letters.push(letter),
                Err(_) => damaged += 1,
            }
        }
        Ok((letters, damaged))
    }

    /// Takes out the letters for which `out` says so; lines that are none stay. How many.
    ///
    /// # Errors
    /// The disk's; the file is then as it was.
    pub fn take_out(&self, mut out: impl FnMut(&DeadLetter) -> bool) -> io::Result<usize> {
        let _lock = self.lock()?;
        let text = match fs::read(&self.path) {
            Ok(text) => text,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(0),
            Err(error) => return Err(error),
        };
        let (mut stay, mut taken) = (Vec::with_capacity(text.len()), 0);
        for line in text.split_inclusive(|byte| *byte == b'\n') {
            match serde_json::from_slice::<DeadLetter>(line) {
                Ok(letter) if out(&letter) => taken += 1,
                Ok(_) | Err(_) => stay.extend_from_slice(line),
            }
        }
        if taken > 0 {
            let new = self.beside(".new");
            let mut file = private().write(true).truncate(true).open(&new)?;
            file.write_all(&stay)?;
            file.sync_all()?;
            fs::rename(&new, &self.path)?;
        }
        Ok(taken)
    }

    fn lock(&self) -> io::Result<Flock<File>> {
        if let Some(directory) = self.path.parent() {
            fs::create_dir_all(directory)?;
        }
        let file = private().append(true).open(self.beside(".lock"))?;
        Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, error)| error.into())
    }

    fn beside(&self, suffix: &str) -> PathBuf {
        let mut name = self.path.as_os_str().to_owned();
        name.push(suffix);
        name.into()
    }
}

/// Events say what people do: for the agent's user only.
fn private() -> OpenOptions {
    let mut options = OpenOptions::new();
    options.create(true).mode(0o600);
    options
}

fn ends_a_line(file: &mut File) -> io::Result<bool> {
    use std::io::Read;
    file.seek(SeekFrom::End(-1))?;
    let mut last = [0];
    file.read_exact(&mut last)?;
    Ok(last == *b"\n")
}

#[cfg(test)]
mod tests {
    use cloudevents::{AttributesReader, EventBuilder, EventBuilderV10};

    use super::*;

    fn letter(id: &str) -> DeadLetter {
        DeadLetter {
            at: "2026-06-19T12:00:00Z".into(),
            sink: "http".into(),
            rule: "press".into(),
            outcome: "rejected".into(),
            reason: "answered 400 Bad Request".into(),
            attempts: 1,
            event: EventBuilderV10::new().id(id).source("/s").ty("t").build().unwrap(),
        }
    }

    fn ids(letters: &DeadLetters) -> Vec<String> {
        let (letters, _) = letters.read().unwrap();
        letters.iter().map(|letter| letter.event.id().to_owned()).collect()
    }

    fn new(max_bytes: u64) -> (tempfile::TempDir, DeadLetters) {
        let directory = tempfile::tempdir().unwrap();
        let letters = DeadLetters::new(directory.path().join("a/dead.jsonl"), max_bytes);
        (directory, letters)
    }

    #[test]
    fn letters_are_added_read_and_taken_out() {
        let (_directory, letters) = new(1 << 20);
        assert_eq!(letters.read().unwrap(), (vec![], 0), "no file yet");
        for id in ["1", "2", "3"] {
            letters.add(&letter(id)).unwrap();
        }
        assert_eq!(letters.read().unwrap().0[1], letter("2"));
        assert_eq!(letters.take_out(|letter| letter.event.id() == "2").unwrap(), 1);
        letters.add(&letter("4")).unwrap();
        assert_eq!(ids(&letters), ["1", "3", "4"]);
    }

    #[test]
    fn a_line_cut_by_a_power_loss_spoils_only_itself() {
        let (_directory, letters) = new(1 << 20);
        letters.add(&letter("1")).unwrap();
        letters.add(&letter("2")).unwrap();
        let length = fs::metadata(letters.path()).unwrap().len();
        let file = OpenOptions::new().write(true).open(letters.path()).unwrap();
        file.set_len(length - 9).unwrap();
        letters.add(&letter("3")).unwrap();
        assert_eq!((ids(&letters), letters.read().unwrap().1), (vec!["1".into(), "3".into()], 1));
        letters.take_out(|letter| letter.event.id() == "1").unwrap();
        assert_eq!((ids(&letters), letters.read().unwrap().1), (vec!["3".into()], 1));
    }

    #[test]
    fn a_full_file_takes_no_more_and_keeps_what_it_has() {
        let (_directory, letters) = new(500);
        let full = (0..9).find_map(|i| letters.add(&letter(&i.to_string())).err()).unwrap();
        assert!(full.to_string().contains("full"), "{full}");
        assert_eq!(ids(&letters), ["0", "1"]);
    }
}
