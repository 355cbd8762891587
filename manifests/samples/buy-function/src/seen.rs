//! Which events were here before. Bounded: the oldest are forgotten first.

use std::collections::{HashMap, VecDeque};

use cloudevents::{AttributesReader, Event};

/// `source` and `id` together name an event (CloudEvents 1.0, `id`).
type Key = (String, String);

/// Arrivals of the last events.
pub(crate) struct Seen {
    limit: usize,
    arrivals: HashMap<Key, u64>,
    order: VecDeque<Key>,
}

impl Seen {
    /// Remembers this many events, at least one.
    pub(crate) fn new(limit: usize) -> Self {
        Self { limit: limit.max(1), arrivals: HashMap::new(), order: VecDeque::new() }
    }

    /// How often this event has arrived, this time included.
    pub(crate) fn count(&mut self, event: &Event) -> u64 {
        let key = (event.source().clone(), event.id().to_owned());
        if let Some(count) = self.arrivals.get_mut(&key) {
            *count += 1;
            return *count;
        }
        if self.order.len() == self.limit
            && let Some(oldest) = self.order.pop_front()
        {
            self.arrivals.remove(&oldest);
        }
        self.order.push_back(key.clone());
        self.arrivals.insert(key, 1);
        1
    }
}

#[cfg(test)]
mod tests {
    use cloudevents::{EventBuilder, EventBuilderV10};

    use super::*;

    fn event(source: &str, id: &str) -> Event {
        EventBuilderV10::new().source(source).id(id).ty("t").build().expect("complete")
    }

    #[test]
    fn an_event_is_told_by_source_and_id() {
        let mut seen = Seen::new(10);
        assert_eq!(seen.count(&event("/a", "1")), 1);
        assert_eq!(seen.count(&event("/b", "1")), 1);
        assert_eq!(seen.count(&event("/a", "2")), 1);
        assert_eq!(seen.count(&event("/a", "1")), 2);
    }

    #[test]
    fn the_oldest_is_forgotten_and_the_number_stays_bounded() {
        let mut seen = Seen::new(2);
        for id in ["1", "2", "3"] {
            seen.count(&event("/a", id));
        }
        assert_eq!((seen.arrivals.len(), seen.order.len()), (2, 2));
        assert_eq!(seen.count(&event("/a", "3")), 2);
        assert_eq!(seen.count(&event("/a", "1")), 1, "forgotten");
    }
}
