//! MQTT topic filters (MQTT 5 section 4.7).

use schemars::Schema;

use crate::yaml::{Scalar, scalar};

/// A topic filter: `+` is one level, `#` at the end is all that follow.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TopicFilter(String);
scalar!(TopicFilter);

impl TopicFilter {
    /// Whether the topic is such. A topic that begins with `$` is only found by a filter that does
    /// too (MQTT-4.7.2-1).
    pub fn matches(&self, topic: &str) -> bool {
        if topic.starts_with('$') && self.0.starts_with(['+', '#']) {
            return false;
        }
        let mut levels = topic.split('/');
        for filter in self.0.split('/') {
            match (filter, levels.next()) {
                // "sport/#" is "sport" too (MQTT-4.7.1-2).
                ("#", _) | ("+", Some(_)) => {
                    if filter == "#" {
                        return true;
                    }
                }
                (filter, Some(level)) if filter == level => {}
                (_, Some(_) | None) => return false,
            }
        }
        levels.next().is_none()
    }

    /// As it is written.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl Scalar for TopicFilter {
    const EXPECTED: &'static str =
        "an MQTT topic filter such as sensors/+/temperature or sensors/#";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str| Err(format!("\"{text}\" {why}; expected {}", Self::EXPECTED));
        if text.is_empty() || text.contains('\0') || text.len() > usize::from(u16::MAX) {
            return refuse("can never be a topic (1 to 65535 bytes without NUL)");
        }
        let levels = text.split('/').count();
        for (number, level) in text.split('/').enumerate() {
            if level.contains('#') && (level != "#" || number + 1 != levels) {
                return refuse("has a # that is not the whole last level");
            }
            if level.contains('+') && level != "+" {
                return refuse("has a + that is not a whole level");
            }
        }
        Ok(Self(text.to_owned()))
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "An MQTT topic filter: + is one level, # at the end all that follow.",
            "examples": ["sensors/+/temperature", "sensors/#"],
            "minLength": 1,
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(filter: &str, topic: &str) -> bool {
        TopicFilter::parse(filter).unwrap_or_else(|e| panic!("{e}")).matches(topic)
    }

    #[test]
    fn the_standards_examples_hold() {
        for topic in ["sport/tennis/player1", "sport/tennis/player1/ranking"] {
            assert!(matches("sport/tennis/player1/#", topic), "{topic}");
        }
        assert!(matches("sport/#", "sport") && matches("#", "a/b") && matches("+/+", "/finance"));
        assert!(matches("sport/tennis/+", "sport/tennis/player2"));
        assert!(!matches("sport/tennis/+", "sport/tennis/player1/ranking"));
        assert!(!matches("sport/+", "sport") && matches("sport/+", "sport/"));
        assert!(matches("/+", "/finance") && !matches("+", "/finance"));
        assert!(!matches("#", "$SYS/uptime") && !matches("+/uptime", "$SYS/uptime"));
        assert!(matches("$SYS/#", "$SYS/uptime") && !matches("ACCOUNTS", "Accounts"));
    }

    #[test]
    fn filters_that_the_standard_forbids_are_refused() {
        for bad in ["", "sport/tennis#", "sport/#/ranking", "sport+", "a\0"] {
            assert!(TopicFilter::parse(bad).is_err(), "{bad}");
        }
    }

    fn naive(filter: &[&str], topic: &[&str]) -> bool {
        match (filter, topic) {
            ([], []) | (["#"], _) => true,
            (["+", filter @ ..], [_, topic @ ..]) => naive(filter, topic),
            ([f, filter @ ..], [t, topic @ ..]) => f == t && naive(filter, topic),
            ([], [_, ..]) | ([_, ..], []) => false,
        }
    }

    proptest! {
        #[test]
        fn it_matches_as_the_recursive_reading_does(
            filter in "([ab+]|[ab]{2})(/([ab+]|[ab]{2})){0,3}(/#)?", topic in "[ab]{0,2}(/[ab]{0,2}){0,4}"
        ) {
            let split = |text: &str| text.split('/').map(str::to_owned).collect::<Vec<_>>();
            let (f, t) = (split(&filter), split(&topic));
            let f: Vec<&str> = f.iter().map(String::as_str).collect();
            let t: Vec<&str> = t.iter().map(String::as_str).collect();
            prop_assert_eq!(matches(&filter, &topic), naive(&f, &t));
        }
    }
}
