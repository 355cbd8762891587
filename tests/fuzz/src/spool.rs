//! What lies in a spool's directory, and what lies in a file of dead letters.

use std::{
    collections::BTreeMap,
    io,
    path::PathBuf,
    sync::{Arc, Mutex, PoisonError},
    time::{Duration, SystemTime},
};

use detector_user::{
    deliver::DeadLetters,
    spool::{Class, Disk, Fsync, Given, Limits, NewRecord, Placed, Spool, WhenFull},
};

use super::input;

/// As in the format that `detector_user::spool` describes.
const HEADER: usize = 24;
const FRAME: usize = 24;
const FRAME_MAGIC: &[u8] = b"\xd5\x53\x50\x4c";

/// A directory of files that outlives the spool that uses it.
#[derive(Clone, Default)]
struct Memory(Arc<Mutex<BTreeMap<String, Vec<u8>>>>);

impl Memory {
    fn with<T>(&self, work: impl FnOnce(&mut BTreeMap<String, Vec<u8>>) -> T) -> T {
        work(&mut self.0.lock().unwrap_or_else(PoisonError::into_inner))
    }

    fn file<T>(&self, name: &str, work: impl FnOnce(&mut Vec<u8>) -> T) -> io::Result<T> {
        self.with(|files| files.get_mut(name).map(work).ok_or(io::ErrorKind::NotFound.into()))
    }
}

impl Disk for Memory {
    fn list(&self) -> io::Result<Vec<String>> {
        Ok(self.with(|files| files.keys().cloned().collect()))
    }

    fn create(&mut self, name: &str) -> io::Result<()> {
        self.with(|files| files.insert(name.to_owned(), Vec::new()));
        Ok(())
    }

    fn append(&mut self, name: &str, bytes: &[u8]) -> io::Result<()> {
        self.file(name, |file| file.extend_from_slice(bytes))
    }

    fn truncate(&mut self, name: &str, length: u64) -> io::Result<()> {
        self.file(name, |file| file.truncate(length as usize))
    }

    fn length(&self, name: &str) -> io::Result<u64> {
        self.file(name, |file| file.len() as u64)
    }

    fn read(&mut self, name: &str, offset: u64, buffer: &mut [u8]) -> io::Result<()> {
        let read = |file: &mut Vec<u8>| {
            let begin = offset as usize;
            let there = file.get(begin..begin + buffer.len());
            there.map(|there| buffer.copy_from_slice(there)).ok_or(io::ErrorKind::UnexpectedEof)
        };
        Ok(self.file(name, read)??)
    }

    fn sync(&mut self, _: &str) -> io::Result<()> {
        Ok(())
    }

    fn sync_names(&mut self) -> io::Result<()> {
        Ok(())
    }

    fn remove(&mut self, name: &str) -> io::Result<()> {
        self.with(|files| files.remove(name));
        Ok(())
    }
}

/// A directory of any files is a spool: what is whole comes out in order, the rest is named, and what
/// is put in afterwards comes out behind it.
///
/// The first byte says whether checksums are made right, without which nothing behind them would be
/// read; each piece is a file, its first byte a part of the name.
pub(crate) fn spool(mut bytes: &[u8]) {
    let sealed = input::byte(&mut bytes) & 1 == 0;
    let disk = Memory::default();
    for mut piece in input::pieces(bytes) {
        let number = match input::byte(&mut piece) {
            255 => u64::MAX,
            number => u64::from(number),
        };
        let mut file = piece.to_vec();
        if sealed {
            seal(&mut file);
        }
        disk.with(|files| files.insert(format!("{number:020}.spool"), file));
    }
    let lengths = disk.with(|files| files.values().map(Vec::len).sum::<usize>());
    let (numbers, damaged) = given(&disk, None);
    assert!(damaged <= lengths as u64, "more is damaged than there is");
    // Nothing was marked as done: the next process gives all of it again, and then what it put in.
    let (again, _) = given(&disk, Some(b"put in now"));
    assert_eq!(numbers, again[..numbers.len()]);
}

