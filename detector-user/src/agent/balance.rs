//! Whether the books balance: looked at again and again, and said when they do not.

use std::{
    collections::BTreeMap,
    sync::{Arc, Mutex, PoisonError},
};

use super::ledger::{Books, Ledgers, entered};
use crate::metrics::{Family, Kind, Sample};

/// What was found at the last look. Clones share it.
#[derive(Clone, Debug, Default)]
pub(super) struct Imbalances(Arc<Mutex<BTreeMap<String, i128>>>);

impl Imbalances {
    /// Writes into the books what is wrong with them.
    pub(super) fn show(&self, books: &mut Books) {
        for (rule, difference) in self.get() {
            books.entry(rule).or_default().imbalance = difference;
        }
    }

    pub(super) fn family(&self) -> Family {
        let sample = |(rule, difference): (String, i128)| Sample {
            labels: vec![("rule", rule)],
            value: u64::try_from(difference).unwrap_or(u64::MAX),
        };
        Family {
            name: "ledger_imbalance",
            help: "Detections that are nowhere, or somewhere twice, though none is on its way; \
                   always 0",
            unit: None,
            kind: Kind::Gauge,
            samples: self.get().into_iter().map(sample).collect(),
        }
    }

    fn get(&self) -> BTreeMap<String, i128> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn set(&self, found: BTreeMap<String, i128>) {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner) = found;
    }
}

/// Looks at the books. What is on its way cannot be told from what is missing while packets pass: a
/// rule is judged when its books were the same at two looks, and the ring was empty.
#[derive(Debug, Default)]
pub(super) struct Balance {
    before: Books,
    found: Imbalances,
}

impl Balance {
    pub(super) fn imbalances(&self) -> Imbalances {
        self.found.clone()
    }

    /// `quiet`: the reader is at work, and has read all there was. Gives what is newly wrong.
    pub(super) fn look(
        &mut self,
        books: Books,
        ledgers: &Ledgers,
        quiet: bool,
    ) -> Vec<(String, i128)> {
        let mut found = self.found.get();
        let mut new = Vec::new();
        for (rule, of_rule) in &books {
            if !quiet || self.before.get(rule) != Some(of_rule) {
                continue;
            }
            let difference = of_rule.difference(entered(rule, of_rule, ledgers));
            if found.insert(rule.clone(), difference).unwrap_or(0) != difference && difference != 0
            {
                new.push((rule.clone(), difference));
            }
        }
        self.before = books;
        self.found.set(found);
        new
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::agent::ledger::RuleBooks;

    fn books(detected: u64, emitted: u64) -> Books {
        [("buy".to_owned(), RuleBooks { detected, emitted, ..RuleBooks::default() })].into()
    }

    #[test]
    fn only_what_persists_while_nothing_moves_is_an_imbalance_and_it_is_said_once() {
        let (mut balance, sinks) = (Balance::default(), Ledgers::new());
        let mut look = |detected, emitted, quiet| {
            balance.look(books(detected, emitted), &sinks, quiet).into_iter().map(|it| it.1).next()
        };
        assert_eq!(look(2, 1, true), None, "one may be on its way");
        assert_eq!(look(3, 2, true), None, "others came");
        assert_eq!(look(3, 2, false), None, "the reader has not read it");
        assert_eq!(look(3, 2, true), Some(1));
        assert_eq!(look(3, 2, true), None, "said");
        assert_eq!(look(3, 3, true), None);
        let found = balance.imbalances();
        assert_eq!(found.get()["buy"], 1, "until it is seen to balance");
        balance.look(books(3, 3), &sinks, true);
        assert_eq!(found.get()["buy"], 0);
    }
}
