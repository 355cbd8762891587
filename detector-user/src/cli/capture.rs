//! `detector capture`: what passes a device, without eBPF.

use std::{
    io::{BufWriter, ErrorKind, StdoutLock, Write, stderr, stdout},
    process::ExitCode,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use clap::{ArgGroup, Args};
use tokio::{
    runtime::Runtime,
    signal::unix::{SignalKind, signal},
};
use tokio_util::sync::CancellationToken;
use tracing::{info, warn};

use super::{
    events::{EventArgs, EventError, EventOutput, Patience, UNDELIVERED},
    facts::print,
};
use crate::{
    attach::device,
    capture::{
        DeviceCapture, Frame, Layers, LinkType,
        device::{DeviceError, SocketCounts},
    },
    config::Environment,
    detection::Detection,
    flow::{Flows, Found, Limits},
    pipeline::{LiveOutside, boot_id, monotonic_now},
    replay::{Packet, SoftwarePath, output::summary, readable},
};

/// Rules were refused, or the device cannot be read.
const CANNOT: u8 = 1;
/// How late a session's end may be told when no packet comes.
const WAIT: Duration = Duration::from_millis(50);
/// Losses are looked for this often.
const LOOK: Duration = Duration::from_secs(5);

/// Watch a device without eBPF: the same events, at a higher cost
#[derive(Debug, Args)]
#[command(group = ArgGroup::new("what").required(true).multiple(true).args(["facts", "rules", "config"]))]
#[command(after_help = "\
For a machine that cannot load eBPF programs. Packets of both directions, IPv4 and IPv6, are read
by an AF_PACKET socket, which takes CAP_NET_RAW only, and judged by the code that the kernel
programs are made of. The price: every packet that passes, watched or not, is copied to this
process, which judges them on one core; `detector run` copies a few bytes of those that match.
What is not read in time is lost; how much is said while it runs and at the end. A packet's time
is when it was read. Where the device takes VLAN tags off, events have no `vlan`.

With --rules, the events that `detector run` would send; with --facts, the lines of
`detector replay --facts`, each as soon as it is known. SIGTERM and SIGINT end sessions, deliver
what is waiting for up to 10 s, and stop.

Exit codes: 0 stopped; 1 rules were refused, or the device cannot be read; 2 wrong usage; 3 the
sink did not take all events.")]
pub struct CaptureArgs {
    /// The device whose packets are read
    #[arg(long, value_name = "NAME")]
    device: String,
    /// Have the card pass on packets for others too, as at a mirror port
    #[arg(long)]
    promiscuous: bool,
    /// Print every fact that the packets say; needs no rules
    #[arg(long, conflicts_with = "rules")]
    facts: bool,
    #[command(flatten)]
    events: EventArgs,
}

/// Runs `detector capture ...`.
///
/// # Errors
/// When standard output cannot be written.
pub fn run(args: &CaptureArgs) -> anyhow::Result<ExitCode> {
    let node = Environment::of_process().hostname.unwrap_or_else(|| "capture".to_owned());
    let trial = match args.facts {
        true => None,
        false => match args.events.load(&node)? {
            Some(trial) => Some(trial),
            None => return Ok(ExitCode::from(CANNOT)),
        },
    };
    let runtime = Runtime::new()?;
    let stop = stop_on_signals(&runtime)?;
    let devices = runtime.block_on(device::list())?;
    let device = match DeviceCapture::open(&devices, &args.device, args.promiscuous, WAIT) {
        Ok(device) => device,
        Err(error) => {
            writeln!(stderr(), "{error}")?;
            return Ok(ExitCode::from(CANNOT));
        }
    };
    let Some(trial) = trial else { return print_facts(device, &stop) };
    let ifindex = devices.iter().find(|one| one.name == args.device).map_or(0, |one| one.index);
    let path = SoftwarePath::new(trial.set, &trial.ue_pools, boot_id(), LiveOutside::default())?;
    let patience = Patience::Until(stop.clone());
    let output = EventOutput::open(&args.events, trial.identity, runtime.handle(), patience)?;
    let mut judging = Judging { path, output, ifindex, link: device.link(), unread: 0 };
    let (ended, counts) = read(device, &stop, &mut judging);
    let code = judging.report(&args.device, counts, ended)?;
    // A thread that still waits, for a name that is being looked up, must not keep the process.
    runtime.shutdown_background();
    Ok(code)
}

fn stop_on_signals(runtime: &Runtime) -> std::io::Result<CancellationToken> {
    let token = CancellationToken::new();
    let stop = token.clone();
    let _inside = runtime.enter();
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    runtime.spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        stop.cancel();
    });
    Ok(token)
}

/// Why reading has ended, if nobody asked for it.
enum Ended {
    Asked,
    Device(DeviceError),
    Events(EventError),
}

/// What takes packets as they come.
trait Taker {
    fn packet(&mut self, number: u64, bytes: &[u8]) -> Result<(), EventError>;
    /// Is called between packets, at the latest after [`WAIT`].
    fn between(&mut self) -> Result<(), EventError>;
}

