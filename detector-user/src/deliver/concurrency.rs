//! How many attempts are under way at once: additive increase, multiplicative decrease (as TCP's
//! congestion avoidance, RFC 5681 section 3.1).
//!
//! The signal is trouble (time-outs, 429, 5xx, broken connections, answers slower than half of the
//! time-out), not latency: a Knative Broker over the in-memory channel answers only after every
//! subscriber did, so that a slow function, which needs *more* events under way, looks like a
//! congested Broker. `congestion-limiter` 0.1 (the library there is) offers both, under a semaphore of
//! its own that cannot be told of probes; this is its AIMD.

use std::time::Duration;

use tokio::time::Instant;

/// Where it begins: a Knative Broker reaches most of its rate with eight connections.
const BEGIN: usize = 8;
/// What a sign of trouble leaves.
const DECREASE: f64 = 0.7;
/// Signs that come together are one.
const SETTLE: Duration = Duration::from_millis(200);

#[derive(Debug)]
pub(super) struct Concurrency {
    limit: f64,
    most: usize,
    /// An answer slower than this is a sign of trouble.
    slow: Duration,
    decreased: Option<Instant>,
}

impl Concurrency {
    pub(super) fn new(most: usize, slow: Duration) -> Self {
        let most = most.max(1);
        Self { limit: most.min(BEGIN) as f64, most, slow, decreased: None }
    }

    pub(super) fn limit(&self) -> usize {
        self.limit as usize
    }

    /// An answer that is good, while so many attempts were under way.
    pub(super) fn good(&mut self, took: Duration, under_way: usize, now: Instant) {
        if took > self.slow {
            self.trouble(now);
        } else if under_way >= self.limit() {
            self.limit = (self.limit + 1.0 / self.limit).min(self.most as f64);
        }
    }

    pub(super) fn trouble(&mut self, now: Instant) {
        if self.decreased.is_none_or(|last| now.duration_since(last) >= SETTLE) {
            self.limit = (self.limit * DECREASE).max(1.0);
            self.decreased = Some(now);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const FAST: Duration = Duration::from_millis(1);
    const SLOW: Duration = Duration::from_secs(5);

    #[test]
    fn it_grows_while_it_is_what_limits_and_not_beyond_the_most() {
        let (mut concurrency, now) = (Concurrency::new(16, SLOW), Instant::now());
        assert_eq!(concurrency.limit(), 8);
        (0..1_000).for_each(|_| concurrency.good(FAST, 3, now));
        assert_eq!(concurrency.limit(), 8, "three were enough");
        (0..10).for_each(|_| concurrency.good(FAST, 8, now));
        assert_eq!(concurrency.limit(), 9);
        (0..1_000).for_each(|_| concurrency.good(FAST, 99, now));
        assert_eq!(concurrency.limit(), 16);
    }

    #[test]
    fn trouble_shrinks_it_once_for_signs_that_come_together_and_never_to_nothing() {
        let (mut concurrency, mut now) = (Concurrency::new(4, SLOW), Instant::now());
        (0..9).for_each(|_| concurrency.trouble(now));
        assert_eq!(concurrency.limit(), 2);
        for _ in 0..20 {
            now += SETTLE;
            concurrency.good(2 * SLOW, 1, now);
        }
        assert_eq!(concurrency.limit(), 1);
    }
}
