//! What the next agent must know of rules that user space decides: when they fired for whom, and what
//! was counted of those with a rate.
//!
//! A record may be read by two agents. Notes say up to where in the ring they speak, so that it is
//! counted once, and when the rule fired lately, so that the second one tells the same.

use std::net::IpAddr;

use aya::maps::{HashMap, MapData};
use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use super::{agent_map, kernel::LoadError};
use crate::{capture::layers::ip_address, pin::PinDirectory};
use detector_common::packet::Address;

/// Pairs of rule and user that are remembered.
pub const PAIRS: usize = 65_536;
/// Flows that are remembered for rates, over all rules and users.
pub const MARKS: usize = 262_144;
/// Times that a rule fired for a user which are remembered: those whose events may not be settled.
pub const FIRED: usize = 4;
/// Steps in which the window of a rate slides.
pub const SLOTS: usize = 16;

/// A rule, by its stable id, and a user.
pub type RuleAndUser = (u32, IpAddr);

/// That a rule fired.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Fired {
    /// On what passed then, in ns of CLOCK_MONOTONIC; 0 for never.
    pub time_ns: u64,
    /// With this count, if the rule has a rate.
    pub count: u64,
}

/// The latest times that a rule fired for a user, the newest first.
pub type LatelyFired = [Fired; FIRED];

/// What was counted of a rule with a rate, for a user.
#[derive(Clone, Copy, Debug, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct RateNote {
    /// A position in the ring: what records before it show is in the counts.
    pub as_of: u64,
    /// How long a slot is, in ns: tells whether the rule still means the same window.
    pub slot_ns: u64,
    /// 1 if it counts flows, each noted by itself.
    pub flows: u64,
    /// The slot that was last counted in, in lengths of a slot.
    pub newest: u64,
    /// By slot, modulo their number.
    pub sums: [u64; SLOTS],
    /// When the rate was reached.
    pub fired: LatelyFired,
}

/// What changed; `None` for what is remembered no longer.
#[derive(Debug, Default)]
pub struct DeepChanges {
    /// `every`.
    pub windows: Vec<(RuleAndUser, Option<LatelyFired>)>,
    /// Rates.
    pub rates: Vec<(RuleAndUser, Option<RateNote>)>,
    /// The flows that rates have counted, by their marks, and the slots they were last seen in.
    pub flows: Vec<((RuleAndUser, u64), Option<u64>)>,
}

impl DeepChanges {
    /// That all of this is remembered no longer.
    pub fn forgotten(self) -> Self {
        fn none<K, V>(all: Vec<(K, Option<V>)>) -> Vec<(K, Option<V>)> {
            all.into_iter().map(|(key, _)| (key, None)).collect()
        }
        Self { windows: none(self.windows), rates: none(self.rates), flows: none(self.flows) }
    }
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct PairKey {
    ue: Address,
    rule: u32,
    reserved: u32,
}

#[derive(Clone, Copy, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
struct FlowMarkKey {
    pair: PairKey,
    mark: u64,
}

impl From<RuleAndUser> for PairKey {
    fn from((rule, ue): RuleAndUser) -> Self {
        let ue = match ue {
            IpAddr::V4(v4) => Address::v4(v4.octets()),
            IpAddr::V6(v6) => Address::v6(v6.octets()),
        };
        Self { ue, rule, reserved: 0 }
    }
}

impl From<PairKey> for RuleAndUser {
    fn from(key: PairKey) -> Self {
        (key.rule, ip_address(key.ue))
    }
}

const PAIR: usize = size_of::<PairKey>();
const MARK: usize = size_of::<FlowMarkKey>();
const WINDOW: usize = size_of::<LatelyFired>();
const RATE: usize = size_of::<RateNote>();

/// The notes, in three maps.
pub struct DeepNotes {
    windows: HashMap<MapData, [u8; PAIR], [u8; WINDOW]>,
    rates: HashMap<MapData, [u8; PAIR], [u8; RATE]>,
    flows: HashMap<MapData, [u8; MARK], u64>,
}

impl DeepNotes {
    /// Those that are pinned, or none yet.
    pub(super) fn open(pins: &PinDirectory) -> Result<Self, LoadError> {
        Ok(Self {
            windows: agent_map::open(pins, "WINDOW_NOTES", PAIRS as u32)?,
            rates: agent_map::open(pins, "RATE_NOTES", PAIRS as u32)?,
            flows: agent_map::open(pins, "RATE_FLOW_NOTES", MARKS as u32)?,
        })
    }

    /// All of them.
    pub fn all(&self) -> DeepChanges {
        let pair = |bytes: [u8; PAIR]| {
            let key: PairKey = zerocopy::transmute!(bytes);
            RuleAndUser::from(key)
        };
        let windows = self.windows.iter().filter_map(Result::ok);
        let rates = self.rates.iter().filter_map(Result::ok);
        let flows = self.flows.iter().filter_map(Result::ok);
        DeepChanges {
            windows: windows
                .map(|(key, note)| (pair(key), Some(zerocopy::transmute!(note))))
                .collect(),
            rates: rates.map(|(key, note)| (pair(key), Some(zerocopy::transmute!(note)))).collect(),
            flows: flows
                .map(|(key, slot)| {
                    let FlowMarkKey { pair, mark } = zerocopy::transmute!(key);
                    ((pair.into(), mark), Some(slot))
                })
                .collect(),
        }
    }

    /// Remembers what changed, and forgets what is gone. Removals first: they make the room.
    pub fn write(&mut self, changes: &DeepChanges) {
        let key = |pair: &RuleAndUser| -> [u8; PAIR] {
            let key = PairKey::from(*pair);
            zerocopy::transmute!(key)
        };
        let windows = changes.windows.iter().map(|(pair, note)| {
            (key(pair), note.map(|note| -> [u8; WINDOW] { zerocopy::transmute!(note) }))
        });
        let rates = changes.rates.iter().map(|(pair, note)| {
            (key(pair), note.map(|note| -> [u8; RATE] { zerocopy::transmute!(note) }))
        });
        let flows = changes.flows.iter().map(|((pair, mark), slot)| {
            let key = FlowMarkKey { pair: (*pair).into(), mark: *mark };
            (zerocopy::transmute!(key), *slot)
        });
        write(&mut self.windows, windows);
        write(&mut self.rates, rates);
        write(&mut self.flows, flows);
    }
}

fn write<K: aya::Pod, V: aya::Pod>(
    map: &mut HashMap<MapData, K, V>,
    notes: impl Iterator<Item = (K, Option<V>)> + Clone,
) {
    for (key, _) in notes.clone().filter(|(_, note)| note.is_none()) {
        // One that was never noted is as good.
        let _ = map.remove(&key);
    }
    for (key, note) in notes {
        let Some(note) = note else { continue };
        if let Err(error) = map.insert(key, note, 0) {
            log::warn!("notes of rules: {error}; the next agent begins windows and rates anew");
        }
    }
}
