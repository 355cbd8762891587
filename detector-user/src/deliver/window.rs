//! The events of a sink that are in memory, by UE: only the first of each UE is ever tried, so that
//! a UE's events stay in order and one that is retried holds up no other UE.

use std::{
    collections::{BTreeSet, HashMap, VecDeque},
    sync::Arc,
};

use foldhash::fast::RandomState;
use tokio::time::Instant;

use super::{Outgoing, item::Item};
use crate::spool::Fate;

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Head {
    Ready,
    Trying,
    Waiting(Instant),
}

struct Queue {
    items: VecDeque<Item>,
    head: Head,
}

/// By UE. A key in `ready` whose queue is gone or not ready is skipped.
#[derive(Default)]
pub(super) struct Window {
    queues: HashMap<u64, Queue, RandomState>,
    ready: VecDeque<u64>,
    waiting: BTreeSet<(Instant, u64)>,
    length: usize,
    arrived: u64,
}

impl Window {
    pub(super) fn len(&self) -> usize {
        self.length
    }

    pub(super) fn push(&mut self, mut item: Item) {
        item.order = self.arrived;
        self.arrived += 1;
        self.length += 1;
        let key = item.key();
        if let Some(queue) = self.queues.get_mut(&key) {
            return queue.items.push_back(item);
        }
        self.queues.insert(key, Queue { items: VecDeque::from([item]), head: Head::Ready });
        self.ready.push_back(key);
    }

    /// The event whose turn it is; from now on it is being tried.
    pub(super) fn next(&mut self, now: Instant) -> Option<(u64, Arc<Outgoing>)> {
        while let Some((at, key)) = self.waiting.first().copied().filter(|(at, _)| *at <= now) {
            self.waiting.remove(&(at, key));
            self.set_ready(key, false);
        }
        while let Some(key) = self.ready.pop_front() {
            let Some(queue) = self.queues.get_mut(&key) else { continue };
            if queue.head == Head::Ready
                && let Some(item) = queue.items.front()
            {
                queue.head = Head::Trying;
                return Some((key, item.outgoing().clone()));
            }
        }
        None
    }

    /// When an event that waits for its next attempt may be tried.
    pub(super) fn next_wake(&self) -> Option<Instant> {
        self.waiting.first().map(|(at, _)| *at)
    }

    pub(super) fn head_mut(&mut self, key: u64) -> Option<&mut Item> {
        self.queues.get_mut(&key)?.items.front_mut()
    }

    /// The first of this UE has ended; the next one's turn comes after the other UEs'.
    pub(super) fn pop(&mut self, key: u64) -> Option<Item> {
        let queue = self.queues.get_mut(&key)?;
        let item = queue.items.pop_front()?;
        self.length -= 1;
        if queue.items.is_empty() {
            self.queues.remove(&key);
        } else {
            self.set_ready(key, false);
        }
        Some(item)
    }

    pub(super) fn retry_at(&mut self, key: u64, at: Instant) {
        if let Some(queue) = self.queues.get_mut(&key) {
            queue.head = Head::Waiting(at);
            self.waiting.insert((at, key));
        }
    }

    pub(super) fn retry_first(&mut self, key: u64) {
        self.set_ready(key, true);
    }

    /// After all other UEs: so that probes do not stick to one event.
    pub(super) fn retry_last(&mut self, key: u64) {
        self.set_ready(key, false);
    }

    fn set_ready(&mut self, key: u64, first: bool) {
        let Some(queue) = self.queues.get_mut(&key) else { return };
        queue.head = Head::Ready;
        match first {
            true => self.ready.push_front(key),
            false => self.ready.push_back(key),
        }
    }

    /// Those that are not in the spool, in the order they came.
    pub(super) fn unkept(&mut self) -> Vec<&mut Item> {
        let items = self.queues.values_mut().flat_map(|queue| &mut queue.items);
        let mut unkept: Vec<_> = items.filter(|item| item.kept.is_none() && !item.doomed).collect();
        unkept.sort_by_key(|item| item.order);
        unkept
    }

    /// Takes out those that had to give way in the spool; the one being sent gets its last chance.
    pub(super) fn give_way(&mut self, fates: &HashMap<u64, Fate>) -> Vec<(Item, Fate)> {
        let mut gone = Vec::new();
        let mut freed = Vec::new();
        for (key, queue) in &mut self.queues {
            let trying = queue.head == Head::Trying;
            let before = gone.len();
            let mut stay = VecDeque::with_capacity(queue.items.len());
            for (place, mut item) in queue.items.drain(..).enumerate() {
                let fate = item.kept.and_then(|number| fates.get(&number));
                match fate {
                    Some(_) if trying && place == 0 => {
                        (item.kept, item.doomed) = (None, true);
                        stay.push_back(item);
                    }
                    Some(fate) => gone.push((item, *fate)),
                    None => stay.push_back(item),
                }
            }
            queue.items = stay;
            if gone.len() > before && !trying {
                freed.push((*key, queue.head));
            }
        }
        self.length -= gone.len();
        for (key, head) in freed {
            if let Head::Waiting(at) = head {
                self.waiting.remove(&(at, key));
            }
            self.set_ready(key, false);
        }
        self.queues.retain(|_, queue| !queue.items.is_empty());
        gone
    }
}