/// Opens the spool, puts an event in, and takes out everything; the numbers of the events, and how many
/// bytes could not be read.
fn given(disk: &Memory, new: Option<&[u8]>) -> (Vec<u64>, u64) {
    let limits = Limits {
        max_bytes: 1 << 30,
        max_age: Duration::MAX,
        fsync: Fsync::Never,
        when_full: WhenFull::DropNewest,
    };
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1);
    let (mut spool, found) = Spool::open(disk.clone(), limits).expect("a disk that can be read");
    assert_eq!(found.waiting, spool.waiting());
    let by_rule = spool.waiting_by_rule();
    assert_eq!(found.waiting, by_rule.iter().map(|(_, count)| count).sum::<u64>());
    let place = new.map(|event| {
        let record = NewRecord { rule: "new", class: Class::Normal, at: now, event };
        spool.append(&[record], false, now).placed[0]
    });
    let mut numbers = Vec::new();
    let mut last = None;
    for given in spool.give(usize::MAX, now) {
        match given {
            Given::Event { number, event, .. } => {
                numbers.push(number);
                last = Some((number, event));
            }
            Given::Lost(lost) => panic!("{lost:?}: it was whole when the spool was opened"),
        }
    }
    assert!(numbers.windows(2).all(|pair| pair[0] < pair[1]), "{numbers:?}");
    assert_eq!(numbers.len() as u64, found.waiting + u64::from(is_stored(place)));
    if let (Some(Placed::Stored(number)), Some(event)) = (place, new) {
        assert_eq!(last, Some((number, event.to_vec())));
    }
    (numbers, found.damage.iter().map(|damage| damage.length).sum())
}

fn is_stored(place: Option<Placed>) -> bool {
    matches!(place, Some(Placed::Stored(_)))
}

/// Makes the checksums of header and frames right.
fn seal(file: &mut [u8]) {
    if let Some(header) = file.get_mut(..HEADER) {
        let sum = crc32fast::hash(&header[..20]);
        header[20..].copy_from_slice(&sum.to_le_bytes());
    }
    let mut at = HEADER;
    while let Some(rest) = file.get_mut(at..).filter(|rest| rest.len() >= FRAME) {
        let length = u32::from_le_bytes([rest[8], rest[9], rest[10], rest[11]]) as usize;
        match rest.get_mut(..FRAME + length) {
            Some(frame) if frame.starts_with(FRAME_MAGIC) => {
                let sum = crc32fast::hash(&frame[8..]);
                frame[4..8].copy_from_slice(&sum.to_le_bytes());
                at += frame.len();
            }
            Some(_) | None => at += 1,
        }
    }
}

/// A file of any bytes has letters and lines that are none; taking all letters out leaves the others.
pub(crate) fn dead_letters(bytes: &[u8]) {
    let path = scratch("dead.jsonl");
    std::fs::write(&path, bytes).expect("a writable directory");
    let letters = DeadLetters::new(path.clone(), 1 << 20);
    let (read, damaged) = letters.read().expect("a readable file");
    let taken = letters.take_out(|_| true).expect("a writable directory");
    assert_eq!(read.len(), taken);
    let (left, still) = letters.read().expect("a readable file");
    assert_eq!((left.len(), still), (0, damaged));
    for letter in &read {
        std::fs::write(&path, b"").expect("a writable directory");
        letters.add(letter).expect("there is room for what was there before");
        assert_eq!(letters.read().expect("a readable file"), (vec![letter.clone()], 0));
    }
}

/// A file of this process and thread alone.
fn scratch(name: &str) -> PathBuf {
    let directory = std::env::temp_dir().join(format!("detector-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&directory).expect("a writable directory");
    directory.join(format!("{:?}-{name}", std::thread::current().id()))
}
