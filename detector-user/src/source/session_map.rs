//! The kernel's tables of sessions and flows, as the agent reads them.

use std::sync::Arc;

use aya::{
    Ebpf,
    maps::{HashMap, MapData, MapError},
};
use detector_common::state::{FlowKey, FlowSnapshot, SessionKey, SessionSnapshot};
use zerocopy::{FromBytes, IntoBytes};

use super::kernel::{LoadError, take};

const KEY: usize = size_of::<SessionKey>();
const STATE: usize = size_of::<SessionSnapshot>();
const FLOW_KEY: usize = size_of::<FlowKey>();
const FLOW_STATE: usize = size_of::<FlowSnapshot>();

type Map = HashMap<MapData, [u8; KEY], [u8; STATE]>;
type FlowMap = HashMap<MapData, [u8; FLOW_KEY], [u8; FLOW_STATE]>;

/// The kernel's session table. An LRU map: when it is full, the longest unused session goes.
#[derive(Clone)]
pub struct SessionMap {
    map: Arc<std::sync::Mutex<Map>>,
    flows: Arc<std::sync::Mutex<FlowMap>>,
}

/// How sessions are looked at; the kernel's map, or the software source's.
pub trait Sessions {
    /// A session as it stands, if it is still there.
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot>;
    /// Ends a session: the UE's next packet begins a new one.
    fn remove(&mut self, key: &SessionKey);
    /// Every session there is.
    fn keys(&mut self) -> Vec<SessionKey>;
    /// A flow as it stands, if it is still there.
    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot>;
}

impl SessionMap {
    pub(super) fn take(ebpf: &mut Ebpf) -> Result<Self, LoadError> {
        Ok(Self {
            map: Arc::new(std::sync::Mutex::new(take(ebpf, "SESSIONS")?)),
            flows: Arc::new(std::sync::Mutex::new(take(ebpf, "FLOWS")?)),
        })
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, HashMap<MapData, [u8; KEY], [u8; STATE]>> {
        self.map.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

fn key_bytes(key: &SessionKey) -> [u8; KEY] {
    zerocopy::transmute!(*key)
}

impl Sessions for SessionMap {
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        match self.lock().get(&key_bytes(key), 0) {
            Ok(bytes) => SessionSnapshot::read_from_bytes(bytes.as_bytes()).ok(),
            Err(MapError::KeyNotFound) => None,
            Err(error) => {
                log::warn!("session table: {error}");
                None
            }
        }
    }

    fn remove(&mut self, key: &SessionKey) {
        match self.lock().remove(&key_bytes(key)) {
            Ok(()) | Err(MapError::KeyNotFound) => {}
            Err(MapError::SyscallError(error))
                if error.io_error.raw_os_error() == Some(libc::ENOENT) => {}
            Err(error) => log::warn!("session table: {error}"),
        }
    }

    fn keys(&mut self) -> Vec<SessionKey> {
        let map = self.lock();
        map.keys()
            .filter_map(Result::ok)
            .filter_map(|bytes| SessionKey::read_from_bytes(&bytes).ok())
            .collect()
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot> {
        let key: [u8; FLOW_KEY] = zerocopy::transmute!(*key);
        let flows = self.flows.lock().unwrap_or_else(std::sync::PoisonError::into_inner);
        let bytes = flows.get(&key, 0).ok()?;
        FlowSnapshot::read_from_bytes(&bytes).ok()
    }
}
