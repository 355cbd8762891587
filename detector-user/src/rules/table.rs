//! One generation of rule tables in memory: what replay and tests classify with, and what the
//! loader copies into the kernel's maps.

use detector_common::{
    lookup,
    packet::Address,
    rule::{
        ApplicationEntry, BUCKET_ENTRIES, Bucket, Generation, MAX_BUCKETS, NAME_WORDS, PORT_WORDS,
        PrefixMask, PrefixMasks, Row, RuleEntry, Tables, Tag,
    },
};

/// A generation of rule tables. Every vector is as long as it needs to be; the kernel's maps have
/// room for the maximum.
#[derive(Clone, Debug)]
pub struct TableImage {
    /// The head.
    pub generation: Generation,
    /// The read-only hash table.
    pub buckets: Vec<Bucket>,
    /// Port classes in words of four: TCP, then UDP.
    pub ports: Vec<[u16; 4]>,
    /// The filter of DNS names.
    pub names: Vec<u64>,
    /// Rows.
    pub rows: Vec<Row>,
    /// Applications.
    pub applications: Vec<ApplicationEntry>,
    /// Rules.
    pub rules: Vec<RuleEntry>,
}

impl TableImage {
    /// Tables before any rules are loaded: every packet counts as `no_rules`.
    pub fn empty() -> Self {
        Self {
            generation: Generation::default(),
            buckets: vec![Bucket::EMPTY],
            ports: vec![[0; 4]; PORT_WORDS],
            names: vec![0; NAME_WORDS],
            rows: Vec::new(),
            applications: Vec::new(),
            rules: Vec::new(),
        }
    }
}

impl Tables for TableImage {
    fn generation(&self) -> Option<&Generation> {
        Some(&self.generation)
    }
    fn bucket(&self, index: u32) -> Option<&Bucket> {
        self.buckets.get(index as usize)
    }
    fn ports(&self, index: u32) -> Option<&[u16; 4]> {
        self.ports.get(index as usize)
    }
    fn names(&self, index: u32) -> Option<&u64> {
        self.names.get(index as usize)
    }
    fn row(&self, index: u32) -> Option<&Row> {
        self.rows.get(index as usize)
    }
    fn application(&self, index: u32) -> Option<&ApplicationEntry> {
        self.applications.get(index as usize)
    }
    fn rule(&self, index: u32) -> Option<&RuleEntry> {
        self.rules.get(index as usize)
    }
}

/// One entry of the hash table.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Key.
    pub key: [u64; 2],
    /// What the key stands for.
    pub tag: Tag,
    /// What is found.
    pub value: u32,
}

/// A hash table in which no bucket overflows: the seed that made it, and its buckets.
pub struct HashTable {
    /// The seed.
    pub seed: u64,
    /// A power of two of buckets.
    pub buckets: Vec<Bucket>,
}

/// Builds the hash table. `None` when the entries do not fit [`MAX_BUCKETS`] buckets; 8,192
/// entries always did in tests.
pub fn build_hash_table(entries: &[Entry]) -> Option<HashTable> {
    const SEEDS_PER_SIZE: u64 = 64;
    let mut size = entries.len().next_power_of_two().max(8);
    while size <= MAX_BUCKETS {
        for seed in 0..SEEDS_PER_SIZE {
            // Spread over all 64 bits; deterministic, so that the same rules give the same tables.
            let seed = (seed + 1).wrapping_mul(0xa076_1d64_78bd_642f);
            if let Some(buckets) = fill(entries, seed, size) {
                return Some(HashTable { seed, buckets });
            }
        }
        size *= 2;
    }
    None
}

fn fill(entries: &[Entry], seed: u64, size: usize) -> Option<Vec<Bucket>> {
    let mut buckets = vec![Bucket::EMPTY; size];
    for entry in entries {
        let index = lookup::hash(seed, entry.key, entry.tag) as usize & (size - 1);
        let bucket = &mut buckets[index];
        let place = (0..BUCKET_ENTRIES).find(|place| bucket.tags[*place] == 0)?;
        bucket.keys[place] = entry.key;
        bucket.tags[place] = entry.tag.0;
        bucket.values[place] = entry.value;
    }
    Some(buckets)
}

/// The mask of a prefix length in IPv4-mapped form, 0 to 128.
pub fn mask(length: u8) -> Address {
    Address::v6((u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0)).to_be_bytes())
}

/// The probe list of distinct prefix lengths. `None` when there are more than the tables hold.
pub fn prefix_masks(
    lengths: impl IntoIterator<Item = u8>,
    tag: fn(u8) -> Tag,
) -> Option<PrefixMasks> {
    let mut lengths: Vec<u8> = lengths.into_iter().collect();
    lengths.sort_unstable_by(|a, b| b.cmp(a));
    lengths.dedup();
    let mut masks = PrefixMasks { count: lengths.len() as u32, ..PrefixMasks::default() };
    for (index, length) in lengths.into_iter().enumerate() {
        let place = masks.lengths.get_mut(index)?;
        *place = PrefixMask { mask: mask(length), tag: tag(length).0, reserved: 0 };
    }
    Some(masks)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn eight_thousand_entries_fit_and_each_is_found() {
        let entries: Vec<Entry> = (0..8192u32)
            .map(|n| Entry { key: [u64::from(n), 7], tag: Tag::ENDPOINT, value: n })
            .collect();
        let table = build_hash_table(&entries).expect("fits");
        let mut image = TableImage::empty();
        image.generation.seed = table.seed;
        image.generation.bucket_mask = table.buckets.len() as u32 - 1;
        image.buckets = table.buckets;
        for entry in &entries {
            let found = lookup::find(&image, &image.generation, entry.key, entry.tag);
            assert_eq!(found, Some(entry.value));
        }
        assert_eq!(lookup::find(&image, &image.generation, [9999, 8], Tag::ENDPOINT), None);
    }

    #[test]
    fn neighbouring_addresses_fit_into_few_buckets() {
        let entries: Vec<Entry> = (0..2000u32)
            .map(|n| {
                let key = Address::v4((0x0a2e_0001 + n).to_be_bytes()).0;
                Entry { key, tag: Tag::application_prefix(128), value: n }
            })
            .collect();
        let table = build_hash_table(&entries).expect("fits");
        assert!(table.buckets.len() <= 4096, "{} buckets", table.buckets.len());
    }

    #[test]
    fn masks_cover_the_leading_bits() {
        assert_eq!(mask(0).bytes(), [0; 16]);
        assert_eq!(mask(128).bytes(), [255; 16]);
        assert_eq!(mask(97).bytes()[11..], [255, 0x80, 0, 0, 0]);
    }

    #[test]
    fn nine_prefix_lengths_are_too_many() {
        assert!(prefix_masks(1..=8, Tag::ue_prefix).is_some());
        assert!(prefix_masks(1..=9, Tag::ue_prefix).is_none());
    }
}
