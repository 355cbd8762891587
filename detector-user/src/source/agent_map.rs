//! Maps that only agents use, pinned beside the kernel's: how one agent tells the next.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, MapData, MapError},
};

use super::kernel::LoadError;
use crate::pin::PinDirectory;

/// `BPF_F_NO_PREALLOC`: memory for the entries there are, not for those there could be.
const NO_PREALLOC: u32 = 1;

/// The map that is pinned under this name, or a new one.
pub(super) fn open<K: Pod, V: Pod>(
    pins: &PinDirectory,
    name: &'static str,
    entries: u32,
) -> Result<HashMap<MapData, K, V>, LoadError> {
    let failed = |source| LoadError::Map { name, source };
    let path = pins.map(name);
    if !path.exists() {
        let map: HashMap<MapData, K, V> = HashMap::create(entries, NO_PREALLOC).map_err(failed)?;
        let pinned = map.pin(&path);
        pinned.map_err(|error| failed(MapError::PinError { name: None, error }))?;
    }
    let map = MapData::from_pin(&path).map_err(failed)?;
    aya::maps::Map::HashMap(map).try_into().map_err(failed)
}

/// A map of another layout, if it is there and its keys and values have these sizes.
pub(super) fn existing<K: Pod, V: Pod>(path: &Path) -> Option<HashMap<MapData, K, V>> {
    let map = MapData::from_pin(path).ok()?;
    aya::maps::Map::HashMap(map).try_into().ok()
}
