//! Loads the kernel programs and hands out their maps.

use std::{mem::offset_of, sync::Arc};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, MapError, PerCpuArray},
};
use detector_common::{
    counter::{COUNTERS, Counter},
    cpu::CpuMemory,
    event::{RING_PARTS, ring_step},
};

use super::{
    clock_notes::ClockNotes,
    deep_notes::DeepNotes,
    device_notes::DeviceNotes,
    flow_notes::FlowNotes,
    object::{self, NotBuilt},
    ring_buffer::Ring,
    ring_notes::RingNotes,
    rule_maps::RuleMaps,
    rule_notes::{GenerationNotes, ReadNotes, TotalNotes},
    session_map::SessionMap,
    session_notes::SessionNotes,
};
use crate::pin::PinDirectory;

/// The maps that are pinned, where pins are kept. The others hold nothing that outlives a tick.
pub const PINNED_MAPS: [&str; 10] = [
    "ACTIVE",
    "BURSTS",
    "CPU",
    "EVENTS",
    "FLOWS",
    "MARKS",
    "RULE_COUNTS",
    "SESSIONS",
    "SUPPRESSIONS",
    "TABLES",
];

/// As many CPUs as there may be where the kernel does not say.
const MANY_CPUS: usize = 1024;

/// Sizes of what the kernel side remembers, fixed when it is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KernelLimits {
    /// Sessions (a UE and an application); 96 bytes each.
    pub sessions: u32,
    /// TCP connections and UDP flows; also suppression windows.
    pub flows: u32,
    /// Bytes of the ring buffer: a power of two, at least a page.
    pub ring_bytes: u32,
    /// Wake the reader at most once in this many ns and CPU; `None` for the built-in 250 us.
    pub wake_holdoff_ns: Option<u64>,
}

impl Default for KernelLimits {
    fn default() -> Self {
        Self { sessions: 65536, flows: 65536, ring_bytes: 4 << 20, wake_holdoff_ns: None }
    }
}

/// The kernel side could not be loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// See [`NotBuilt`].
    #[error(transparent)]
    NotBuilt(#[from] NotBuilt),
    /// The kernel or aya refused.
    #[error("the kernel programs could not be loaded; {hint}")]
    Refused {
        /// What usually helps.
        hint: &'static str,
        /// What was said.
        #[source]
        source: Box<aya::EbpfError>,
    },
    /// The object lacks a map: built from another version of the source.
    #[error(
        "the kernel object has no map {0}: it was built from another version; run `cargo xtask build`"
    )]
    MissingMap(&'static str),
    /// A map could not be used.
    #[error("map {name}")]
    Map {
        /// Which.
        name: &'static str,
        /// What was said.
        #[source]
        source: MapError,
    },
}

/// The loaded kernel side: the programs and their maps.
pub struct Kernel {
    /// The programs, for attaching.
    pub ebpf: Ebpf,
    /// The rule tables.
    pub rules: RuleMaps,
    /// The session table.
    pub sessions: SessionMap,
    /// The packet counters.
    pub counters: PacketCounters,
    /// The ring buffer.
    pub ring: Ring,
    /// What the next agent is to know, where pins are kept.
    pub notes: Option<Notes>,
    /// Log lines of programs that were built with the feature `log`; the shipped ones write none.
    pub log: Option<KernelLog>,
}

/// What agents tell the next one, in pinned maps that no program uses.
pub struct Notes {
    /// Of sessions.
    pub sessions: SessionNotes,
    /// Of the time of day.
    pub clock: ClockNotes,
    /// Of what records mean.
    pub generations: GenerationNotes,
    /// Of what was read.
    pub reads: ReadNotes,
    /// Of rules that user space decides.
    pub deep: DeepNotes,
    /// Of flows.
    pub flows: FlowNotes,
    /// Of the ring.
    pub ring: RingNotes,
    /// Of devices.
    pub devices: DeviceNotes,
}

impl Notes {
    fn open(pins: &PinDirectory, sessions: u32) -> Result<Self, LoadError> {
        Ok(Self {
            sessions: SessionNotes::open(pins, sessions)?,
            clock: ClockNotes::open(pins)?,
            generations: GenerationNotes::open(pins)?,
            reads: ReadNotes::open(pins)?,
            deep: DeepNotes::open(pins)?,
            flows: FlowNotes::open(pins)?,
            ring: RingNotes::open(pins)?,
            devices: DeviceNotes::open(pins)?,
        })
    }
}

/// Brings the kernel programs' log lines into this process's log, when it is flushed.
pub type KernelLog = aya_log::EbpfLogger<&'static dyn log::Log>;

