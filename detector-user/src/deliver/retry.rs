//! Whether and when a failed attempt is repeated: pure functions, with randomness passed in.
//!
//! The set of retryable answers and the defaults are those of Knative's own sources: network
//! errors, 404, 408, 409, 429 and 5xx are retried, every other answer never (Knative eventing
//! data plane, "Event Acknowledgement and Delivery Retry"); 5 retries, exponential from 50 ms.

use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use reqwest::StatusCode;

use super::sink::Failure;

/// How often and how long to try.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Policy {
    /// Attempts after the first one.
    pub retries: u32,
    /// The wait before the first retry; each further one is twice as long.
    pub first_wait: Duration,
    /// No wait gets longer than this by doubling.
    pub longest_wait: Duration,
    /// A `Retry-After` that asks for more is shortened to this.
    pub longest_retry_after: Duration,
}

impl Default for Policy {
    fn default() -> Self {
        Self {
            retries: 5,
            first_wait: Duration::from_millis(50),
            longest_wait: Duration::from_secs(10),
            longest_retry_after: Duration::from_secs(30),
        }
    }
}

/// The history of one event at one sink.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tried {
    /// Retries that were counted against the policy.
    pub retries: u32,
    /// Whether the one immediate retry for a closed connection was used.
    pub reconnected: bool,
}

/// What to do after a failed attempt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Step {
    /// Again at once, on a new connection; costs no retry.
    Reconnect,
    /// Again after this wait.
    Wait(Duration),
    /// The sink will never take it.
    Reject,
    /// It might have, but the retries are used up.
    Exhaust,
}

impl Policy {
    /// What to do after `failure`. `random` lies in 0.0 to 1.0.
    pub fn step(&self, tried: Tried, failure: &Failure, random: f64) -> Step {
        match failure {
            Failure::Unsendable(_) | Failure::Refused(_) => Step::Reject,
            Failure::Answer { status, .. } if !is_retryable(*status) => Step::Reject,
            // Knative's ingress closes idle connections after 10 s; a request that crosses the
            // close on its way says nothing about the sink.
            Failure::Closed(_) if !tried.reconnected => Step::Reconnect,
            Failure::Answer { .. }
            | Failure::Closed(_)
            | Failure::Network(_)
            | Failure::Timeout
            | Failure::Credentials(_)
            | Failure::Io(_)
            | Failure::Unavailable(_)
                if tried.retries >= self.retries =>
            {
                Step::Exhaust
            }
            Failure::Answer { retry_after: Some(asked), .. } => {
                let asked = (*asked).min(self.longest_retry_after);
                Step::Wait(self.wait(tried.retries, random).max(asked))
            }
            Failure::Answer { retry_after: None, .. }
            | Failure::Closed(_)
            | Failure::Network(_)
            | Failure::Timeout
            | Failure::Credentials(_)
            | Failure::Io(_)
            | Failure::Unavailable(_) => Step::Wait(self.wait(tried.retries, random)),
        }
    }

    /// Half of the doubled wait is fixed and half is random, so that agents that failed together
    /// do not come back together.
    fn wait(&self, retries: u32, random: f64) -> Duration {
        let doubled = self.first_wait.saturating_mul(1u32.checked_shl(retries).unwrap_or(u32::MAX));
        doubled.min(self.longest_wait).mul_f64(0.5 + 0.5 * random.clamp(0.0, 1.0))
    }
}

impl Tried {
    /// How often it was tried before its end.
    pub fn attempts(self) -> u32 {
        self.retries + u32::from(self.reconnected) + 1
    }

    /// The history after `step` was taken.
    pub fn and(self, step: Step) -> Self {
        match step {
            Step::Reconnect => Self { reconnected: true, ..self },
            Step::Wait(_) => Self { retries: self.retries.saturating_add(1), ..self },
            Step::Reject | Step::Exhaust => self,
        }
    }
}

/// Whether a sink that answered this may answer otherwise later. 404 is: a Broker that is being
/// made, or restarted, answers it.
pub fn is_retryable(status: StatusCode) -> bool {
    matches!(status.as_u16(), 404 | 408 | 409 | 429) || status.is_server_error()
}

