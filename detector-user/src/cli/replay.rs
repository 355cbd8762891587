//! `detector replay`: capture files in, what they say out.

use std::{
    io::{self, BufWriter, ErrorKind, IsTerminal, Write, stderr, stdout},
    path::{Path, PathBuf},
    process::ExitCode,
    sync::atomic::{AtomicU64, Ordering},
    time::Duration,
};

use clap::{ArgGroup, Args};
use indicatif::{ProgressBar, ProgressStyle};

use super::{events::EventArgs, facts::print};
use crate::{
    capture::{CaptureError, CaptureFile, Layers, LinkType},
    flow::{Flows, Limits},
};

mod judged;

/// A file could not be read, or not to its end.
const UNREADABLE: u8 = 1;

/// Read capture files as the agent reads packets
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["facts", "rules", "config"]))]
#[command(after_help = "\
With --rules, the events that `detector run` would send, one CloudEvent a line (--format table:
columns for people), and at the end, on standard error, what became of the packets. The clock is
the capture's: the same files and rules give the same events, ids included. With --sink URL they
are delivered as the agent does; what waits at the end is tried for 10 s more.

With --facts, one JSON object a line, of every DNS name asked for (kind dns), server name of a TLS
or QUIC ClientHello (tls, quic), HTTP/1 request (http), MQTT topic published to (mqtt) and CoAP
path (coap):

  {\"frame\":4,\"time\":\"1700000000.123456789\",\"kind\":\"dns\",\"name\":\"example.com\",
   \"src\":\"10.60.0.3\",\"dst\":\"10.45.0.53\",\"sport\":40001,\"dport\":53}

frame is the number of the packet that completed it, in its file; time is that packet's, in seconds
since 1970; src and dst are the innermost addresses. http has method, host and uri as well, as they
stand in the request; its name is host and uri together.

Exit codes: 0 read; 1 rules were refused, or a file cannot be read, or not to its end (what came
before it counts); 2 wrong usage; 3 the sink did not take all events.")]
pub struct ReplayArgs {
    /// Capture files: pcap or pcapng, perhaps gzipped; `-` is standard input
    #[arg(required = true, value_name = "FILE")]
    files: Vec<PathBuf>,
    /// Print every fact that the packets say; needs no rules
    #[arg(long, conflicts_with = "rules")]
    facts: bool,
    #[command(flatten)]
    events: EventArgs,
    /// The device in the events' `source`
    #[arg(long, default_value = "capture", conflicts_with = "facts")]
    #[arg(help_heading = "With rules")]
    device: String,
}

/// Runs `detector replay ...`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: ReplayArgs) -> anyhow::Result<ExitCode> {
    match args.facts {
        true => print_facts(&args.files),
        false => judged::run(&args),
    }
}

fn print_facts(files: &[PathBuf]) -> anyhow::Result<ExitCode> {
    let mut output = BufWriter::with_capacity(1 << 16, stdout().lock());
    let mut code = ExitCode::SUCCESS;
    for file in files {
        match facts(file, &mut output) {
            Ok(()) => {}
            Err(Stopped::Output(error)) if error.kind() == ErrorKind::BrokenPipe => {
                return Ok(ExitCode::SUCCESS);
            }
            Err(Stopped::Output(error)) => return Err(error.into()),
            Err(Stopped::Capture(error)) => {
                writeln!(stderr(), "{}: {error}", file.display())?;
                code = ExitCode::from(UNREADABLE);
            }
        }
    }
    output.flush().or_else(|error| match error.kind() {
        ErrorKind::BrokenPipe => Ok(()),
        _ => Err(error),
    })?;
    Ok(code)
}

/// Why a file was not read to its end.
enum Stopped {
    Capture(CaptureError),
    Output(io::Error),
}

/// Prints every fact of one file.
fn facts(path: &Path, output: &mut impl Write) -> Result<(), Stopped> {
    let mut file = CaptureFile::open(path).map_err(Stopped::Capture)?;
    let progress = Progress::new(path, &file);
    let mut layers = Layers::default();
    let mut flows = Flows::new(Limits::CAPTURE);
    let mut found = Vec::new();
    let mut unknown = Unknown::default();
    let end = loop {
        match file.next_frame() {
            Ok(Some(frame)) => {
                unknown.note(frame.link);
                layers.frame(&frame, &mut |segment| flows.packet(segment, &mut found));
                if !found.is_empty() {
                    print(&mut found, output).map_err(Stopped::Output)?;
                }
                progress.after(frame.number);
            }
            Ok(None) => break Ok(()),
            Err(error) => break Err(Stopped::Capture(error)),
        }
    };
    flows.finish(&mut found);
    let forgotten = flows.counts().evicted;
    if forgotten != 0 {
        tracing::warn!(
            "{}: {forgotten} flows gave way to newer ones: what they went on to say may be missing",
            path.display()
        );
    }
    print(&mut found, output).map_err(Stopped::Output)?;
    progress.finish();
    unknown.report(path);
    end
}

/// Frames of link types that cannot be read.
#[derive(Default)]
struct Unknown {
    frames: u64,
    link: Option<LinkType>,
}

impl Unknown {
    fn note(&mut self, link: LinkType) {
        if !link.known() {
            self.frames += 1;
            self.link.get_or_insert(link);
        }
    }

    fn report(&self, path: &Path) {
        if let Some(LinkType(number)) = self.link {
            tracing::warn!(
                "{}: {} frames of a link type that cannot be read (the first of type {number})",
                path.display(),
                self.frames
            );
        }
    }
}

/// A progress bar, where a person sees it and it does not stand between results.
struct Progress {
    bar: Option<(ProgressBar, std::sync::Arc<AtomicU64>)>,
}

impl Progress {
    fn new(path: &Path, file: &CaptureFile) -> Self {
        if !stderr().is_terminal() || stdout().is_terminal() {
            return Self { bar: None };
        }
        let size = path.metadata().map(|about| about.len()).unwrap_or(0);
        let bar = ProgressBar::new(size);
        if let Ok(style) = ProgressStyle::with_template(
            "{msg} {wide_bar} {bytes}/{total_bytes} {bytes_per_sec} {eta}",
        ) {
            bar.set_style(style);
        }
        bar.set_message(path.display().to_string());
        bar.enable_steady_tick(Duration::from_millis(250));
        Self { bar: Some((bar, file.progress())) }
    }

    fn after(&self, frame: u64) {
        const EVERY: u64 = 4096;
        if let Some((bar, read)) = &self.bar
            && frame.is_multiple_of(EVERY)
        {
            bar.set_position(read.load(Ordering::Relaxed));
        }
    }

    fn finish(&self) {
        if let Some((bar, _)) = &self.bar {
            bar.finish_and_clear();
        }
    }
}
