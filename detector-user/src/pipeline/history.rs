//! The sets of rules that records may refer to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::{
    deep::DeepRules,
    rules::{
        compile::stable_id,
        model::{Application, Rule, RuleSet, Signature},
    },
    source::rule_notes::KEPT_GENERATIONS,
};

/// A set of rules as records refer to it.
pub struct LoadedRules {
    /// The generation that the packet path writes into records.
    pub generation: u32,
    /// The rules.
    pub set: RuleSet,
    pub(super) applications: HashMap<u32, Arc<Application>>,
    /// Those that user space decides.
    pub(super) deep: DeepRules,
    /// By the number that records use; `None` for rules that are gone.
    numbers: Vec<Option<Arc<Rule>>>,
    /// Their stable ids and names, likewise.
    names: Vec<(u32, Arc<str>)>,
    /// Those on HTTP requests that the kernel decides, by application.
    requests: HashMap<u32, Vec<Arc<Rule>>>,
}

/// The name of the rule with this stable id; one that the set does not have gets a name all the same,
/// to be counted under.
pub fn name_of(id: u32, set: &RuleSet) -> String {
    let rule = set.rules.iter().find(|rule| stable_id(&rule.name) == id);
    rule.map_or_else(|| format!("removed-{id:08x}"), |rule| rule.name.clone())
}

impl LoadedRules {
    /// Rules under the generation they were compiled with.
    pub fn new(generation: u32, set: RuleSet) -> Self {
        let ids: Vec<u32> = set.rules.iter().map(|rule| stable_id(&rule.name)).collect();
        Self::inherited(generation, &ids, set)
    }

    /// A generation of another agent, known by its rules' stable ids only: each is the rule of that
    /// name in the set of today.
    pub fn inherited(generation: u32, ids: &[u32], set: RuleSet) -> Self {
        let by_id: HashMap<u32, &Arc<Rule>> =
            set.rules.iter().map(|rule| (stable_id(&rule.name), rule)).collect();
        let numbers = ids.iter().map(|id| by_id.get(id).map(|rule| Arc::clone(rule))).collect();
        let name = |id: &u32| match by_id.get(id) {
            Some(rule) => (*id, rule.name.as_str().into()),
            None => (*id, name_of(*id, &set).into()),
        };
        let names = ids.iter().map(name).collect();
        let mut requests: HashMap<u32, Vec<Arc<Rule>>> = HashMap::new();
        for rule in &set.rules {
            if matches!(rule.signature(), Some(Signature::HttpRequest(_))) {
                let of = requests.entry(stable_id(&rule.application.name)).or_default();
                of.push(rule.clone());
            }
        }
        let applications =
            set.applications.iter().map(|app| (stable_id(&app.name), app.clone())).collect();
        let deep = DeepRules::new(&set);
        Self { generation, set, applications, deep, numbers, names, requests }
    }

    /// Rules on HTTP requests that the kernel decides, of an application.
    pub(super) fn requests(&self, application: u32) -> &[Arc<Rule>] {
        self.requests.get(&application).map_or(&[], Vec::as_slice)
    }

    /// Stable id and name of the rule that records of this generation give this number, gone or not.
    pub(super) fn named(&self, number: u16) -> Option<(u32, &Arc<str>)> {
        self.names.get(usize::from(number)).map(|(id, name)| (*id, name))
    }

    /// The rule that records of this generation give this number.
    pub fn rule(&self, number: u16) -> Option<&Arc<Rule>> {
        self.numbers.get(usize::from(number))?.as_ref()
    }
}

/// The current rules and those before: records of the old generation may still be in the ring when
/// the new one is active.
#[derive(Clone, Default)]
pub struct RuleHistory(Arc<Mutex<VecDeque<Arc<LoadedRules>>>>);

impl RuleHistory {
    /// With the newest, those that the agents before may have left records of.
    const KEPT: usize = KEPT_GENERATIONS + 1;

    /// Adds the newest. To be called before the packet path learns of them.
    pub fn push(&self, rules: LoadedRules) {
        let mut history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        history.push_front(Arc::new(rules));
        history.truncate(Self::KEPT);
    }

    /// Takes back the newest, which the packet path refused.
    pub fn pop(&self) {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).pop_front();
    }

    /// The newest.
    pub fn newest(&self) -> Option<Arc<LoadedRules>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner).front().cloned()
    }

    pub(super) fn generation(&self, generation: u32) -> Option<Arc<LoadedRules>> {
        let history = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        history.iter().find(|rules| rules.generation == generation).cloned()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::rules::file;

    const APPLICATION: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec: {endpoints: [{cidr: 10.45.0.10}]}
";

    fn set(names: &[&str]) -> RuleSet {
        let rule = |name: &&str| {
            format!(
                "---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: {name}}}
spec: {{application: shop, match: {{flow: opened}}, emit: {{type: t}}}}
"
            )
        };
        let text: String = names.iter().map(rule).collect();
        file::parse(&[("r.yaml", (APPLICATION.to_owned() + &text).as_bytes())]).unwrap()
    }

    #[test]
    fn inherited_numbers_mean_the_rules_of_that_name_and_never_others() {
        let ids = ["first", "gone", "second"].map(stable_id);
        let rules = LoadedRules::inherited(7, &ids, set(&["second", "new", "first"]));
        let name = |number| rules.rule(number).map(|rule| rule.name.as_str());
        assert_eq!([0, 1, 2, 3].map(name), [Some("first"), None, Some("second"), None]);
        let own = LoadedRules::new(8, set(&["second", "new"]));
        assert_eq!(own.rule(1).map(|rule| rule.name.as_str()), Some("new"));
    }
}
