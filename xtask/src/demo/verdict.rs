//! The table at the end, and whether the function got exactly the expected events.

use anstyle::{AnsiColor, Style};
use anyhow::Result;

use super::{
    play::{CLICKED, ENDED, Expected, OPENED, STARTED},
    services::Services,
    timeline::Timeline,
};

const GOOD: Style = AnsiColor::Green.on_default().bold();
const BAD: Style = AnsiColor::Red.on_default().bold();

/// What came of the play.
pub(super) struct Verdict {
    rows: Vec<(&'static str, String)>,
    /// What is wrong, one sentence each.
    complaints: Vec<String>,
}

impl Verdict {
    /// Compares what was seen with what was expected.
    pub(super) fn reach(
        expected: &[Expected],
        timeline: &Timeline,
        services: &Services,
    ) -> Result<Self> {
        let metrics = services.metrics()?;
        let mut complaints = compare(
            "emitted by the agent",
            expected.iter().map(|event| (event.ue.clone(), event.rule.to_owned())).collect(),
            timeline.events.values().map(|event| (event.ue.clone(), event.rule.clone())).collect(),
        );
        let calls = timeline.events.values().flat_map(|event| &event.calls);
        complaints.extend(compare(
            "given to the function",
            expected
                .iter()
                .filter(|event| event.to_function)
                .map(|event| (event.ue.clone(), event_type(event.rule).to_owned()))
                .collect(),
            calls.clone().map(|call| (call.ue.clone(), call.event_type.clone())).collect(),
        ));
        let delivered = timeline
            .events
            .values()
            .filter(|event| event.status.is_some_and(|status| (200..300).contains(&status)))
            .count();
        let lost = expected.len().saturating_sub(delivered);
        let rows = vec![
            ("packets seen at N6", metric(&metrics, "detector_kernel_packets_total")),
            ("rules matched", metric(&metrics, "detector_rule_matches_total")),
            ("suppressed", metric(&metrics, "detector_rule_suppressed_total")),
            ("events delivered", delivered.to_string()),
            ("Broker retries", timeline.failed_attempts.to_string()),
            ("function calls", calls.count().to_string()),
            ("lost", lost.to_string()),
        ];
        Ok(Self { rows, complaints })
    }

    /// Whether all is as it should be.
    pub(super) fn good(&self) -> bool {
        self.complaints.is_empty()
    }

    /// The table and the verdict.
    pub(super) fn print(&self) {
        anstream::println!();
        for (name, value) in &self.rows {
            anstream::println!("  {name:<20} {value:>10}");
        }
        anstream::println!();
        for complaint in &self.complaints {
            anstream::println!("{BAD}  {complaint}{BAD:#}");
        }
        if self.good() {
            anstream::println!(
                "{GOOD}The function got exactly the expected events, each with the right UE.{GOOD:#}"
            );
        }
    }
}

fn event_type(rule: &str) -> &'static str {
    match rule {
        STARTED => "com.example.arshop.session.started",
        OPENED => "com.example.arshop.opened",
        CLICKED => "com.example.arshop.buy.clicked",
        ENDED => "com.example.arshop.session.ended",
        _ => "?",
    }
}

/// What one list has and the other has not, duplicates counted.
fn compare(
    what: &str,
    mut expected: Vec<(String, String)>,
    seen: Vec<(String, String)>,
) -> Vec<String> {
    let mut complaints = Vec::new();
    for (ue, name) in seen {
        match expected.iter().position(|wanted| wanted.0 == ue && wanted.1 == name) {
            Some(found) => drop(expected.swap_remove(found)),
            None => complaints.push(format!("not expected, but {what}: {name} of {ue}")),
        }
    }
    let missing = expected.iter().map(|(ue, name)| format!("never {what}: {name} of {ue}"));
    complaints.extend(missing);
    complaints
}

/// The sum of all series of one name.
fn metric(text: &str, name: &str) -> String {
    let values: Vec<f64> = text
        .lines()
        .filter_map(|line| line.strip_prefix(name))
        .filter(|rest| rest.starts_with(['{', ' ']))
        .filter_map(|rest| rest.rsplit(' ').next()?.parse().ok())
        .collect();
    match values.is_empty() {
        true => "?".to_owned(),
        false => values.iter().sum::<f64>().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use super::{compare, metric};

    fn pairs(list: &[(&str, &str)]) -> Vec<(String, String)> {
        list.iter().map(|(ue, name)| ((*ue).to_owned(), (*name).to_owned())).collect()
    }

    #[test]
    fn the_same_events_in_another_order_are_right() {
        let expected = pairs(&[("a", "buy"), ("b", "buy"), ("a", "buy")]);
        let seen = pairs(&[("b", "buy"), ("a", "buy"), ("a", "buy")]);
        assert!(compare("seen", expected, seen).is_empty());
    }

    #[test]
    fn a_duplicate_a_wrong_ue_and_a_missing_event_are_each_named() {
        let expected = pairs(&[("a", "buy"), ("b", "buy")]);
        let seen = pairs(&[("a", "buy"), ("a", "buy")]);
        let complaints = compare("seen", expected, seen);
        assert_eq!(complaints, ["not expected, but seen: buy of a", "never seen: buy of b"]);
    }

    #[test]
    fn a_metric_is_the_sum_of_its_series() {
        let text =
            "# TYPE x counter\nx_total{a=\"1\"} 3\nx_total{a=\"2\"} 4\nx_total_more 9\ny 1\n";
        assert_eq!(metric(text, "x_total"), "7");
        assert_eq!(metric(text, "z"), "?");
    }
}
