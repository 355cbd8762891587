//! Names that rules ask DNS messages for: what keeps other names out of the ring.

use std::{collections::BTreeSet, sync::Arc};

use detector_common::{
    dns_name::{self, Names},
    inspect::want,
    rule::ApplicationEntry,
};

use super::Builder;
use crate::rules::{
    model::Rule,
    term::{MessageTerm, NamePattern},
};

impl Builder<'_> {
    /// The names of each application, where all of its DNS rules ask for some.
    pub(super) fn names(&mut self, applications: &mut [ApplicationEntry]) {
        for (application, entry) in self.set.applications.iter().zip(applications) {
            let rules = self.set.rules.iter().map(Arc::as_ref);
            let rules = rules.filter(|rule| rule.application.name == application.name);
            let Some(names) = names(rules) else { continue };
            entry.inspect |= want::DNS_NAMES;
            for (names, hash) in names {
                let (word, bits) = dns_name::place(hash, names, entry.id);
                self.names[word as usize] |= bits;
            }
        }
    }
}

/// Hashes of all names that the DNS rules among these ask for; `None` if one of them takes any name,
/// or there is no such rule.
fn names<'a>(rules: impl Iterator<Item = &'a Rule>) -> Option<BTreeSet<(Names, u64)>> {
    let mut all = BTreeSet::new();
    for rule in rules {
        let Some(MessageTerm::Dns(dns)) = &rule.terms.message else { continue };
        if !dns.names_some() {
            return None;
        }
        for name in &dns.names {
            match name {
                NamePattern::Any => {}
                NamePattern::Exact(name) => _ = all.insert((Names::Exact, hash(name))),
                NamePattern::Below(parent) => _ = all.insert((Names::Below, hash(parent))),
            }
        }
    }
    (!all.is_empty()).then_some(all)
}

fn hash(name: &str) -> u64 {
    name.bytes().rev().fold(dns_name::EMPTY, dns_name::add)
}

#[cfg(test)]
mod tests;
