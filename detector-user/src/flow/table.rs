//! A bounded table of flows. What gives way is chosen by the packets alone, so the same packets
//! give the same facts.

use std::hash::{Hash, Hasher};

use foldhash::fast::RandomState;
use indexmap::IndexMap;

use super::Endpoint;

/// Of so many entries the one that was unused longest gives way.
const LOOKED_AT: usize = 16;
/// With each entry that begins, so many are asked whether they were silent for too long: enough that
/// there are never twice as many as need be.
const SWEPT: usize = 4;

/// Both ends of a flow, the lower one first, so that both directions find it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Key(pub(super) [Endpoint; 2]);

impl Hash for Key {
    /// Word by word: this is done for every packet.
    fn hash<H: Hasher>(&self, state: &mut H) {
        let [a, b] = self.0;
        state.write_u64(a.address.0[0]);
        state.write_u64(a.address.0[1]);
        state.write_u64(b.address.0[0]);
        state.write_u64(b.address.0[1]);
        state.write_u32(u32::from(a.port) << 16 | u32::from(b.port));
    }
}

/// What is remembered of a flow.
pub(super) trait Remembered {
    /// A flow of which nothing was seen yet.
    fn begin(key: &Key) -> Self;

    /// Bytes that it keeps besides itself. Asked after every packet.
    fn kept(&self) -> usize;

    /// Whether it keeps a part of a message, or what came before its time.
    fn is_unfinished(&self) -> bool;
}

/// Values by flow.
pub(super) struct Table<V> {
    limit: usize,
    /// Bytes that all entries keep.
    kept: usize,
    /// Hashed quickly, with a seed: addresses and ports are chosen by whoever sends. Their order is
    /// that in which they came, whatever the seed.
    flows: IndexMap<Key, Entry<V>, RandomState>,
    hand: usize,
    /// Where the next one is asked.
    broom: usize,
    /// Entries that gave way.
    pub(super) evicted: u64,
}

struct Entry<V> {
    last_ns: u64,
    /// What it keeps, as it is summed up.
    kept: usize,
    value: V,
}

impl<V: Remembered> Table<V> {
    pub(super) fn new(limit: usize) -> Self {
        Self {
            limit: limit.max(1),
            kept: 0,
            flows: IndexMap::default(),
            hand: 0,
            broom: 0,
            evicted: 0,
        }
    }

    /// Whether a flow is in the middle of a message.
    pub(super) fn is_unfinished(&self, key: &Key) -> bool {
        self.flows.get(key).is_some_and(|entry| entry.value.is_unfinished())
    }

    /// Visits the value of a flow, a new one if it was silent for `idle_ns`. A flow that is not known
    /// begins here if it `may_begin`, and else is not visited.
    pub(super) fn visit<R>(
        &mut self,
        key: Key,
        now_ns: u64,
        idle_ns: u64,
        may_begin: bool,
        visit: impl FnOnce(&mut V) -> R,
    ) -> Option<R> {
        let place = match self.flows.get_index_of(&key) {
            Some(place) => place,
            None if may_begin => self.insert(key, now_ns, idle_ns),
            None => return None,
        };
        let entry = &mut self.flows[place];
        if now_ns.saturating_sub(entry.last_ns) > idle_ns {
            entry.value = V::begin(&key);
        }
        entry.last_ns = entry.last_ns.max(now_ns);
        let result = visit(&mut entry.value);
        let before = std::mem::replace(&mut entry.kept, entry.value.kept());
        self.kept = self.kept - before + entry.kept;
        Some(result)
    }

    fn insert(&mut self, key: Key, now_ns: u64, idle_ns: u64) -> usize {
        self.sweep(now_ns, idle_ns);
        if self.flows.len() >= self.limit {
            self.evict();
        }
        self.flows.insert_full(key, Entry { last_ns: now_ns, kept: 0, value: V::begin(&key) }).0
    }

    /// Takes out what would begin anew at its next packet. It costs nobody anything, and is not counted.
    fn sweep(&mut self, now_ns: u64, idle_ns: u64) {
        for _ in 0..SWEPT {
            let Some((_, entry)) = self.flows.get_index(self.broom) else {
                self.broom = 0;
                continue;
            };
            if now_ns.saturating_sub(entry.last_ns) <= idle_ns {
                self.broom += 1;
            } else if let Some((_, gone)) = self.flows.swap_remove_index(self.broom) {
                self.kept -= gone.kept;
            }
        }
    }

    /// Takes out what was unused for long until no more bytes are kept than these.
    pub(super) fn shrink(&mut self, kept: usize) {
        while self.kept > kept && self.evict().is_some() {}
    }

    /// Bytes that all entries keep.
    pub(super) fn kept(&self) -> usize {
        self.kept
    }

    /// How many there are.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.flows.len()
    }

    fn evict(&mut self) -> Option<()> {
        let count = self.flows.len();
        let places = (0..LOOKED_AT.min(count)).map(|step| (self.hand + step) % count);
        let place = places.min_by_key(|place| self.flows[*place].last_ns)?;
        self.hand = (self.hand + LOOKED_AT) % count;
        let (_, gone) = self.flows.swap_remove_index(place)?;
        self.kept -= gone.kept;
        self.evicted += 1;
        Some(())
    }

    /// Every entry, in an order that only the packets decide.
    pub(super) fn iter_mut(&mut self) -> impl Iterator<Item = (&Key, &mut V)> {
        self.flows.iter_mut().map(|(key, entry)| (key, &mut entry.value))
    }
}
