//! Rules: read at the start, and again on SIGHUP or when a file changed. A set that cannot be read
//! or compiled is refused whole, and the last good one stays.
//!
//! After the start a thread of its own reads: a file system that hangs must not keep the agent from
//! following devices and stopping when told.

use std::{
    path::PathBuf,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
        mpsc::{Receiver, SyncSender, TrySendError, sync_channel},
    },
    time::{Duration, Instant, SystemTime},
};

use anyhow::Context;
use ipnet::IpNet;
use tracing::{info, warn};

use crate::{
    pipeline::{LoadedRules, RuleHistory, name_of},
    rules::{
        compile::{compile, stable_id},
        file::{self, Checked},
        model::RuleSet,
    },
    source::{
        rule_maps::{InheritedRules, RuleMaps},
        rule_notes::GenerationNotes,
    },
};

/// The rules and where they came from.
pub(super) struct Reloader {
    paths: Vec<PathBuf>,
    ue_pools: Vec<IpNet>,
    maps: SharedMaps,
    /// For the next agent, where pins are kept.
    notes: Option<GenerationNotes>,
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

/// Asks the thread that reads rules.
pub(super) struct ReloadHandle {
    asks: SyncSender<()>,
    shared: Arc<Asked>,
    said_slow: bool,
}

/// What the thread is asked for, and what it is at.
#[derive(Default)]
struct Asked {
    /// To load the files, changed or not.
    all: AtomicBool,
    busy_since: Mutex<Option<Instant>>,
}

impl Asked {
    fn set_busy(&self, since: Option<Instant>) {
        *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner) = since;
    }

    fn busy_for(&self) -> Duration {
        let since = *self.busy_since.lock().unwrap_or_else(PoisonError::into_inner);
        since.map_or(Duration::ZERO, |since| since.elapsed())
    }
}

impl ReloadHandle {
    /// To load the files again.
    pub(super) fn reload(&mut self) {
        self.shared.all.store(true, Ordering::Release);
        self.look();
    }

    /// To load the files again if one of them changed. Says once when the last look takes long.
    pub(super) fn look(&mut self) {
        const SLOW: Duration = Duration::from_secs(10);
        match self.asks.try_send(()) {
            Ok(()) | Err(TrySendError::Full(())) => {}
            Err(TrySendError::Disconnected(())) => warn!("rules are no longer read: a bug"),
        }
        let slow = self.shared.busy_for() > SLOW;
        if slow && !self.said_slow {
            warn!(
                "the rules files cannot be read for {SLOW:?} now, the active rules stay; does \
                 their file system answer?"
            );
        }
        self.said_slow = slow;
    }
}

impl Reloader {
    /// Loads the first set.
    pub(super) fn start(
        paths: Vec<PathBuf>,
        ue_pools: Vec<IpNet>,
        maps: RuleMaps,
        notes: Option<GenerationNotes>,
    ) -> anyhow::Result<Self> {
        let mut reloader = Self {
            seen: fingerprint(&paths),
            paths,
            ue_pools,
            maps: SharedMaps(Arc::new(Mutex::new(maps))),
            notes,
            history: RuleHistory::default(),
            generation: 0,
        };
        reloader.start_first()?;
        Ok(reloader)
    }

    pub(super) fn maps(&self) -> SharedMaps {
        self.maps.clone()
    }

    pub(super) fn history(&self) -> RuleHistory {
        self.history.clone()
    }

    /// Goes on in a thread of its own, until the handle is dropped.
    pub(super) fn spawn(mut self) -> std::io::Result<ReloadHandle> {
        let (asks, asked) = sync_channel(1);
        let shared = Arc::<Asked>::default();
        let handle = ReloadHandle { asks, shared: shared.clone(), said_slow: false };
        std::thread::Builder::new()
            .name("rules-reloader".to_owned())
            .spawn(move || self.work(&asked, &shared))?;
        Ok(handle)
    }

    fn work(&mut self, asked: &Receiver<()>, shared: &Asked) {
        while asked.recv().is_ok() {
            shared.set_busy(Some(Instant::now()));
            if shared.all.swap(false, Ordering::AcqRel) {
                self.reload();
            } else {
                self.reload_if_changed();
            }
            shared.set_busy(None);
        }
    }

    /// Loads the files again if one of them changed since the last look.
    fn reload_if_changed(&mut self) {
        if fingerprint(&self.paths) != self.seen {
            self.reload();
        }
    }

    /// Loads the files again.
    fn reload(&mut self) {
        self.seen = fingerprint(&self.paths);
        if let Err(error) = self.load() {
            warn!("rules refused, generation {} stays active: {error:#}", self.generation);
        }
    }

    /// Loads the first set; before it, for records that wait in the ring, what other agents left.
    fn start_first(&mut self) -> anyhow::Result<()> {
        let set = self.read()?;
        for (generation, ids) in self.notes.iter().flat_map(GenerationNotes::all) {
            self.generation = generation;
            self.history.push(LoadedRules::inherited(generation, &ids, set.clone()));
        }
        let mut maps = self.maps.lock();
        let inherited = maps.inherited().context("the pinned rule tables")?;
        for InheritedRules { generation, .. } in &inherited {
            self.generation = self.generation.max(*generation);
        }
        maps.adopt(&inherited, |id| name_of(id, &set)).context("the pinned counters")?;
        drop(maps);
        self.activate(set)
    }

    fn load(&mut self) -> anyhow::Result<()> {
        let set = self.read()?;
        self.activate(set)
    }

    fn read(&self) -> Result<RuleSet, file::RulesError> {
        let Checked { set, warnings } = file::load(&self.paths, &self.ue_pools)?;
        warnings.iter().for_each(|warning| warn!("rules: {warning}"));
        Ok(set)
    }

    fn activate(&mut self, set: RuleSet) -> anyhow::Result<()> {
        let generation = self.generation + 1;
        let image = compile(&set, &self.ue_pools, generation)?;
        let rules = set.rules.clone();
        let applications = set.applications.len();
        if let Some(notes) = self.notes.as_mut() {
            let ids: Vec<u32> = rules.iter().map(|rule| stable_id(&rule.name)).collect();
            notes.keep(generation, &ids);
        }
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
