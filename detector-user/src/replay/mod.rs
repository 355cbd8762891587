//! The agent's path without the kernel: the same classifier, pipeline and events over packets of a
//! capture file or of a device. Nothing here looks at the machine's clock or draws a random number:
//! over a file the clock is the capture's, so the same packets give the same events, ids included.

pub mod output;

use std::{
    sync::Arc,
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use detector_common::{
    counter::{Counter, RuleCounter},
    packet::Layer,
    wire::ethertype,
};
use ipnet::IpNet;
use uuid::{Uuid, uuid};

use crate::{
    capture::{
        file::Frame,
        link::{Content, LinkType},
    },
    detection::Detection,
    pipeline::{LoadedRules, Outside, Pipeline, PipelineCounts, RuleHistory},
    rules::{
        compile::{CompileError, compile},
        model::RuleSet,
    },
    source::software::SoftwareClassifier,
};

/// Seed of session ids over files. Live it is the boot's id; two replays must agree, so here it is
/// fixed.
pub const FILE_SEED: Uuid = uuid!("5e1d1f4a-0d0a-5c1b-8f5e-7a3c3a1f9b11");
/// The one generation of rules.
const GENERATION: u32 = 1;

/// One packet.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it passed, on the clock of the path's [`Outside`].
    pub time_ns: u64,
    /// The device that it passed, 0 for a file.
    pub ifindex: u32,
    /// What `bytes` begin with.
    pub layer: Layer,
    /// The packet, from its link-layer or IP header.
    pub bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A frame of a capture file as a hook would see it; `None` if its link layer holds no IP.
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let (layer, bytes) = readable(frame.link, frame.bytes)?;
        Some(Self { time_ns: to_monotonic(frame.time_ns), ifindex: 0, layer, bytes })
    }
}

/// What of a frame a hook would see; `None` if its link layer holds no IP.
pub fn readable(link: LinkType, frame: &[u8]) -> Option<(Layer, &[u8])> {
    match link.content(frame) {
        Content::Ethernet(bytes) => Some((Layer::Ethernet, bytes)),
        Content::Ip(bytes) | Content::EtherType(ethertype::IPV4 | ethertype::IPV6, bytes) => {
            Some((Layer::Ip, bytes))
        }
        Content::EtherType(_, _) | Content::Ppp(_) | Content::Llc(_) | Content::Other => None,
    }
}

/// What was counted while packets passed.
#[derive(Clone, Debug)]
pub struct Counts {
    /// Every counter of the packet path, in the order of [`Counter::ALL`].
    pub packets: Vec<(Counter, u64)>,
    /// The packet path's counters of each rule, in the order of the rule set.
    pub rules: Vec<(String, Vec<(RuleCounter, u64)>)>,
    /// What became of the records.
    pub pipeline: PipelineCounts,
}

/// Rules at work on packets.
pub struct SoftwarePath<O> {
    classifier: SoftwareClassifier,
    pipeline: Pipeline<O>,
    rules: RuleHistory,
    now_ns: u64,
}

impl<O: Outside> SoftwarePath<O> {
    /// A path that has seen nothing yet. Without `ue_pools`, every peer of an application is a UE. For
    /// `seed` see [`SessionTable::new`](crate::session::SessionTable::new).
    ///
    /// # Errors
    /// When the rules exceed what the tables hold.
    pub fn new(
        set: RuleSet,
        ue_pools: &[IpNet],
        seed: Uuid,
        outside: O,
    ) -> Result<Self, CompileError> {
        let classifier = SoftwareClassifier::new(compile(&set, ue_pools, GENERATION)?);
        let rules = RuleHistory::default();
        rules.push(LoadedRules::new(GENERATION, set));
        let pipeline = Pipeline::new(rules.clone(), seed, outside);
        Ok(Self { classifier, pipeline, rules, now_ns: 0 })
    }

    /// Judges the next packet, read at `now`. Sessions that ended before it come first.
    pub fn packet(&mut self, packet: &Packet<'_>, now: Instant) -> Vec<Detection> {
        let mut found = self.tick(packet.time_ns, now);
        let Packet { ifindex, layer, bytes, .. } = *packet;
        if let Some(record) = self.classifier.inspect(bytes, layer, ifindex, self.now_ns) {
            found.extend(self.pipeline.record(&record, &self.classifier, now));
        }
        found
    }

    /// Ends what has ended by then, though no packet says so.
    pub fn tick(&mut self, now_ns: u64, now: Instant) -> Vec<Detection> {
        // Captures merged from several cards step back now and then; a monotonic clock does not.
        self.now_ns = self.now_ns.max(now_ns);
        self.pipeline.tick(self.now_ns, &mut self.classifier, now)
    }

    /// Ends every session, because the packets have ended.
    pub fn finish(&mut self, now: Instant) -> Vec<Detection> {
        self.pipeline.stop(&mut self.classifier, now)
    }

    /// What was counted so far.
    pub fn counts(&self) -> Counts {
        let of_rule = |number: usize| {
            let count = |counter| (counter, self.classifier.rule_counter(number as u32, counter));
            RuleCounter::ALL.map(count).to_vec()
        };
        let rules = self.rules.newest();
        let rules = rules.iter().flat_map(|loaded| loaded.set.rules.iter().enumerate());
        Counts {
            packets: Counter::ALL
                .map(|counter| (counter, self.classifier.counter(counter)))
                .to_vec(),
            rules: rules.map(|(number, rule)| (rule.name.clone(), of_rule(number))).collect(),
            pipeline: self.pipeline.counts(),
        }
    }
}

/// A file's clock, and the one device that it is said to be from.
pub struct FileOutside {
    device: Arc<str>,
}

impl FileOutside {
    /// `device` is its name in the events' `source`.
    pub fn new(device: &str) -> Self {
        Self { device: device.into() }
    }
}

impl Outside for FileOutside {
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(monotonic_ns - 1)
    }

    fn device(&mut self, _ifindex: u32, _monotonic_ns: u64) -> Arc<str> {
        self.device.clone()
    }
}

/// The packet path takes the time 0 for "never", and some captures begin at 1970.
fn to_monotonic(since_1970_ns: u64) -> u64 {
    since_1970_ns.saturating_add(1)
}