impl Kernel {
    /// Loads the object that was built into this library.
    ///
    /// # Errors
    /// Without privileges, on a kernel before 5.8, or when the object was not built.
    pub fn load(limits: KernelLimits) -> Result<Self, LoadError> {
        Self::load_object(object::embedded()?, limits, None)
    }

    /// The same over pinned maps: those that another agent left, or new ones.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_pinned(limits: KernelLimits, pins: &PinDirectory) -> Result<Self, LoadError> {
        Self::load_object(object::embedded()?, limits, Some(pins))
    }

    /// Loads an object.
    ///
    /// # Errors
    /// As [`Self::load`].
    pub fn load_object(
        object: &[u8],
        limits: KernelLimits,
        pins: Option<&PinDirectory>,
    ) -> Result<Self, LoadError> {
        let share = u64::from(limits.ring_bytes) / RING_PARTS * (RING_PARTS - 1);
        let cpus = aya::util::nr_cpus().unwrap_or(MANY_CPUS) as u64;
        let step = ring_step(u64::from(limits.ring_bytes), cpus.max(1));
        let mut loader = EbpfLoader::new();
        loader
            .map_max_entries("SESSIONS", limits.sessions)
            .map_max_entries("FLOWS", limits.flows)
            .map_max_entries("SUPPRESSIONS", limits.flows)
            .map_max_entries("EVENTS", limits.ring_bytes)
            .override_global("RING_SHARE", &share, true)
            .override_global("RING_STEP", &step, true);
        if let Some(holdoff) = limits.wake_holdoff_ns.as_ref() {
            loader.override_global("WAKE_HOLDOFF", holdoff, true);
        }
        if let Some(pins) = pins {
            for name in PINNED_MAPS {
                loader.map_pin_path(name, pins.map(name));
            }
        }
        let mut ebpf = loader.load(object).map_err(refused)?;
        let notes = pins.map(|pins| Notes::open(pins, limits.sessions)).transpose()?;
        Ok(Self {
            notes,
            rules: RuleMaps::take(&mut ebpf, pins.map(TotalNotes::open).transpose()?)?,
            sessions: SessionMap::take(&mut ebpf, limits.sessions)?,
            counters: PacketCounters::take(&mut ebpf)?,
            ring: take_ring(&mut ebpf, "EVENTS")?,
            // An error says that there is no log map: the usual case.
            log: KernelLog::init(&mut ebpf).ok(),
            ebpf,
        })
    }
}

fn refused(source: aya::EbpfError) -> LoadError {
    let hint = if nix::unistd::geteuid().is_root() {
        "Detector needs Linux 5.8 or later with BPF enabled"
    } else {
        "run it as root or with CAP_BPF, CAP_NET_ADMIN and CAP_PERFMON"
    };
    LoadError::Refused { hint, source: Box::new(source) }
}

/// Takes a map out of the object.
pub(super) fn take<M>(ebpf: &mut Ebpf, name: &'static str) -> Result<M, LoadError>
where
    M: TryFrom<Map, Error = MapError>,
{
    let map = ebpf.take_map(name).ok_or(LoadError::MissingMap(name))?;
    M::try_from(map).map_err(|source| LoadError::Map { name, source })
}

fn take_ring(ebpf: &mut Ebpf, name: &'static str) -> Result<Ring, LoadError> {
    let map = ebpf.take_map(name).ok_or(LoadError::MissingMap(name))?;
    Ring::open(map).map_err(|source| LoadError::Map { name, source })
}

/// The packet counters, summed over CPUs when read.
#[derive(Clone)]
pub struct PacketCounters {
    map: Arc<PerCpuArray<MapData, [u8; size_of::<CpuMemory>()]>>,
}

impl PacketCounters {
    fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        Ok(Self { map: Arc::new(take(ebpf, "CPU")?) })
    }

    /// All counters, in the order of [`Counter::ALL`].
    ///
    /// # Errors
    /// When the kernel refuses to read the map.
    pub fn read(&self) -> Result<[u64; COUNTERS], MapError> {
        let mut sum = [0; COUNTERS];
        for cpu in self.map.get(&0, 0)?.iter() {
            let words = cpu[offset_of!(CpuMemory, counters)..].as_chunks().0;
            for (sum, value) in sum.iter_mut().zip(words) {
                *sum += u64::from_ne_bytes(*value);
            }
        }
        Ok(sum)
    }

    /// One counter.
    ///
    /// # Errors
    /// As [`Self::read`].
    pub fn get(&self, counter: Counter) -> Result<u64, MapError> {
        Ok(self.read()?[counter as usize])
    }
}
