//! What is allocated: resident memory also has what the allocator keeps for later, and hides a slow leak
//! behind it.

use crate::metrics::{Family, Kind, Sample};

/// For the metrics; none where the allocator does not tell.
pub(super) fn families() -> Vec<Family> {
    let Some(value) = allocated() else { return Vec::new() };
    vec![Family {
        name: "heap_allocated_bytes",
        help: "Memory that the agent has allocated, whether it is resident or not",
        unit: None,
        kind: Kind::Gauge,
        samples: vec![Sample { labels: Vec::new(), value }],
    }]
}

#[cfg(target_env = "gnu")]
fn allocated() -> Option<u64> {
    // SAFETY: it takes no pointer, and locks each arena while it looks (mallinfo2 of glibc 2.33).
    let info = unsafe { libc::mallinfo2() };
    u64::try_from(info.uordblks + info.hblkhd).ok()
}

#[cfg(not(target_env = "gnu"))]
fn allocated() -> Option<u64> {
    None
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    #[cfg(target_env = "gnu")]
    fn what_is_allocated_counts_until_it_is_freed() {
        let before = allocated().unwrap();
        // By mmap(2), and from an arena.
        let held = (vec![1_u8; 64 << 20], vec![vec![1_u8; 1_000]; 64_000]);
        assert!(allocated().unwrap() >= before + (120 << 20));
        drop(held);
        assert!(allocated().unwrap() < before + (64 << 20));
    }
}
