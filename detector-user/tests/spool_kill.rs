//! A process that spools is killed with SIGKILL at random moments: what it said was kept is there.
//!
//! The test starts itself: with [`CHILD`] in its environment it is the process that spools.

use std::{
    io::{BufRead, BufReader, Write},
    path::Path,
    process::{Command, Stdio},
    time::{Duration, SystemTime},
};

use detector_user::spool::{Class, Directory, Fsync, Given, Limits, NewRecord, Placed, Spool};

const CHILD: &str = "DETECTOR_TEST_SPOOLS_IN";
const ROUNDS: usize = 12;

fn open(directory: &Path) -> (Spool<Directory>, detector_user::spool::Recovered) {
    // A killed process loses nothing, whatever the policy; without fsync more happens in the time.
    let limits = Limits { fsync: Fsync::Never, max_bytes: 4 << 20, ..Limits::default() };
    Spool::open(Directory::open(directory).unwrap(), limits).unwrap()
}

/// Spools and marks for ever; says what was kept and what is about to be marked.
fn spool_until_killed(directory: &Path) {
    let (mut spool, _) = open(directory);
    let mut out = std::io::stdout().lock();
    for round in 0u64.. {
        let texts: Vec<String> = (0..7).map(|i| format!("{round}-{i}")).collect();
        let record = |text: &'static str| NewRecord {
            rule: "press",
            class: Class::Normal,
            at: SystemTime::now(),
            event: text.as_bytes(),
        };
        let leaked = texts.into_iter().map(|text| &*text.leak());
        let batch: Vec<NewRecord<'_>> = leaked.map(record).collect();
        let appended = spool.append(&batch, false, SystemTime::now());
        for placed in appended.placed {
            if let Placed::Stored(number) = placed {
                writeln!(out, "kept {number}").unwrap();
            }
        }
        let done: Vec<u64> = spool
            .give(5, SystemTime::now())
            .into_iter()
            .filter_map(|given| match given {
                Given::Event { number, .. } => Some(number),
                Given::Lost(_) => None,
            })
            .collect();
        for number in &done {
            writeln!(out, "done {number}").unwrap();
        }
        out.flush().unwrap();
        spool.done(&done).unwrap();
    }
}

#[test]
fn what_was_kept_survives_a_kill_at_any_moment() {
    if let Some(directory) = std::env::var_os(CHILD) {
        return spool_until_killed(Path::new(&directory));
    }
    let mut kept_in_all = 0;
    for round in 0..ROUNDS {
        let directory = tempfile::tempdir().unwrap();
        let mut child = Command::new(std::env::current_exe().unwrap())
            .args(["what_was_kept_survives_a_kill_at_any_moment", "--exact", "--nocapture"])
            .env(CHILD, directory.path())
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines = BufReader::new(child.stdout.take().unwrap()).lines();
        // It has begun; then a moment that differs from round to round.
        let begun = lines.by_ref().map_while(Result::ok).find(|line| line.starts_with("kept"));
        assert!(begun.is_some());
        std::thread::sleep(Duration::from_micros(1_700 * round as u64));
        child.kill().unwrap();
        child.wait().unwrap();
        let said: Vec<String> = begun.into_iter().chain(lines.map_while(Result::ok)).collect();
        let numbers = |what: &str| -> Vec<u64> {
            said.iter().filter_map(|line| line.strip_prefix(what)?.trim().parse().ok()).collect()
        };
        let (mut spool, recovered) = open(directory.path());
        assert_eq!(recovered.missing, 0, "{:?}", recovered.damage);
        let there: Vec<u64> = spool
            .give(usize::MAX, SystemTime::now())
            .into_iter()
            .map(|given| match given {
                Given::Event { number, .. } => number,
                Given::Lost(lost) => panic!("{lost:?}"),
            })
            .collect();
        assert!(there.is_sorted());
        let done = numbers("done ");
        let kept = numbers("kept ");
        for number in &kept {
            assert!(there.contains(number) || done.contains(number), "{number} of round {round}");
        }
        kept_in_all += kept.len();
    }
    assert!(kept_in_all > 100, "{kept_in_all}");
}
