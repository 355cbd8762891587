//! One event on its way, and what each hop took.

use std::time::{Duration, Instant, SystemTime};

/// How long other programs' lines about an event may lag behind the agent's: each comes through a
/// pipe of its own.
const STRAGGLERS: Duration = Duration::from_millis(30);

/// An event, as far as it has come.
#[derive(Clone, Debug, Default)]
pub(super) struct Event {
    /// The rule that fired.
    pub(super) rule: String,
    /// The user it is about.
    pub(super) ue: String,
    /// When the user acted; none for the end of a session.
    pub(super) acted: Option<SystemTime>,
    /// When the packet passed the hook.
    pub(super) packet: Option<SystemTime>,
    /// When the agent had made a detection of it.
    pub(super) detected: Option<SystemTime>,
    /// The Trigger that led it to the function.
    pub(super) trigger: Option<String>,
    /// Each call of the function with it.
    pub(super) calls: Vec<Call>,
    /// The Broker's answer.
    pub(super) status: Option<u64>,
    /// When the agent had that answer.
    pub(super) accepted: Option<SystemTime>,
    /// When this program heard of the answer.
    pub(super) answered: Option<Instant>,
    /// Whether its line was printed.
    pub(super) printed: bool,
}

/// One call of the function.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Call {
    /// CloudEvents `type`.
    pub(super) event_type: String,
    /// The user that the function was told.
    pub(super) ue: String,
    /// When it ran.
    pub(super) at: Option<SystemTime>,
}

impl Event {
    /// Whether its line is due: the Broker answers when its subscribers have, so nothing follows.
    pub(super) fn is_complete(&self, now: Instant) -> bool {
        let quiet = self.answered.is_some_and(|answered| now >= answered + STRAGGLERS);
        quiet && self.detected.is_some() && !self.printed
    }

    /// Each hop with what it took since the one before, and all of them together.
    pub(super) fn hops(&self) -> (String, String) {
        let broker = self.status.map_or("Broker: none".to_owned(), |code| format!("Broker {code}"));
        let hops = [
            ("packet at N6", self.packet),
            ("detected", self.detected),
            ("function", self.calls.first().and_then(|call| call.at)),
            (broker.as_str(), self.accepted),
        ];
        let mut last = self.acted;
        let mut words = Vec::new();
        for (name, at) in hops.into_iter().filter(|(_, at)| at.is_some()) {
            // Without an action there is nothing that the packet could be compared with.
            words.push(last.map_or(name.to_owned(), |_| format!("{name} {}", between(last, at))));
            last = at;
        }
        (words.join(" > "), between(self.acted.or(self.packet), self.accepted))
    }
}

/// A time span as `+0.42 ms`; the clocks of packets and of programs can differ by microseconds.
fn between(from: Option<SystemTime>, to: Option<SystemTime>) -> String {
    match (from, to) {
        (Some(from), Some(to)) => {
            let span = to
                .duration_since(from)
                .map_or_else(|error| -error.duration().as_secs_f64(), |span| span.as_secs_f64());
            format!("{:+.2} ms", span * 1e3)
        }
        (None, _) | (_, None) => "?".to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(milliseconds: u64) -> Option<SystemTime> {
        Some(SystemTime::UNIX_EPOCH + Duration::from_millis(milliseconds))
    }

    #[test]
    fn every_hop_is_measured_from_the_one_before() {
        let call = Call { event_type: String::new(), ue: String::new(), at: at(14) };
        let event = Event {
            acted: at(10),
            packet: at(11),
            detected: at(12),
            calls: vec![call],
            status: Some(202),
            accepted: at(17),
            ..Default::default()
        };
        let (hops, total) = event.hops();
        assert_eq!(
            hops,
            "packet at N6 +1.00 ms > detected +1.00 ms > function +2.00 ms > Broker 202 +3.00 ms"
        );
        assert_eq!(total, "+7.00 ms");
        let ended = Event { acted: None, calls: vec![], ..event };
        assert_eq!(ended.hops().0, "packet at N6 > detected +1.00 ms > Broker 202 +5.00 ms");
    }
}
