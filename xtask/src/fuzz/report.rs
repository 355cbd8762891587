//! What a run of libFuzzer amounts to, from what it prints.

use std::fmt;

/// Lines of a finding that are shown; the whole of it is in the log.
const SHOWN: usize = 40;

/// The numbers that libFuzzer prints at its end (`-print_final_stats=1`).
#[derive(Debug, Default, PartialEq, Eq)]
pub(super) struct Report {
    /// Inputs that were tried.
    tried: u64,
    /// Those that reached what none before had.
    new: u64,
    /// The most memory, in MiB.
    memory: u64,
}

impl Report {
    pub(super) fn of(said: &str) -> Self {
        let mut report = Self::default();
        for line in said.lines() {
            let Some((name, value)) =
                line.strip_prefix("stat::").and_then(|stat| stat.split_once(':'))
            else {
                continue;
            };
            let value = value.trim().parse().unwrap_or(0);
            match name {
                "number_of_executed_units" => report.tried = value,
                "new_units_added" => report.new = value,
                "peak_rss_mb" => report.memory = value,
                _ => {}
            }
        }
        report
    }
}

impl fmt::Display for Report {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { tried, new, memory } = self;
        write!(f, "{tried} inputs, {new} new, {memory} MiB")
    }
}

/// The end of what was said, where a finding says what it is.
pub(super) fn end(said: &str) -> String {
    let lines: Vec<&str> = said.lines().collect();
    lines[lines.len().saturating_sub(SHOWN)..].join("\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_report_is_what_libfuzzer_counts() {
        let said = "INFO: seed corpus: files: 3\nstat::number_of_executed_units: 524288\n\
                    stat::average_exec_per_sec:     52428\nstat::new_units_added:          12\n\
                    stat::slowest_unit_time_sec:    0\nstat::peak_rss_mb:              41\n";
        assert_eq!(Report::of(said), Report { tried: 524_288, new: 12, memory: 41 });
        assert_eq!(Report::of(said).to_string(), "524288 inputs, 12 new, 41 MiB");
    }

    #[test]
    fn the_end_of_a_finding_is_shown() {
        let said: Vec<String> = (0..100).map(|line| line.to_string()).collect();
        let shown = end(&said.join("\n"));
        assert!(shown.starts_with("60\n") && shown.ends_with("\n99"), "{shown}");
        assert_eq!(end("one\ntwo"), "one\ntwo");
    }
}
