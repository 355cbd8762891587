//! `detector replay --rules`: the agent's path over capture files.

use std::{
    io::{Write, stderr},
    path::Path,
    process::ExitCode,
    time::{Duration, Instant},
};

use super::{
    super::events::{EventError, EventOutput, Patience, UNDELIVERED},
    Progress, ReplayArgs, UNREADABLE,
};
use crate::{
    capture::{CaptureError, CaptureFile},
    replay::{FILE_SEED, FileOutside, Packet, SoftwarePath, output::summary},
};

/// The rules were refused.
const REFUSED: u8 = 1;
/// How long a sink may take nothing before reading stops.
const PATIENCE: Duration = Duration::from_secs(30);

/// Judges the files one after the other, as one run of packets.
pub(super) fn run(args: &ReplayArgs) -> anyhow::Result<ExitCode> {
    let Some(trial) = args.events.load("replay")? else { return Ok(ExitCode::from(REFUSED)) };
    let outside = FileOutside::new(&args.device);
    let path = SoftwarePath::new(trial.set, &trial.ue_pools, FILE_SEED, outside)?;
    let runtime = tokio::runtime::Runtime::new()?;
    let patience = Patience::For(PATIENCE);
    let output = EventOutput::open(&args.events, trial.identity, runtime.handle(), patience)?;
    let mut judging = Judging { path, output, unread: 0, unreadable: false, now: Instant::now() };
    match judging.files(&args.files) {
        Err(error) if error.is_broken_pipe() => return Ok(ExitCode::SUCCESS),
        Err(EventError::Stuck) => writeln!(stderr(), "{}", EventError::Stuck)?,
        result => result?,
    }
    judging.report()
}

/// Rules at work on files.
struct Judging {
    path: SoftwarePath<FileOutside>,
    output: EventOutput,
    /// Frames whose link layer holds no IP.
    unread: u64,
    /// A file was not read to its end.
    unreadable: bool,
    /// For the detections' `read_at`, which only live metrics use.
    now: Instant,
}

impl Judging {
    fn files(&mut self, files: &[std::path::PathBuf]) -> Result<(), EventError> {
        for path in files {
            if let Err(error) = self.file(path)? {
                writeln!(stderr(), "{}: {error}", path.display())?;
                self.unreadable = true;
            }
        }
        let ended = self.path.finish(self.now);
        self.output.send(&ended)?;
        self.output.flush()
    }

    /// Judges one file. The outer error is of the events.
    fn file(&mut self, path: &Path) -> Result<Result<(), CaptureError>, EventError> {
        let mut file = match CaptureFile::open(path) {
            Ok(file) => file,
            Err(error) => return Ok(Err(error)),
        };
        let progress = Progress::new(path, &file);
        let end = loop {
            match file.next_frame() {
                Ok(Some(frame)) => {
                    match Packet::of(&frame) {
                        Some(packet) => {
                            self.output.send(&self.path.packet(&packet, self.now))?;
                        }
                        None => self.unread += 1,
                    }
                    progress.after(frame.number);
                }
                Ok(None) => break Ok(()),
                Err(error) => break Err(error),
            }
        };
        progress.finish();
        Ok(end)
    }

    /// Says what became of packets and events.
    fn report(self) -> anyhow::Result<ExitCode> {
        writeln!(stderr(), "{}", summary(&self.path.counts()))?;
        if self.unread != 0 {
            let unread = self.unread;
            writeln!(
                stderr(),
                "\n{unread} frames had a link layer without IP, or one that is not read"
            )?;
        }
        let (sent, undelivered) = self.output.finish()?;
        if let Some(sent) = sent {
            writeln!(stderr(), "\n{sent}")?;
        }
        Ok(match (self.unreadable, undelivered) {
            (true, _) => ExitCode::from(UNREADABLE),
            (false, 0) => ExitCode::SUCCESS,
            (false, _) => ExitCode::from(UNDELIVERED),
        })
    }
}
