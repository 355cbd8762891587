//! Rules: read at the start, and again on SIGHUP or when a file changed. A set that cannot be read
//! or compiled is refused whole, and the last good one stays.

use std::{
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::SystemTime,
};

use anyhow::Context;
use ipnet::IpNet;
use tracing::{info, warn};

use crate::{
    pipeline::{LoadedRules, RuleHistory},
    rules::{compile::compile, file},
    source::rule_maps::RuleMaps,
};

/// The rules and where they came from.
pub(super) struct Reloader {
    paths: Vec<PathBuf>,
    ue_pools: Vec<IpNet>,
    maps: SharedMaps,
    history: RuleHistory,
    generation: u32,
    seen: Vec<(PathBuf, Option<SystemTime>, u64)>,
}

/// The kernel's rule tables; the metrics read them too.
#[derive(Clone)]
pub(super) struct SharedMaps(Arc<Mutex<RuleMaps>>);

impl SharedMaps {
    pub(super) fn lock(&self) -> MutexGuard<'_, RuleMaps> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Reloader {
    /// Loads the first set.
    pub(super) fn start(
        paths: Vec<PathBuf>,
        ue_pools: Vec<IpNet>,
        maps: RuleMaps,
    ) -> anyhow::Result<Self> {
        let mut reloader = Self {
            seen: fingerprint(&paths),
            paths,
            ue_pools,
            maps: SharedMaps(Arc::new(Mutex::new(maps))),
            history: RuleHistory::default(),
            generation: 0,
        };
        reloader.load()?;
        Ok(reloader)
    }

    pub(super) fn maps(&self) -> SharedMaps {
        self.maps.clone()
    }

    pub(super) fn history(&self) -> RuleHistory {
        self.history.clone()
    }

    /// Loads the files again if one of them changed since the last look.
    pub(super) fn reload_if_changed(&mut self) {
        if fingerprint(&self.paths) != self.seen {
            self.reload();
        }
    }

    /// Loads the files again.
    pub(super) fn reload(&mut self) {
        self.seen = fingerprint(&self.paths);
        if let Err(error) = self.load() {
            warn!("rules refused, generation {} stays active: {error:#}", self.generation);
        }
    }

    fn load(&mut self) -> anyhow::Result<()> {
        let set = file::load(&self.paths)?;
        let generation = self.generation + 1;
        let image = compile(&set, &self.ue_pools, generation)?;
        let rules = set.rules.clone();
        let applications = set.applications.len();
        // First the pipeline, which must know a generation before the first record of it.
        self.history.push(LoadedRules::new(generation, set));
        if let Err(error) = self.maps.lock().swap(&image, &rules) {
            self.history.pop();
            return Err(error).context("the kernel refused the rule tables");
        }
        self.generation = generation;
        info!(generation, rules = rules.len(), applications, "rules are active");
        Ok(())
    }
}

/// What tells whether files changed: of a directory, its entries. A ConfigMap's files are links
/// whose target is replaced, which changes the time that is read through them.
fn fingerprint(paths: &[PathBuf]) -> Vec<(PathBuf, Option<SystemTime>, u64)> {
    let mut files: Vec<PathBuf> = Vec::new();
    for path in paths {
        match std::fs::read_dir(path) {
            Ok(entries) => files.extend(entries.flatten().map(|entry| entry.path())),
            Err(_) => files.push(path.clone()),
        }
    }
    files.sort();
    let look = |file: PathBuf| match std::fs::metadata(&file) {
        Ok(metadata) => (file, metadata.modified().ok(), metadata.len()),
        Err(_) => (file, None, 0),
    };
    files.into_iter().map(look).collect()
}