/// Reads packets until told to stop.
fn read(
    mut device: DeviceCapture,
    stop: &CancellationToken,
    taker: &mut impl Taker,
) -> (Ended, SocketCounts) {
    info!("reading every packet of the device; `detector capture --help` says what that costs");
    let mut number = 0;
    let mut looked = (Instant::now(), SocketCounts::default());
    let ended = loop {
        if stop.is_cancelled() {
            break Ended::Asked;
        }
        let taken = match device.next_packet() {
            Ok(Some(bytes)) => {
                number += 1;
                taker.packet(number, bytes)
            }
            Ok(None) => taker.between(),
            Err(error) => break Ended::Device(error),
        };
        if let Err(error) = taken {
            break Ended::Events(error);
        }
        if looked.0.elapsed() >= LOOK {
            let (before, now) = (looked.1, device.counts());
            looked = (Instant::now(), now);
            let lost = now.lost - before.lost;
            if lost > 0 {
                warn!("{lost} of {} packets lost: not read in time", now.passed - before.passed);
            }
        }
    };
    (ended, device.counts())
}

/// Says why it ended; the exit code of it.
fn say(device: &str, counts: SocketCounts, ended: Ended) -> std::io::Result<u8> {
    let SocketCounts { passed, lost } = counts;
    writeln!(
        stderr(),
        "\n{device}: {passed} packets passed, {lost} of them lost: not read in time"
    )?;
    match ended {
        Ended::Asked | Ended::Events(EventError::Stuck) => Ok(0),
        Ended::Events(error) if error.is_broken_pipe() => Ok(0),
        Ended::Events(error) => writeln!(stderr(), "{error}").map(|()| CANNOT),
        Ended::Device(error) => writeln!(stderr(), "{error}").map(|()| CANNOT),
    }
}

/// Rules at work on a device.
struct Judging {
    path: SoftwarePath<LiveOutside>,
    output: EventOutput,
    ifindex: u32,
    link: LinkType,
    /// Packets without IP.
    unread: u64,
}

impl Taker for Judging {
    fn packet(&mut self, _number: u64, bytes: &[u8]) -> Result<(), EventError> {
        let Some((layer, bytes)) = readable(self.link, bytes) else {
            self.unread += 1;
            return Ok(());
        };
        let packet = Packet { time_ns: monotonic_now(), ifindex: self.ifindex, layer, bytes };
        let found = self.path.packet(&packet, Instant::now());
        self.send(&found)
    }

    fn between(&mut self) -> Result<(), EventError> {
        let found = self.path.tick(monotonic_now(), Instant::now());
        self.send(&found)
    }
}

impl Judging {
    fn send(&mut self, found: &[Detection]) -> Result<(), EventError> {
        if found.is_empty() {
            return Ok(());
        }
        self.output.send(found)?;
        self.output.flush()
    }

    /// Ends the sessions, delivers what is waiting, and says what became of everything.
    fn report(
        mut self,
        device: &str,
        counts: SocketCounts,
        mut ended: Ended,
    ) -> anyhow::Result<ExitCode> {
        let last = self.path.finish(Instant::now());
        if let Err(error) = self.send(&last) {
            ended = Ended::Events(error);
        }
        writeln!(stderr(), "{}", summary(&self.path.counts()))?;
        let code = say(device, counts, ended)?;
        if self.unread != 0 {
            writeln!(stderr(), "{} of them had no IP", self.unread)?;
        }
        let (sent, undelivered) = match self.output.finish() {
            Err(error) if error.is_broken_pipe() => (None, 0),
            result => result?,
        };
        if let Some(sent) = sent {
            writeln!(stderr(), "{sent}")?;
        }
        let code = if code == 0 && undelivered != 0 { UNDELIVERED } else { code };
        Ok(ExitCode::from(code))
    }
}

/// What packets of a device say.
struct Facts {
    link: LinkType,
    layers: Layers,
    flows: Flows,
    found: Vec<Found>,
    output: BufWriter<StdoutLock<'static>>,
}

impl Taker for Facts {
    fn packet(&mut self, number: u64, bytes: &[u8]) -> Result<(), EventError> {
        let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        let frame = Frame {
            number,
            time_ns: u64::try_from(now.as_nanos()).unwrap_or(u64::MAX),
            link: self.link,
            bytes,
            length: bytes.len() as u32,
        };
        let Self { layers, flows, found, .. } = self;
        layers.frame(&frame, &mut |segment| flows.packet(segment, found));
        self.print()
    }

    fn between(&mut self) -> Result<(), EventError> {
        Ok(())
    }
}

impl Facts {
    fn print(&mut self) -> Result<(), EventError> {
        if self.found.is_empty() {
            return Ok(());
        }
        print(&mut self.found, &mut self.output)?;
        Ok(self.output.flush()?)
    }
}

fn print_facts(device: DeviceCapture, stop: &CancellationToken) -> anyhow::Result<ExitCode> {
    let mut facts = Facts {
        link: device.link(),
        layers: Layers::default(),
        // Every message counts, and none waits for its body.
        flows: Flows::new(Limits { stream: None, ..Limits::LIVE }),
        found: Vec::new(),
        output: BufWriter::new(stdout().lock()),
    };
    let name = device.name().to_owned();
    let (mut ended, counts) = read(device, stop, &mut facts);
    facts.flows.finish(&mut facts.found);
    if let Err(error) = facts.print() {
        ended = Ended::Events(error);
    }
    match say(&name, counts, ended) {
        Err(error) if error.kind() == ErrorKind::BrokenPipe => Ok(ExitCode::SUCCESS),
        code => Ok(ExitCode::from(code?)),
    }
}
