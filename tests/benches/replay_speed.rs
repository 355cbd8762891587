//! Packets/s of `detector replay --facts` beside tshark and ndpiReader, each over the same capture
//! of a million mixed packets, in turn. It prints ratios; it never judges.
//!
//! All three run as whole processes on one core (`taskset`), and what is compared is the time of that core
//! that each took (getrusage(2), user and system): packets/s per core, whatever else the machine does.
//!
//! The capture is in the page cache as reading it from disk puts it there. In that state a capture is that
//! somebody has taken before; as it was written, in small pieces, it lies in pages of 4 KiB each, of which
//! every reader pays for the number.

use std::{
    fs::File,
    io::{BufWriter, Write},
    mem::MaybeUninit,
    net::IpAddr,
    path::{Path, PathBuf},
    process::{Command, Stdio},
    time::Duration,
};

use anyhow::{Context, Result, ensure};
use nix::fcntl::{PosixFadviseAdvice, posix_fadvise};
use testbed::{
    agent,
    frames::{Packet, Tcp, client_hello, http_request, pcap},
};

const PACKETS: usize = 1_000_000;
/// Flows that are alive at the same time.
const CONCURRENT: usize = 1_000;
const ROUNDS: usize = 3;

fn main() -> Result<()> {
    // `cargo test` runs benches too, without `--bench`; there is nothing to test here.
    if !std::env::args().any(|argument| argument == "--bench") {
        return Ok(());
    }
    let directory = tempfile::tempdir()?;
    let capture = directory.path().join("mixed.pcap");
    write_capture(&capture)?;
    drop_from_page_cache(&capture)?;
    let others = [("tshark", tshark(&capture), "100"), ("ndpiReader", ndpi(&capture), "10")];
    for (name, mut other, goal) in others {
        if !on_path(name) {
            println!(
                "{name} is not installed: no comparison with it (Debian: tshark, libndpi-bin)"
            );
            continue;
        }
        compare(name, &mut other, &mut ours(&capture)?, goal)?;
    }
    Ok(())
}

fn compare(name: &str, other: &mut Command, ours: &mut Command, goal: &str) -> Result<()> {
    let mut ratios = Vec::new();
    let mut rows = Vec::new();
    for round in 0..=ROUNDS {
        let (theirs, mine) = (timed(other)?, timed(ours)?);
        if round == 0 {
            continue; // warm-up: it reads the capture from disk
        }
        ratios.push(theirs.as_secs_f64() / mine.as_secs_f64());
        rows.push((mine, theirs));
    }
    ratios.sort_by(f64::total_cmp);
    let (mine, theirs) = rows[rows.len() / 2];
    println!(
        "{:<72} {:>6.1}  {:>5.1}..{:<5.1} {:>5}   {:.2} / {:.2} Mpackets/s",
        format!("replay --facts, packets/s per core / {name}"),
        ratios[ratios.len() / 2],
        ratios[0],
        ratios[ratios.len() - 1],
        goal,
        rate(mine),
        rate(theirs),
    );
    Ok(())
}

fn rate(time: Duration) -> f64 {
    PACKETS as f64 / time.as_secs_f64() / 1e6
}

/// The core's time that the command takes, all of its output read by nobody.
fn timed(command: &mut Command) -> Result<Duration> {
    let before = time_of_children()?;
    let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
    let status = status.with_context(|| format!("cannot start {:?}", command.get_program()))?;
    ensure!(status.success(), "{:?}: {status}", command.get_program());
    Ok(time_of_children()?.saturating_sub(before))
}

/// User and system time of every child that has ended.
fn time_of_children() -> Result<Duration> {
    let mut usage = MaybeUninit::<libc::rusage>::uninit();
    // SAFETY: the kernel writes one `rusage` where the pointer says, which has room for it.
    let result = unsafe { libc::getrusage(libc::RUSAGE_CHILDREN, usage.as_mut_ptr()) };
    ensure!(result == 0, "getrusage: {}", std::io::Error::last_os_error());
    // SAFETY: it returned 0, so it was written.
    let usage = unsafe { usage.assume_init() };
    let of = |time: libc::timeval| {
        Duration::from_secs(time.tv_sec.unsigned_abs())
            + Duration::from_micros(time.tv_usec.unsigned_abs())
    };
    Ok(of(usage.ru_utime) + of(usage.ru_stime))
}

fn on_one_core(program: impl AsRef<std::ffi::OsStr>) -> Command {
    let mut command = Command::new("taskset");
    command.args(["--cpu-list", "1"]).arg(program);
    command
}

fn ours(capture: &Path) -> Result<Command> {
    let mut command = on_one_core(agent::binary("detector")?);
    command.arg("replay").arg("--facts").arg(capture);
    Ok(command)
}

/// The same facts by tshark.
fn tshark(capture: &Path) -> Command {
    let mut command = on_one_core("tshark");
    command.args(["-n", "-T", "fields", "-r"]).arg(capture);
    for field in [
        "dns.qry.name",
        "tls.handshake.extensions_server_name",
        "http.request.method",
        "http.host",
        "http.request.uri",
        "mqtt.topic",
        "coap.opt.uri_path_recon",
    ] {
        command.args(["-e", field]);
    }
    command
}

fn ndpi(capture: &Path) -> Command {
    let mut command = on_one_core("ndpiReader");
    command.args(["-q", "-n", "1", "-i"]).arg(capture);
    command
}

