//! Raw documents -> checked rules: everything that one value alone cannot show.

mod application;
mod between;
mod emit;
mod flow;
mod message;
mod not;
mod payload;
mod rule;
mod terms;
mod together;
mod values;
mod within;

use std::{
    collections::{BTreeMap, BTreeSet},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    model::{Application, RuleSet},
    raw::{ApplicationDocument, RuleDocument},
};
use crate::yaml::{Field, Name, Place, Problem, did_you_mean};

/// Everything that was read, of all files.
#[derive(Default)]
pub(super) struct Documents {
    /// The applications that could be read.
    pub(super) applications: Vec<ApplicationDocument>,
    /// The rules that could be read.
    pub(super) rules: Vec<RuleDocument>,
    /// Names of applications that could not be read: rules that name them are not at fault.
    pub(super) unreadable: BTreeSet<String>,
    /// A document could not be read at all, not even its name.
    pub(super) lost: bool,
}

/// The rule set, of use only if there are no problems, and what is worth a warning.
pub(super) fn check(
    documents: &Documents,
    ue_pools: &[IpNet],
    problems: &mut Vec<Problem>,
) -> (RuleSet, Vec<Problem>) {
    let mut endpoints = application::Endpoints::default();
    let mut taken = BTreeMap::new();
    let mut applications = Applications { by_name: BTreeMap::new(), documents };
    let mut checked = Vec::new();
    for document in &documents.applications {
        unique(&document.metadata.name, &mut taken, problems);
        match application::check(document, &mut endpoints, problems) {
            Some(application) => {
                let application = Arc::new(application);
                applications
                    .by_name
                    .insert(application.name.clone(), Some(Arc::clone(&application)));
                checked.push((application, document));
            }
            None => {
                let name = document.metadata.name.get().map(|name| name.0.clone());
                applications.by_name.extend(name.map(|name| (name, None)));
            }
        }
    }
    let mut taken = BTreeMap::new();
    let mut rules = Vec::new();
    for document in &documents.rules {
        unique(&document.metadata.name, &mut taken, problems);
        let rule = rule::check(document, &applications, problems);
        rules.extend(rule.map(|rule| (Arc::new(rule), document)));
    }
    between::outweighed(&rules, problems);
    let warnings = between::warnings(&rules, &checked, ue_pools);
    let mut set = RuleSet {
        applications: checked.into_iter().map(|(application, _)| application).collect(),
        rules: rules.into_iter().map(|(rule, _)| rule).collect(),
    };
    weigh_together(&mut set);
    (set, warnings)
}

/// Where one rule of an application is final, all its rules on packets are judged in one place:
/// the kernel reports matches packet by packet, but not which rule outweighs another.
fn weigh_together(set: &mut RuleSet) {
    let weighed: BTreeSet<String> = set
        .rules
        .iter()
        .filter(|rule| rule.is_final)
        .map(|rule| rule.application.name.clone())
        .collect();
    for rule in &mut set.rules {
        if rule.terms.session.is_none()
            && rule.terms.sum().is_none()
            && weighed.contains(&rule.application.name)
        {
            Arc::make_mut(rule).by_user_space = true;
        }
    }
}

fn unique<'d>(
    name: &'d Field<Name>,
    taken: &mut BTreeMap<&'d Name, &'d Place>,
    problems: &mut Vec<Problem>,
) {
    let Some(word) = name.get() else { return };
    match taken.get(word) {
        None => {
            taken.insert(word, name.place());
        }
        Some(first) => problems.push(name.problem(format!(
            "\"{}\" is taken already, at {first}; expected a name of its own",
            word.0
        ))),
    }
}

/// The applications by name; `None` for one that was refused.
struct Applications<'d> {
    by_name: BTreeMap<String, Option<Arc<Application>>>,
    documents: &'d Documents,
}

impl Applications<'_> {
    fn find(&self, name: &Field<Name>, problems: &mut Vec<Problem>) -> Option<Arc<Application>> {
        let word = &name.get()?.0;
        let found = self.by_name.get(word);
        let Documents { unreadable, lost, .. } = self.documents;
        if found.is_none() && !unreadable.contains(word) && !lost {
            let known = self.by_name.keys().chain(unreadable).map(String::as_str);
            problems.push(name.problem(format!(
                "unknown application \"{word}\"; expected the name of an Application document{}",
                did_you_mean(word, known)
            )));
        }
        found.cloned().flatten()
    }
}
