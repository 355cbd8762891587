//! The books of one sink: what came in is somewhere, or has ended in a way that is counted.
//!
//! ```text
//! entered + recovered = delivered + dead_lettered + lost{stage,reason} + in_memory + in_spool
//! ```
//!
//! Both sides of a row change under one lock, so it balances whenever it is read. That the books
//! say what is so is checked by the sink's own task against what it holds and what the spool has.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use serde::{Serialize, Serializer, ser::SerializeMap};

use super::{Outcome, outcome::End};

/// Events of one rule at one sink since the agent started.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Row {
    /// Detected, and meant for this sink.
    pub entered: u64,
    /// Found in the spool when the agent started.
    pub recovered: u64,
    /// Taken by the sink.
    pub delivered: u64,
    /// In the dead letter file.
    pub dead_lettered: u64,
    /// By stage and reason.
    #[serde(serialize_with = "by_name")]
    pub lost: BTreeMap<(&'static str, &'static str), u64>,
    /// Waiting or being sent.
    pub in_memory: u64,
    /// On disk only.
    pub in_spool: u64,
}

fn by_name<S: Serializer>(
    lost: &BTreeMap<(&'static str, &'static str), u64>,
    serializer: S,
) -> Result<S::Ok, S::Error> {
    let mut map = serializer.serialize_map(Some(lost.len()))?;
    for ((stage, reason), count) in lost {
        map.serialize_entry(&format!("{stage}/{reason}"), count)?;
    }
    map.end()
}

impl Row {
    /// Lost for whatever reason.
    pub fn lost(&self) -> u64 {
        self.lost.values().sum()
    }

    /// What is missing on the right side; 0.
    pub fn imbalance(&self) -> i128 {
        let here = self.in_memory + self.in_spool;
        i128::from(self.entered + self.recovered)
            - i128::from(self.delivered + self.dead_lettered + self.lost() + here)
    }

    pub(super) fn enter(&mut self) {
        self.entered += 1;
        self.in_memory += 1;
    }

    pub(super) fn end(&mut self, outcome: &Outcome, dead_lettered: bool) {
        self.in_memory = self.in_memory.saturating_sub(1);
        self.finish(outcome, dead_lettered);
    }

    /// Ends an event that is on disk only.
    pub(super) fn end_in_spool(&mut self, outcome: &Outcome) {
        self.in_spool = self.in_spool.saturating_sub(1);
        self.finish(outcome, false);
    }

    fn finish(&mut self, outcome: &Outcome, dead_lettered: bool) {
        match outcome.end(dead_lettered) {
            End::Delivered => self.delivered += 1,
            End::DeadLettered => self.dead_lettered += 1,
            End::Lost { stage, reason } => *self.lost.entry((stage, reason)).or_default() += 1,
        }
    }

    pub(super) fn leave_memory(&mut self) {
        self.in_memory = self.in_memory.saturating_sub(1);
        self.in_spool += 1;
    }

    pub(super) fn enter_memory(&mut self) {
        self.in_spool = self.in_spool.saturating_sub(1);
        self.in_memory += 1;
    }

    pub(super) fn recover(&mut self, count: u64) {
        self.recovered += count;
        self.in_spool += count;
    }
}

/// A row that events refer to.
#[derive(Clone, Debug, Default)]
pub(super) struct SharedRow(Arc<Mutex<Row>>);

impl SharedRow {
    pub(super) fn lock(&self) -> MutexGuard<'_, Row> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The books of one sink. Clones share them.
#[derive(Clone, Debug, Default)]
pub struct Ledger(Arc<Mutex<BTreeMap<Arc<str>, SharedRow>>>);

impl Ledger {
    pub(super) fn row(&self, rule: &str) -> SharedRow {
        let mut rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(row) = rows.get(rule) {
            return row.clone();
        }
        rows.entry(rule.into()).or_default().clone()
    }

    /// A copy, by rule.
    pub fn rows(&self) -> BTreeMap<Arc<str>, Row> {
        let rows = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        rows.iter().map(|(rule, row)| (rule.clone(), row.lock().clone())).collect()
    }

    /// Where the books differ from what the sink's task holds (`in_memory`, all rules together) and
    /// from what is in the spool.
    pub(super) fn mistakes(&self, in_memory: u64, in_spool: &[(Arc<str>, u64)]) -> Vec<String> {
        let rows = self.rows();
        let mut mistakes = Vec::new();
        let booked: u64 = rows.values().map(|row| row.in_memory).sum();
        if booked != in_memory {
            mistakes.push(format!("{booked} events booked in memory, {in_memory} are there"));
        }
        for (rule, row) in &rows {
            let there = in_spool.iter().find(|(name, _)| name == rule).map_or(0, |(_, n)| *n);
            if row.in_spool != there {
                let booked = row.in_spool;
                mistakes.push(format!("{rule}: {booked} booked in the spool, {there} are there"));
            }
            if row.imbalance() != 0 {
                mistakes.push(format!("{rule}: {} events are nowhere", row.imbalance()));
            }
        }
        mistakes
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_row_balances_through_every_change_and_names_what_was_lost() {
        let ledger = Ledger::default();
        let row = ledger.row("press");
        row.lock().recover(2);
        row.lock().enter_memory();
        row.lock().end(&Outcome::Delivered, false);
        row.lock().end_in_spool(&Outcome::SpoolFull);
        row.lock().enter();
        row.lock().leave_memory();
        assert_eq!(ledger.mistakes(0, &[("press".into(), 1)]), [""; 0]);
        let text = serde_json::to_string(&*row.lock()).unwrap();
        assert!(text.contains(r#""lost":{"spool/full":1},"in_memory":0,"in_spool":1"#), "{text}");
    }

    #[test]
    fn books_that_are_wrong_are_found() {
        let ledger = Ledger::default();
        ledger.row("press").lock().enter();
        assert_eq!(ledger.mistakes(0, &[]), ["1 events booked in memory, 0 are there"]);
        ledger.row("press").lock().in_spool = 3;
        let mistakes = ledger.mistakes(1, &[("press".into(), 2)]);
        let expected =
            ["press: 3 booked in the spool, 2 are there", "press: -3 events are nowhere"];
        assert_eq!(mistakes, expected);
    }
}