fn on_path(name: &str) -> bool {
    let path = std::env::var_os("PATH").unwrap_or_default();
    std::env::split_paths(&path).any(|directory: PathBuf| directory.join(name).exists())
}

/// Writes the capture: classic pcap, Ethernet, microseconds.
fn write_capture(path: &Path) -> Result<()> {
    let mut file = BufWriter::new(File::create(path)?);
    file.write_all(&pcap::header())?;
    let mut flows: Vec<Flow> = (0..CONCURRENT).map(Flow::new).collect();
    let mut begun = CONCURRENT;
    for number in 0..PACKETS {
        let flow = &mut flows[number % CONCURRENT];
        let frame = match flow.next() {
            Some(frame) => frame,
            None => {
                *flow = Flow::new(begun);
                begun += 1;
                flow.next().context("a flow has packets")?
            }
        };
        file.write_all(&pcap::record(number as u64, &frame))?;
    }
    file.flush()?;
    Ok(())
}

/// So that whoever reads it next reads it from disk.
fn drop_from_page_cache(path: &Path) -> Result<()> {
    let file = File::open(path)?;
    file.sync_all()?;
    Ok(posix_fadvise(&file, 0, 0, PosixFadviseAdvice::POSIX_FADV_DONTNEED)?)
}

/// What a flow carries; the share of each is about that of its packets on a mobile network.
#[derive(Clone, Copy)]
enum Kind {
    Tls,
    Http,
    Dns,
    Media,
    Mqtt,
}

struct Flow {
    kind: Kind,
    number: usize,
    sent: usize,
}

impl Flow {
    fn new(number: usize) -> Self {
        let kind = match number % 20 {
            0..=8 => Kind::Tls,
            9..=12 => Kind::Http,
            13..=14 => Kind::Dns,
            15..=18 => Kind::Media,
            _ => Kind::Mqtt,
        };
        Self { kind, number, sent: 0 }
    }

    /// The next frame, until the flow has ended.
    fn next(&mut self) -> Option<Vec<u8>> {
        let step = self.sent;
        self.sent += 1;
        let packets = match self.kind {
            Kind::Dns => 2,
            Kind::Tls | Kind::Http | Kind::Media | Kind::Mqtt => 100,
        };
        (step < packets).then(|| self.packet(step).frame())
    }

    fn packet(&self, step: usize) -> Packet {
        match self.kind {
            Kind::Tls => self.stream(step, 443, &client_hello(&self.name()), &[23, 3, 3, 4, 0]),
            Kind::Http => {
                let request = http_request("GET", "/catalog/1", &self.name(), "");
                self.stream(step, 80, &request, b"HTTP/1.1 200 OK\r\nContent-Length: 90000\r\n\r\n")
            }
            Kind::Mqtt => self.stream(step, 1883, &publish(&self.name()), &[0x40, 2, 0, 1]),
            Kind::Dns if step == 0 => Packet::udp(self.ue(), app(53), &query(&self.name(), 0x0100)),
            Kind::Dns => Packet::udp(app(53), self.ue(), &query(&self.name(), 0x8180)),
            Kind::Media => Packet::udp(app(5004), self.ue(), &[0x80; 900]),
        }
    }

    /// SYN, SYN-ACK, ACK, what the UE says, what the application says, and bulk.
    fn stream(&self, step: usize, port: u16, up: &[u8], down: &[u8]) -> Packet {
        let (ue, app) = (self.ue(), app(port));
        let bulk = (step.saturating_sub(5) * 1000 + down.len() + 1) as u32;
        match step {
            0 => Packet::tcp(ue, app, Tcp { sequence: 0, ..Tcp::SYN }, &[]),
            1 => Packet::tcp(app, ue, Tcp { sequence: 0, ack: true, ..Tcp::SYN }, &[]),
            2 => Packet::tcp(ue, app, Tcp::data(1), &[]),
            3 => Packet::tcp(ue, app, Tcp::data(1), up),
            4 => Packet::tcp(app, ue, Tcp::data(1), down),
            _ => Packet::tcp(app, ue, Tcp::data(bulk), &[0x55; 1000]),
        }
    }

    fn ue(&self) -> (IpAddr, u16) {
        let [_, _, high, low] = u32::try_from(self.number / 200).unwrap_or(0).to_be_bytes();
        (IpAddr::from([10, 60, high, low]), 20_000 + (self.number % 40_000) as u16)
    }

    fn name(&self) -> String {
        format!("host{}.example.com", self.number % 500)
    }
}

fn app(port: u16) -> (IpAddr, u16) {
    (IpAddr::from([10, 45, 0, 10]), port)
}

/// A DNS message with one question (RFC 1035 section 4.1).
fn query(name: &str, flags: u16) -> Vec<u8> {
    let mut message = vec![0, 1, flags.to_be_bytes()[0], flags.to_be_bytes()[1]];
    message.extend([0, 1, 0, 0, 0, 0, 0, 0]);
    for label in name.split('.') {
        message.push(label.len() as u8);
        message.extend(label.bytes());
    }
    message.extend([0, 0, 1, 0, 1]);
    message
}

/// An MQTT 3.1.1 PUBLISH, QoS 0.
fn publish(topic: &str) -> Vec<u8> {
    let mut packet = vec![0x30, topic.len() as u8 + 4, 0, topic.len() as u8];
    packet.extend(topic.bytes());
    packet.extend(b"on");
    packet
}
