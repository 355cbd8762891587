//! Which rules' events go to a sink.

use glob::Pattern;

/// Patterns of rule names, with `*`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Routes {
    /// Empty means all.
    rules: Vec<Pattern>,
}

impl Routes {
    /// Only rules that one of these patterns fits; all rules if there is none.
    pub fn of(rules: Vec<Pattern>) -> Self {
        Self { rules }
    }

    /// Whether events of this rule go there.
    pub fn wants(&self, rule: &str) -> bool {
        self.rules.is_empty() || self.rules.iter().any(|pattern| pattern.matches(rule))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sink_gets_the_rules_that_its_patterns_fit_or_all() {
        let routes = |patterns: &[&str]| {
            Routes::of(patterns.iter().map(|pattern| Pattern::new(pattern).unwrap()).collect())
        };
        assert!(routes(&[]).wants("buy-click"));
        assert!(routes(&["buy-*", "session-started"]).wants("buy-click"));
        assert!(routes(&["buy-*", "session-started"]).wants("session-started"));
        assert!(!routes(&["buy-*", "session-started"]).wants("session-ended"));
    }
}
