//! Entries of tables that have another size since the last agent: they are copied into the new ones.
//! Packets that pass in between, some milliseconds, are counted in the old ones.

use std::path::Path;

use aya::{
    Pod,
    maps::{HashMap, MapData},
};
use detector_common::state::{FlowKey, FlowSnapshot, SessionKey, SessionSnapshot, SuppressionKey};

use super::{agent_map, session_notes};
use crate::pin::PinDirectory;

/// `BPF_NOEXIST`: what is there is newer.
const NO_EXIST: u64 = 1;

/// Copies from the tables in this directory, which are of the same source, what the new ones have not.
/// Those that are the same tables have all of it.
pub fn copy_missing(from: &Path, to: &PinDirectory) {
    copy::<[u8; size_of::<SessionKey>()], [u8; size_of::<SessionSnapshot>()]>(from, to, "SESSIONS");
    copy::<[u8; size_of::<FlowKey>()], [u8; size_of::<FlowSnapshot>()]>(from, to, "FLOWS");
    copy::<[u8; size_of::<SuppressionKey>()], u64>(from, to, "SUPPRESSIONS");
    copy::<[u8; session_notes::KEY], [u8; session_notes::NOTE]>(from, to, session_notes::NAME);
}

fn copy<K: Pod, V: Pod>(from: &Path, to: &PinDirectory, name: &str) {
    let old: Option<HashMap<MapData, K, V>> = agent_map::existing(&from.join(name));
    let new: Option<HashMap<MapData, K, V>> = agent_map::existing(&to.map(name));
    let Some((old, mut new)) = old.zip(new) else {
        log::warn!("{name}: cannot be copied from {}; it begins empty", from.display());
        return;
    };
    for (key, value) in old.iter().filter_map(Result::ok) {
        // It is there already, or there is no room: the new table is smaller.
        let _ = new.insert(key, value, NO_EXIST);
    }
}
