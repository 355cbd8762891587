//! The sets of rules that records may refer to.

use std::{
    collections::{HashMap, VecDeque},
    sync::{Arc, Mutex, PoisonError},
};

use crate::rules::{
    compile::stable_id,
    model::{Application, RuleSet},
};

/// A set of rules as records refer to it.
pub struct LoadedRules {
    /// The generation that the packet path writes into records.
    pub generation: u32,
    /// The rules.
    pub set: RuleSet,
    pub(super) applications: HashMap<u32, Arc<Application>>,
}

impl LoadedRules {
    /// Rules under the generation they were compiled with.
    pub fn new(generation: u32, set: RuleSet) -> Self {
        let applications =
            set.applications.iter().map(|app| (stable_id(&app.name), app.clone())).collect();
        Self { generation, set, applications }
    }
}

/// The current rules and those before: records of the old generation may still be in the ring when
/// the new one is active.
#[derive(Clone, Default)]
pub struct RuleHistory(Arc<Mutex<VecDeque<Arc<LoadedRules>>>>);

impl RuleHistory {
    const KEPT: usize = 4;

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
