//! How the bytes of pinned maps are to be read, as a name.

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

#[cfg(test)]
mod tests {
    use super::*;

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
