//! How the bytes of pinned maps are to be read, as a name.

use std::path::Path;

use crate::source::kernel::KernelLimits;

/// A hash of the source text that says what lies in maps, without its comments. Any change makes
/// another layout: at worst an update then begins with empty tables where it could have gone on, and
/// never reads what it does not understand.
pub const SOURCE_HASH: &str = env!("DETECTOR_LAYOUT");

/// The layout of maps that this agent makes under these limits.
pub fn name(limits: &KernelLimits) -> String {
    let KernelLimits { sessions, flows, ring_bytes, wake_holdoff_ns: _ } = limits;
    format!("layout-{SOURCE_HASH}-{sessions}-{flows}-{ring_bytes}")
}

/// What a layout's name says.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Layout {
    /// Of the source.
    pub(crate) hash: String,
    sessions: u32,
    flows: u32,
    ring_bytes: u32,
}

impl Layout {
    /// The layout of the maps in this directory, unless its name is none.
    pub(crate) fn of(maps: &Path) -> Option<Self> {
        let mut words = maps.file_name()?.to_str()?.strip_prefix("layout-")?.split('-');
        let hash = words.next()?.to_owned();
        let mut size = || words.next()?.parse().ok();
        Some(Self { hash, sessions: size()?, flows: size()?, ring_bytes: size()? })
    }

    /// Whether a map has the same size in both. Those that no limit says anything of always have.
    pub(crate) fn has_same(&self, other: &Self, map: &str) -> bool {
        match map {
            "SESSIONS" | "SESSION_NOTES" => self.sessions == other.sessions,
            "FLOWS" | "SUPPRESSIONS" => self.flows == other.flows,
            // Positions are those of the ring that is noted.
            "EVENTS" | "RING_NOTES" => self.ring_bytes == other.ring_bytes,
            _ => true,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_says_which_maps_have_another_size() {
        let of = |limits: KernelLimits| Layout::of(Path::new(&name(&limits))).unwrap();
        let limits = KernelLimits::default();
        let (old, ring) = (of(limits), of(KernelLimits { ring_bytes: 4096, ..limits }));
        assert_eq!(old.hash, SOURCE_HASH);
        assert!(!old.has_same(&ring, "EVENTS") && !old.has_same(&ring, "RING_NOTES"));
        assert!(old.has_same(&ring, "SESSIONS") && old.has_same(&ring, "RULE_COUNTS"));
        let few = of(KernelLimits { sessions: 1, flows: 2, ..limits });
        let same = ["SESSIONS", "SESSION_NOTES", "FLOWS", "SUPPRESSIONS", "EVENTS", "TABLES"];
        let same = same.map(|map| old.has_same(&few, map));
        assert_eq!(same, [false, false, false, false, true, true]);
        for none in ["links", "layout-building", "layout-0123-1-2", "layout-0123-1-2-x"] {
            assert_eq!(Layout::of(Path::new(none)), None, "{none}");
        }
    }

    #[test]
    fn other_sizes_are_another_layout() {
        let limits = KernelLimits::default();
        let same = KernelLimits { wake_holdoff_ns: Some(1), ..limits };
        assert_eq!(name(&limits), name(&same));
        let others = [
            KernelLimits { sessions: 1, ..limits },
            KernelLimits { flows: 1, ..limits },
            KernelLimits { ring_bytes: 4096, ..limits },
        ];
        for other in others {
            assert_ne!(name(&limits), name(&other));
        }
        assert_eq!(SOURCE_HASH.len(), 16);
    }
}
