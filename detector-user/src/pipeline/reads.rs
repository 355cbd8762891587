//! How often records that were read named each rule: the kernel's count of what it recorded, less this,
//! is what is still in the ring. Over all agents, each record once, though it may be read twice.

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
};

use crate::source::rule_notes::ReadNote;

/// Of one rule.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuleReads {
    /// Its name.
    pub rule: Arc<str>,
    /// By agents before.
    pub before: u64,
    /// For the first time.
    pub here: u64,
    /// That an agent before had read too, and not finished.
    pub again: u64,
    /// Up to where in the ring `before` counts.
    adopted_at: u64,
}

/// Of all rules, by stable id.
#[derive(Default)]
pub(super) struct Reads {
    rules: HashMap<u32, RuleReads>,
    changed: HashSet<u32>,
    /// Of rules that no note is of.
    from: u64,
}

impl Reads {
    /// Goes on from what an agent before has noted.
    pub(super) fn adopt(&mut self, id: u32, rule: Arc<str>, note: ReadNote) {
        let reads =
            RuleReads { rule, before: note.count, here: 0, again: 0, adopted_at: note.as_of };
        self.rules.insert(id, reads);
    }

    /// Records before this position were counted by others, if nothing else is noted.
    pub(super) fn count_from(&mut self, position: u64) {
        self.from = position;
    }

    /// The record at this position names the rule.
    pub(super) fn read(&mut self, id: u32, rule: &Arc<str>, position: u64) {
        let adopted_at = self.from;
        let fresh = || RuleReads { rule: rule.clone(), before: 0, here: 0, again: 0, adopted_at };
        let reads = self.rules.entry(id).or_insert_with(fresh);
        if position < reads.adopted_at {
            reads.again += 1;
        } else {
            reads.here += 1;
            self.changed.insert(id);
        }
    }

    /// What changed since the last time, when the ring had been read up to `read_to`.
    pub(super) fn take_changed(&mut self, read_to: u64) -> Vec<(u32, ReadNote)> {
        let changed = std::mem::take(&mut self.changed);
        let note = |id: u32| {
            let reads = self.rules.get(&id)?;
            let as_of = reads.adopted_at.max(read_to);
            Some((id, ReadNote { count: reads.before + reads.here, as_of }))
        };
        changed.into_iter().filter_map(note).collect()
    }

    pub(super) fn all(&self) -> Vec<RuleReads> {
        self.rules.values().cloned().collect()
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;

    /// So many reads of a rule.
    pub(crate) fn reads(rule: &str, before: u64, here: u64, again: u64) -> RuleReads {
        RuleReads { rule: rule.into(), before, here, again, adopted_at: 0 }
    }

    #[test]
    fn a_record_that_is_read_by_two_agents_counts_once() {
        let rule: Arc<str> = "buy".into();
        let mut first = Reads::default();
        [100, 200].into_iter().for_each(|position| first.read(7, &rule, position));
        let [(7, note)] = first.take_changed(300)[..] else { panic!("one rule") };
        assert_eq!((note.count, note.as_of), (2, 300));
        assert!(first.take_changed(300).is_empty());

        let mut next = Reads::default();
        next.adopt(7, rule.clone(), note);
        [200, 300].into_iter().for_each(|position| next.read(7, &rule, position));
        let all = next.all();
        assert_eq!((all[0].before, all[0].here, all[0].again), (2, 1, 1));
        assert_eq!(next.take_changed(400), [(7, ReadNote { count: 3, as_of: 400 })]);
    }
}
