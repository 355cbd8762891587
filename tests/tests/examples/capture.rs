//! A capture to order, and which of the documented rules fire on it.

use std::{collections::BTreeSet, fs, net::IpAddr};

use serde_json::Value;
use testbed::{
    agent,
    frames::{Packet, Tcp, pcap},
};

const DOCS: &str = include_str!("../../../docs/rules.md");
/// The examples' applications.
pub(crate) const SHOP: &str = "10.45.0.10";
pub(crate) const SHOP6: &str = "fd00:45::10";
pub(crate) const RESOLVER: &str = "10.45.0.53";
pub(crate) const HOME: &str = "10.45.0.20";

/// One of the examples' users, of the same address family.
fn user_of(application: IpAddr) -> IpAddr {
    let user = if application.is_ipv4() { "10.60.0.2" } else { "fd00:60::2" };
    user.parse().expect("an address")
}

pub(crate) fn ip(text: &str) -> IpAddr {
    text.parse().expect("an address")
}

/// Packets in the order in which they pass, and the seconds that pass before each.
#[derive(Default)]
pub(crate) struct Capture {
    bytes: Vec<u8>,
    micros: u64,
}

impl Capture {
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.micros += seconds * 1_000_000;
    }

    pub(crate) fn frame(&mut self, frame: &[u8]) {
        self.micros += 1_000;
        self.bytes.extend(pcap::record(self.micros, frame));
    }

    /// The documented rules of these names that made an event, by `detector replay --rules`.
    pub(crate) fn fired(&self, rules: &[&str]) -> BTreeSet<String> {
        self.events(rules)
            .iter()
            .map(|event| event["rule"].as_str().expect("a rule").to_owned())
            .collect()
    }

    /// The events that these documented rules make.
    pub(crate) fn events(&self, rules: &[&str]) -> Vec<Value> {
        let directory = tempfile::tempdir().expect("directory");
        let (file, yaml) = (directory.path().join("a.pcap"), directory.path().join("rules.yaml"));
        fs::write(&file, [pcap::header(), self.bytes.clone()].concat()).expect("capture");
        fs::write(&yaml, documented(rules)).expect("rules");
        let mut command = agent::command(None).expect("`cargo xtask build`");
        command.arg("replay").arg(&file).arg("--rules").arg(&yaml);
        let output = command.output().expect("detector");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let text = String::from_utf8_lossy(&output.stdout);
        text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
    }
}

/// The documented applications, and of the documented rules those of these names.
fn documented(rules: &[&str]) -> String {
    let blocks = DOCS.split("```yaml\n").skip(1).filter_map(|rest| rest.split("```").next());
    let documents = blocks.flat_map(|block| block.split("---\n"));
    let wanted: Vec<&str> = documents
        .filter(|document| {
            let is_rule = |name: &&str| document.contains(&format!("metadata: {{name: {name}}}"));
            document.contains("kind: Application")
                || document.contains("kind: Rule") && rules.iter().any(is_rule)
        })
        .collect();
    wanted.join("---\n")
}

/// A TCP connection of a user with an application.
pub(crate) struct Connection<'c> {
    capture: &'c mut Capture,
    ends: [(IpAddr, u16); 2],
    sequences: [u32; 2],
}

impl<'c> Connection<'c> {
    /// Opens one from this port of the user's.
    pub(crate) fn open(capture: &'c mut Capture, from: u16, to: (&str, u16)) -> Self {
        let application = ip(to.0);
        let ends = [(user_of(application), from), (application, to.1)];
        let mut connection = Self { capture, ends, sequences: [Tcp::SYN.sequence; 2] };
        connection.send(0, Tcp::SYN, &[]);
        connection.send(1, Tcp { ack: true, ..Tcp::SYN }, &[]);
        connection.sequences = [Tcp::SYN.sequence + 1; 2];
        connection
    }

    /// The user says this.
    pub(crate) fn up(&mut self, bytes: &[u8]) -> &mut Self {
        self.say(0, bytes)
    }

    /// The application says this.
    pub(crate) fn down(&mut self, bytes: &[u8]) -> &mut Self {
        self.say(1, bytes)
    }

    /// Nothing passes for so many seconds.
    pub(crate) fn wait(&mut self, seconds: u64) {
        self.capture.wait(seconds);
    }

    /// Both close.
    pub(crate) fn close(&mut self) {
        for way in [0, 1] {
            let tcp = Tcp { fin: true, ..Tcp::data(self.sequences[way]) };
            self.send(way, tcp, &[]);
        }
    }

    fn say(&mut self, way: usize, bytes: &[u8]) -> &mut Self {
        // As many segments as it takes.
        for piece in bytes.chunks(1_400) {
            self.send(way, Tcp::data(self.sequences[way]), piece);
            self.sequences[way] += piece.len() as u32;
        }
        self
    }

    fn send(&mut self, way: usize, tcp: Tcp, bytes: &[u8]) {
        let packet = Packet::tcp(self.ends[way], self.ends[1 - way], tcp, bytes);
        self.capture.frame(&packet.frame());
    }
}

/// A user's datagram to an application.
pub(crate) fn datagram(from: u16, to: (&str, u16), bytes: &[u8]) -> Packet {
    let application = ip(to.0);
    Packet::udp((user_of(application), from), (application, to.1), bytes)
}

/// An application's datagram to a user.
pub(crate) fn answer(from: (&str, u16), to: u16, bytes: &[u8]) -> Packet {
    let application = ip(from.0);
    Packet::udp((application, from.1), (user_of(application), to), bytes)
}