/// The wait a `Retry-After` header asks for: seconds, or a date (RFC 9110 section 10.2.3).
pub fn retry_after(value: &str, now: SystemTime) -> Option<Duration> {
    let value = value.trim();
    if value.bytes().all(|byte| byte.is_ascii_digit()) {
        return value.parse().ok().map(Duration::from_secs);
    }
    let date = DateTime::parse_from_rfc2822(value).ok()?;
    let wait = date.with_timezone(&Utc) - DateTime::<Utc>::from(now);
    Some(wait.to_std().unwrap_or(Duration::ZERO))
}

#[cfg(test)]
mod tests {
    use std::time::UNIX_EPOCH;

    use proptest::prelude::*;

    use super::*;

    fn answer(status: u16, retry_after: Option<u64>) -> Failure {
        Failure::Answer {
            status: StatusCode::from_u16(status).unwrap(),
            retry_after: retry_after.map(Duration::from_secs),
            excerpt: String::new(),
        }
    }

    fn waits(failure: &Failure, random: f64) -> Vec<u128> {
        let (policy, mut tried, mut waits) = (Policy::default(), Tried::default(), vec![]);
        while let step @ Step::Wait(wait) = policy.step(tried, failure, random) {
            waits.push(wait.as_millis());
            tried = tried.and(step);
        }
        waits
    }

    #[test]
    fn the_retried_answers_are_those_of_the_data_plane_spec() {
        let retried: Vec<u16> =
            (100..600).filter(|code| is_retryable(StatusCode::from_u16(*code).unwrap())).collect();
        let expected: Vec<u16> = [404, 408, 409, 429].into_iter().chain(500..600).collect();
        assert_eq!(retried, expected);
    }

    #[test]
    fn other_answers_are_rejected_at_once() {
        for status in [301, 400, 401, 403, 405, 413, 431] {
            let step = Policy::default().step(Tried::default(), &answer(status, None), 0.5);
            assert_eq!(step, Step::Reject, "{status}");
        }
    }

    #[test]
    fn five_retries_double_from_50_ms() {
        assert_eq!(waits(&answer(500, None), 1.0), [50, 100, 200, 400, 800]);
        assert_eq!(waits(&Failure::Timeout, 0.0), [25, 50, 100, 200, 400]);
    }

    #[test]
    fn a_closed_connection_is_retried_at_once_but_once() {
        let (policy, closed) = (Policy::default(), Failure::Closed("reset".into()));
        let tried = Tried::default();
        let step = policy.step(tried, &closed, 1.0);
        assert_eq!(step, Step::Reconnect);
        let tried = tried.and(step);
        assert_eq!(tried.retries, 0, "it costs no retry");
        assert_eq!(policy.step(tried, &closed, 1.0), Step::Wait(Duration::from_millis(50)));
    }

    #[test]
    fn retry_after_lengthens_the_wait_up_to_the_cap_and_never_shortens_it() {
        assert_eq!(waits(&answer(429, Some(2)), 1.0)[0], 2_000);
        assert_eq!(waits(&answer(503, Some(3_600)), 1.0)[0], 30_000);
        assert_eq!(waits(&answer(429, Some(0)), 1.0), [50, 100, 200, 400, 800]);
    }

    #[test]
    fn retry_after_is_seconds_or_a_date() {
        let now = UNIX_EPOCH + Duration::from_secs(1_445_412_478);
        assert_eq!(retry_after("120", now), Some(Duration::from_secs(120)));
        let date = |text| retry_after(text, now);
        assert_eq!(date("Wed, 21 Oct 2015 07:28:00 GMT"), Some(Duration::from_secs(2)));
        assert_eq!(date("Wed, 21 Oct 2015 07:00:00 GMT"), Some(Duration::ZERO));
        assert_eq!(date("soon"), None);
        assert_eq!(date(""), None);
        assert_eq!(date("99999999999999999999999"), None);
    }

    proptest! {
        #[test]
        fn waits_stay_within_the_policy(retries in 0u32..200, random in 0.0f64..=1.0) {
            let policy = Policy { retries: u32::MAX, ..Policy::default() };
            let tried = Tried { retries, reconnected: true };
            let Step::Wait(wait) = policy.step(tried, &Failure::Timeout, random) else {
                panic!("never exhausted");
            };
            prop_assert!(wait >= policy.first_wait / 2 && wait <= policy.longest_wait);
        }
    }
}
