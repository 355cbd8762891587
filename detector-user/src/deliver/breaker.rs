//! Whether a sink is well: after some failures in a row nothing is sent but a probe now and then.
//! Pure: time and randomness come from outside.

use std::time::Duration;

use tokio::time::Instant;

/// When to stop sending, and how often to probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Failures in a row, of whatever events.
    pub threshold: u32,
    /// From the last failure to the first probe; doubled for each probe that fails.
    pub first_pause: Duration,
    /// No pause gets longer by doubling.
    pub longest_pause: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            threshold: 5,
            first_pause: Duration::from_secs(1),
            longest_pause: Duration::from_secs(30),
        }
    }
}

/// What may be sent.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Allowance {
    /// As much as there is.
    All,
    /// One event, if none is under way.
    Probe,
    /// Nothing before this.
    NothingUntil(Instant),
}

/// The state of one sink.
#[derive(Debug)]
pub(super) struct Breaker {
    policy: Policy,
    failures: u32,
    open: Option<Open>,
}

#[derive(Clone, Copy, Debug)]
struct Open {
    until: Instant,
    failed_probes: u32,
}

impl Breaker {
    pub(super) fn new(policy: Policy) -> Self {
        Self { policy, failures: 0, open: None }
    }

    pub(super) fn is_open(&self) -> bool {
        self.open.is_some()
    }

    pub(super) fn allowance(&self, now: Instant) -> Allowance {
        match self.open {
            None => Allowance::All,
            Some(open) if open.until <= now => Allowance::Probe,
            Some(open) => Allowance::NothingUntil(open.until),
        }
    }

    /// The sink has answered in a way that says that it is well. Whether it was not before.
    pub(super) fn well(&mut self) -> bool {
        self.failures = 0;
        self.open.take().is_some()
    }

    /// An attempt failed, and that may be the sink's fault. Whether this opened the breaker.
    pub(super) fn failed(&mut self, now: Instant, asked: Option<Duration>, random: f64) -> bool {
        self.failures = self.failures.saturating_add(1);
        let failed_probes = match self.open {
            None if self.failures < self.policy.threshold => return false,
            None => 0,
            // Sent before it opened: says nothing new.
            Some(open) if now < open.until => return false,
            Some(open) => open.failed_probes + 1,
        };
        let opened = self.open.is_none();
        let doubled = 1u32.checked_shl(failed_probes).unwrap_or(u32::MAX);
        let pause = self.policy.first_pause.saturating_mul(doubled).min(self.policy.longest_pause);
        let pause = pause.mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0));
        let until = now + pause.max(asked.unwrap_or_default());
        self.open = Some(Open { until, failed_probes });
        opened
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn seconds(breaker: &Breaker, now: Instant) -> Option<u64> {
        match breaker.allowance(now) {
            Allowance::NothingUntil(until) => Some((until - now).as_secs()),
            Allowance::All | Allowance::Probe => None,
        }
    }

    #[test]
    fn it_opens_after_failures_in_a_row_and_closes_with_the_first_success() {
        let (mut breaker, now) = (Breaker::new(Policy::default()), Instant::now());
        for _ in 0..4 {
            assert!(!breaker.failed(now, None, 1.0));
        }
        breaker.well();
        for _ in 0..4 {
            assert!(!breaker.failed(now, None, 1.0));
        }
        assert_eq!(breaker.allowance(now), Allowance::All);
        assert!(breaker.failed(now, None, 1.0));
        assert_eq!(seconds(&breaker, now), Some(1));
        assert_eq!(breaker.allowance(now + Duration::from_secs(1)), Allowance::Probe);
        assert!(breaker.well());
        assert_eq!(breaker.allowance(now), Allowance::All);
    }

    #[test]
    fn pauses_double_up_to_the_longest_and_a_retry_after_counts() {
        let (mut breaker, mut now) = (Breaker::new(Policy::default()), Instant::now());
        for _ in 0..5 {
            breaker.failed(now, None, 1.0);
        }
        let mut pauses = vec![];
        for _ in 0..7 {
            let pause = seconds(&breaker, now).unwrap();
            pauses.push(pause);
            // Others that were under way fail too.
            breaker.failed(now, None, 1.0);
            now += Duration::from_secs(pause);
            breaker.failed(now, None, 1.0);
        }
        assert_eq!(pauses, [1, 2, 4, 8, 16, 30, 30]);
        now += Duration::from_secs(30);
        breaker.failed(now, Some(Duration::from_secs(99)), 1.0);
        assert_eq!(seconds(&breaker, now), Some(99));
    }
}
