//! The kernel's tables of sessions and flows, as the agent reads them.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{Array, HashMap, MapData, MapError, PerCpuArray},
};
use detector_common::burst::Burst;
use detector_common::state::{FlowKey, FlowSnapshot, SessionKey, SessionSnapshot};
use zerocopy::{FromBytes, IntoBytes};

use super::kernel::{LoadError, take};

const KEY: usize = size_of::<SessionKey>();
const STATE: usize = size_of::<SessionSnapshot>();
const FLOW_KEY: usize = size_of::<FlowKey>();
const FLOW_STATE: usize = size_of::<FlowSnapshot>();

type Map = HashMap<MapData, [u8; KEY], [u8; STATE]>;
type BurstMap = PerCpuArray<MapData, [u8; size_of::<Burst>()]>;
type FlowMap = HashMap<MapData, [u8; FLOW_KEY], [u8; FLOW_STATE]>;

/// The kernel's session table. An LRU map: when it is full, the longest unused session goes.
#[derive(Clone)]
pub struct SessionMap {
    map: Arc<std::sync::Mutex<Map>>,
    flows: Arc<std::sync::Mutex<FlowMap>>,
    bursts: Arc<BurstMap>,
    burst_ends: Arc<std::sync::Mutex<Array<MapData, u64>>>,
    room: usize,
}

/// How sessions are looked at; the kernel's map, or the software source's.
pub trait Sessions {
    /// A session as it stands, if it is still there.
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot>;
    /// Ends a session: the UE's next packet begins a new one.
    fn remove(&mut self, key: &SessionKey);
    /// Whether a packet that passes while its session is removed may be told of afterwards.
    fn has_late_records(&self) -> bool;
    /// Every session there is.
    fn keys(&mut self) -> Vec<SessionKey>;
    /// How many it has room for.
    fn room(&self) -> usize;
    /// A flow as it stands, if it is still there.
    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot>;
}

impl SessionMap {
    pub(super) fn take(ebpf: &mut Ebpf, room: u32) -> Result<Self, LoadError> {
        Ok(Self {
            map: Arc::new(std::sync::Mutex::new(take(ebpf, "SESSIONS")?)),
            flows: Arc::new(std::sync::Mutex::new(take(ebpf, "FLOWS")?)),
            bursts: Arc::new(take(ebpf, "BURSTS")?),
            burst_ends: Arc::new(std::sync::Mutex::new(take(ebpf, ".bss.burst_ends")?)),
            room: room as usize,
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, [u8; KEY], [u8; STATE]>> {
        self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }

    /// Ends all bursts, on all CPUs: a packet after the end of a session is one of the next.
    fn end_bursts(&self) {
        // Any value that was not there ends them.
        let other = fastrand::u64(..);
        let mut ends = self.burst_ends.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        if let Err(error) = ends.set(0, other, 0) {
            log::warn!("bursts of sessions: {error}");
        }
    }

    /// A session without the packets that are still in bursts.
    pub fn settled(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        match self.lock().get(&key_bytes(key), 0) {
            Ok(bytes) => SessionSnapshot::read_from_bytes(bytes.as_bytes()).ok(),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                log::warn!("session table: {error}");
                None
            }
        }
    }
}

fn key_bytes(key: &SessionKey) -> [u8; KEY] {
    zerocopy::transmute!(*key)
}

impl Sessions for SessionMap {
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        let mut session = self.settled(key)?;
        match self.bursts.get(&Burst::place(key), 0) {
            Ok(cpus) => cpus
                .iter()
                .filter_map(|bytes| Burst::read_from_bytes(bytes).ok())
                .for_each(|burst| burst.add_to(key, &mut session)),
            Err(error) => log::warn!("bursts of sessions: {error}"),
        }
        Some(session)
    }

    fn remove(&mut self, key: &SessionKey) {
        match self.lock().remove(&key_bytes(key)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => log::warn!("session table: {error}"),
        }
        self.end_bursts();
    }

    fn has_late_records(&self) -> bool {
        true
    }

    fn keys(&mut self) -> Vec<SessionKey> {
        let map = self.lock();
        map.keys()
            .filter_map(Result::ok)
            .filter_map(|bytes| SessionKey::read_from_bytes(&bytes).ok())
            .collect()
    }

    fn room(&self) -> usize {
        self.room
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot> {
        let key: [u8; FLOW_KEY] = zerocopy::transmute!(*key);
        let flows = self.flows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = flows.get(&key, 0).ok()?;
        FlowSnapshot::read_from_bytes(&bytes).ok()
    }
}
