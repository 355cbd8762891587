//! `detector replay --rules`: the agent's path over capture files.

use std::{
    io::{self, BufWriter, ErrorKind, Write, stderr, stdout},
    path::Path,
    process::ExitCode,
};

use anyhow::Context as _;
use ipnet::IpNet;

use super::{Judged, Progress, UNREADABLE};
use crate::{
    capture::{CaptureError, CaptureFile},
    cloudevent::{self, Identity, Overrides},
    detection::Detection,
    replay::{
        Packet, Replay,
        output::{Format, summary, write_event, write_head},
    },
    rules,
};

/// The rules were refused.
const REFUSED: u8 = 1;

/// Judges the files one after the other, as one run of packets.
pub(super) fn run(args: &Judged, files: &[std::path::PathBuf]) -> anyhow::Result<ExitCode> {
    let set = match rules::file::load_untrusted(&args.rules) {
        Ok(set) => set,
        Err(problems) => {
            writeln!(stderr(), "{problems}")?;
            return Ok(ExitCode::from(REFUSED));
        }
    };
    let pools: Vec<IpNet> = args.ue_pool.clone();
    let replay = Replay::new(set, &pools, &args.device)?;
    let mut events = Events {
        identity: Identity { site: args.site.clone(), node: args.node.clone() },
        format: args.format,
        out: BufWriter::with_capacity(1 << 16, stdout().lock()),
    };
    match judge(replay, files, &mut events) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        result => result.context("standard output"),
    }
}

fn judge(
    mut replay: Replay,
    files: &[std::path::PathBuf],
    events: &mut Events<impl Write>,
) -> io::Result<ExitCode> {
    let mut code = ExitCode::SUCCESS;
    write_head(&mut events.out, events.format)?;
    let mut unread = 0;
    for path in files {
        if let Err(error) = file(path, &mut replay, events, &mut unread)? {
            writeln!(stderr(), "{}: {error}", path.display())?;
            code = ExitCode::from(UNREADABLE);
        }
    }
    let ended = replay.finish();
    events.write(&ended)?;
    events.out.flush()?;
    writeln!(stderr(), "{}", summary(&replay.counts()))?;
    if unread != 0 {
        writeln!(
            stderr(),
            "\n{unread} frames had a link layer without IP, or one that is not read"
        )?;
    }
    Ok(code)
}

/// Judges one file. The outer error is of the output.
fn file(
    path: &Path,
    replay: &mut Replay,
    events: &mut Events<impl Write>,
    unread: &mut u64,
) -> io::Result<Result<(), CaptureError>> {
    let mut file = match CaptureFile::open(path) {
        Ok(file) => file,
        Err(error) => return Ok(Err(error)),
    };
    let progress = Progress::new(path, &file);
    let end = loop {
        match file.next_frame() {
            Ok(Some(frame)) => {
                match Packet::of(&frame) {
                    Some(packet) => events.write(&replay.packet(&packet))?,
                    None => *unread += 1,
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

/// Detections become events here.
struct Events<W> {
    identity: Identity,
    format: Format,
    out: W,
}

impl<W: Write> Events<W> {
    fn write(&mut self, detections: &[Detection]) -> io::Result<()> {
        for detection in detections {
            let event = cloudevent::build(detection, &self.identity, &Overrides::default());
            write_event(&mut self.out, self.format, &event, detection)?;
        }
        Ok(())
    }
}
