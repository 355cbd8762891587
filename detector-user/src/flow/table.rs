//! A bounded table of flows. What gives way is chosen by the packets alone, so the same packets
//! give the same facts.

use std::collections::HashMap;

use foldhash::fast::RandomState;

use super::Key;

/// Of so many entries the one that was unused longest gives way.
const LOOKED_AT: usize = 16;

/// What a flow keeps besides itself.
pub(super) trait Waiting {
    /// Bytes that wait for more.
    fn waiting(&self) -> usize;
}

/// Values by flow.
pub(super) struct Table<V> {
    limit: usize,
    /// Bytes that wait in all entries.
    waiting: usize,
    /// Hashed quickly, with a seed: addresses and ports are chosen by whoever sends.
    places: HashMap<Key, usize, RandomState>,
    entries: Vec<Entry<V>>,
    hand: usize,
    /// Entries that gave way.
    pub(super) evicted: u64,
}

struct Entry<V> {
    key: Key,
    last_ns: u64,
    /// What waits in it, as it is summed up.
    waiting: usize,
    value: V,
}

impl<V: Waiting> Table<V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            waiting: 0,
            places: HashMap::default(),
            entries: Vec::new(),
            hand: 0,
            evicted: 0,
        }
    }

    pub(super) fn contains(&self, key: &Key) -> bool {
        self.places.contains_key(key)
    }

    /// Visits the value of a flow, made if there is none or the flow was silent for `idle_ns`.
    pub(super) fn visit<R>(
        &mut self,
        key: Key,
        now_ns: u64,
        idle_ns: u64,
        make: impl FnOnce(Key) -> V,
        visit: impl FnOnce(&mut V) -> R,
    ) -> R {
        let place = match self.places.get(&key) {
            Some(place) => {
                let entry = &mut self.entries[*place];
                if now_ns.saturating_sub(entry.last_ns) > idle_ns {
                    entry.value = make(key);
                }
                *place
            }
            None => self.insert(key, make(key)),
        };
        let entry = &mut self.entries[place];
        entry.last_ns = entry.last_ns.max(now_ns);
        let result = visit(&mut entry.value);
        let before = std::mem::replace(&mut entry.waiting, entry.value.waiting());
        self.waiting = self.waiting - before + entry.waiting;
        result
    }

    fn insert(&mut self, key: Key, value: V) -> usize {
        if self.entries.len() >= self.limit {
            self.evict();
        }
        let place = self.entries.len();
        self.entries.push(Entry { key, last_ns: 0, waiting: 0, value });
        self.places.insert(key, place);
        place
    }

    /// Takes out what was unused for long until no more bytes wait than these.
    pub(super) fn shrink(&mut self, waiting: usize) {
        while self.waiting > waiting && self.evict().is_some() {}
    }

    /// Bytes that wait in all entries.
    #[cfg(test)]
    pub(super) fn waiting(&self) -> usize {
        self.waiting
    }

    fn evict(&mut self) -> Option<()> {
        let count = self.entries.len();
        let places = (0..LOOKED_AT.min(count)).map(|step| (self.hand + step) % count);
        let place = places.min_by_key(|place| self.entries[*place].last_ns)?;
        self.hand = (self.hand + LOOKED_AT) % count;
        let gone = self.entries.swap_remove(place);
        self.places.remove(&gone.key);
        if let Some(moved) = self.entries.get(place) {
            self.places.insert(moved.key, place);
        }
        self.waiting -= gone.waiting;
        self.evicted += 1;
        Some(())
    }

    /// Every entry, in an order that only the packets decide.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = &mut V> {
        self.entries.iter_mut().map(|entry| &mut entry.value)
    }
}
