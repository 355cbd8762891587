//! The agent's path over packets of a capture: the same classifier, pipeline and events as live,
//! with the capture's own clock. Nothing here looks at the machine's clock or draws a random
//! number, so the same packets give the same events, ids included.

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
    capture::{file::Frame, link::Content},
    detection::Detection,
    pipeline::{LoadedRules, Outside, Pipeline, PipelineCounts, RuleHistory},
    rules::{
        compile::{CompileError, compile},
        model::RuleSet,
    },
    source::software::SoftwareClassifier,
};

/// Seed of session ids. Live it is the boot's id; two replays must agree, so here it is fixed.
const SEED: Uuid = uuid!("5e1d1f4a-0d0a-5c1b-8f5e-7a3c3a1f9b11");
/// The one generation of rules of a replay.
const GENERATION: u32 = 1;

/// One packet of a capture.
#[derive(Clone, Copy, Debug)]
pub struct Packet<'a> {
    /// When it was captured, in ns since 1970.
    pub time_ns: u64,
    /// What `bytes` begin with.
    pub layer: Layer,
    /// The packet, from its link-layer or IP header.
    pub bytes: &'a [u8],
}

impl<'a> Packet<'a> {
    /// A frame of a capture file as a hook would see it; `None` if its link layer holds no IP.
    pub fn of(frame: &Frame<'a>) -> Option<Self> {
        let (layer, bytes) = match frame.link.content(frame.bytes) {
            Content::Ethernet(bytes) => (Layer::Ethernet, bytes),
            Content::Ip(bytes) | Content::EtherType(ethertype::IPV4 | ethertype::IPV6, bytes) => {
                (Layer::Ip, bytes)
            }
            Content::EtherType(_, _) | Content::Ppp(_) | Content::Llc(_) | Content::Other => {
                return None;
            }
        };
        Some(Self { time_ns: frame.time_ns, layer, bytes })
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

/// Rules at work on a capture.
pub struct Replay {
    classifier: SoftwareClassifier,
    pipeline: Pipeline<CaptureOutside>,
    rules: RuleHistory,
    now_ns: u64,
    /// For the detections' `read_at`, which only live metrics use.
    begun: Instant,
}

impl Replay {
    /// A replay that has seen nothing yet. `device` is the device's name in the events' `source`;
    /// without `ue_pools`, every peer of an application is a UE.
    ///
    /// # Errors
    /// When the rules exceed what the tables hold.
    pub fn new(set: RuleSet, ue_pools: &[IpNet], device: &str) -> Result<Self, CompileError> {
        let classifier = SoftwareClassifier::new(compile(&set, ue_pools, GENERATION)?);
        let rules = RuleHistory::default();
        rules.push(LoadedRules::new(GENERATION, set));
        let outside = CaptureOutside { device: device.into() };
        let pipeline = Pipeline::new(rules.clone(), SEED, outside);
        Ok(Self { classifier, pipeline, rules, now_ns: 0, begun: Instant::now() })
    }

    /// Judges the next packet. Sessions that ended before it come first.
    pub fn packet(&mut self, packet: &Packet<'_>) -> Vec<Detection> {
        // Captures merged from several cards step back now and then; a monotonic clock does not.
        self.now_ns = self.now_ns.max(to_monotonic(packet.time_ns));
        let mut found = self.pipeline.tick(self.now_ns, &mut self.classifier, self.begun);
        let record = self.classifier.inspect(packet.bytes, packet.layer, 0, self.now_ns);
        if let Some(record) = record {
            found.extend(self.pipeline.record(&record, &self.classifier, self.begun));
        }
        found
    }

    /// Ends every session, because the capture has ended.
    pub fn finish(&mut self) -> Vec<Detection> {
        self.pipeline.stop(&mut self.classifier, self.begun)
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

/// The capture's clock and its one device.
struct CaptureOutside {
    device: Arc<str>,
}

impl Outside for CaptureOutside {
    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(monotonic_ns - 1)
    }

    fn device(&mut self, _ifindex: u32) -> Arc<str> {
        self.device.clone()
    }
}

/// The packet path takes the time 0 for "never", and some captures begin at 1970.
fn to_monotonic(since_1970_ns: u64) -> u64 {
    since_1970_ns.saturating_add(1)
}
