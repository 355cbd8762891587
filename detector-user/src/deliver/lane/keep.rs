//! What goes to the spool and comes back.

use std::{
    collections::{HashMap, HashSet},
    time::SystemTime,
};

use tokio::time::Instant;

use super::{BATCH, KEEP_AFTER, Lane};
use crate::{
    deliver::{
        Outcome, Outgoing,
        attempts::Attempts,
        item::Item,
        kept::{Kept, Reread, ToKeep},
    },
    spool::{Fate, Lost, Placed, SpoolError},
};

/// What waits on disk needs no place in memory but for those whose turn is soon: an event takes some
/// 3 KiB there, and a sink that is away leaves thousands.
const MOST_LOADED: usize = 1_024;

impl Lane {
    /// Events that memory may hold; without a spool the queue's own bound is enough. A quarter is
    /// left for those that arrive, which need room until they are on disk.
    fn most_in_memory(&self) -> usize {
        let capacity = self.parts.shared.config.capacity;
        (capacity - capacity / 4).max(1)
    }

    /// New events: to memory, or behind those on disk.
    pub(super) async fn arrive(&mut self, batch: Vec<Item>) {
        let fits = self.window.len() + batch.len() <= self.most_in_memory();
        let Some(spool) = self.parts.spool.clone() else {
            return batch.into_iter().for_each(|item| self.window.push(item));
        };
        let waiting = spool.waiting() > 0;
        let urgent = batch.iter().any(Item::is_urgent);
        if !waiting && fits && !urgent && !self.breaker.is_open() && !self.ending {
            return batch.into_iter().for_each(|item| self.window.push(item));
        }
        let rest = match self.keep_window().await {
            true => self.keep_arrivals(&spool, batch, !waiting && fits).await,
            false => batch,
        };
        match spool.waiting() > 0 {
            true => self.held.extend(rest),
            false => rest.into_iter().for_each(|item| self.window.push(item)),
        }
    }

    /// Those that could not be written.
    async fn keep_arrivals(&mut self, spool: &Kept, batch: Vec<Item>, given: bool) -> Vec<Item> {
        let append = spool.append(batch.iter().map(to_keep).collect(), given);
        let appended = self.attempts.meanwhile(append).await;
        let mut rest = Vec::new();
        for (mut item, placed) in batch.into_iter().zip(&appended.placed) {
            match placed {
                Placed::Stored(number) => {
                    item.keep(*number);
                    if given {
                        self.window.push(item);
                    }
                }
                Placed::Full => item.end(Outcome::SpoolFull, false),
                Placed::Failed => rest.push(item),
            }
        }
        self.gave_way(appended.lost);
        self.complain(appended.error);
        rest
    }

    /// Everything in memory is on disk too, afterwards, if the disk takes it.
    pub(super) async fn keep_window(&mut self) -> bool {
        let Some(spool) = self.parts.spool.clone() else { return false };
        let mut unkept = self.window.unkept();
        if unkept.is_empty() {
            return true;
        }
        let append = spool.append(unkept.iter().map(|item| to_keep(item)).collect(), true);
        let appended = self.attempts.meanwhile(append).await;
        let (mut all, mut full) = (true, HashSet::new());
        for (item, placed) in unkept.iter_mut().zip(&appended.placed) {
            match placed {
                Placed::Stored(number) => item.keep(*number),
                // It stays in memory, where it has room.
                Placed::Full => drop(full.insert(item.order)),
                Placed::Failed => all = false,
            }
        }
        self.gave_way(appended.lost);
        self.complain(appended.error);
        all && full.is_empty()
    }

    /// Events that the spool keeps no longer: of those in memory, only one that is being sent stays.
    fn gave_way(&mut self, lost: Vec<Lost>) {
        let given: HashMap<u64, Fate> =
            lost.iter().filter(|lost| lost.given).map(|lost| (lost.number, lost.fate)).collect();
        if !given.is_empty() {
            for (mut item, fate) in self.window.give_way(&given) {
                item.kept = None;
                item.end(outcome(fate), false);
            }
        }
        self.lost_on_disk(lost.into_iter().filter(|lost| !lost.given));
    }

    fn lost_on_disk(&self, lost: impl IntoIterator<Item = Lost>) {
        let mut rules = HashMap::new();
        for lost in lost {
            let find = || (self.parts.find_rule)(&lost.rule);
            let rule = rules.entry(lost.rule.clone()).or_insert_with(find);
            self.parts.shared.lost_in_spool(rule, &outcome(lost.fate));
        }
    }

    /// Fills memory from disk, oldest first.
    pub(super) async fn load(&mut self) {
        let Some(spool) = self.parts.spool.clone() else { return };
        let most = self.most_in_memory().min(MOST_LOADED);
        while spool.waiting() > 0 && self.window.len() <= most / 2 {
            let wanted = (most - self.window.len()).min(BATCH);
            let mut rooms = Vec::new();
            while rooms.len() < wanted
                && let Ok(room) = self.parts.room.clone().try_acquire_owned()
            {
                rooms.push(room);
            }
            if rooms.is_empty() {
                return;
            }
            let (events, lost) = self.attempts.meanwhile(spool.give(rooms.len())).await;
            self.lost_on_disk(lost);
            let mut rules = HashMap::new();
            for (reread, room) in events.into_iter().zip(rooms) {
                let find = || (self.parts.find_rule)(&reread.rule);
                let rule = rules.entry(reread.rule.clone()).or_insert_with(find).clone();
                let Reread { number, at, event, .. } = reread;
                let Some(event) = event else {
                    self.marks.push(number);
                    self.parts.shared.lost_in_spool(&rule, &Outcome::Damaged);
                    continue;
                };
                let age = SystemTime::now().duration_since(at).unwrap_or_default();
                let outgoing = Outgoing::from_spool(event, rule, age);
                let since = Instant::now().checked_sub(age).unwrap_or_else(Instant::now);
                let shared = self.parts.shared.clone();
                self.window.push(Item::from_spool(shared, outgoing, number, since, room));
            }
        }
        if spool.waiting() == 0 {
            self.held.drain(..).for_each(|item| self.window.push(item));
        }
    }

    /// Now and then.
    pub(super) async fn keep_house(&mut self) {
        self.freed = None;
        if let Some(spool) = self.parts.spool.clone() {
            let now = Instant::now();
            let old =
                |item: &&mut Item| item.is_urgent() || now.duration_since(item.since) >= KEEP_AFTER;
            if self.window.unkept().first().is_some_and(old) {
                self.keep_window().await;
            }
            if !self.held.is_empty() {
                let held = std::mem::take(&mut self.held).into();
                self.arrive(held).await;
            }
            self.write_marks(&spool).await;
            let expired = self.attempts.meanwhile(spool.expire()).await;
            self.gave_way(expired);
            let metrics = &self.parts.shared.metrics;
            metrics.spooled.set(i64::try_from(spool.waiting()).unwrap_or(i64::MAX));
            metrics.spool_bytes.set(i64::try_from(spool.bytes()).unwrap_or(i64::MAX));
        }
        self.check_books();
    }

    async fn write_marks(&mut self, spool: &Kept) {
        if !self.marks.is_empty() {
            let done = spool.done(std::mem::take(&mut self.marks));
            let done = self.attempts.meanwhile(done).await;
            self.complain(done.err());
        }
    }

    fn complain(&self, error: Option<SpoolError>) {
        if let Some(error) = error {
            let sink = self.parts.shared.sink.name();
            self.parts.shared.metrics.spool_error(error.label(), 1);
            tracing::error!(sink, %error, "events stay in memory");
        }
    }

    /// No more events come. What a kill during the drain could cost goes to disk now.
    pub(super) async fn end_begins(&mut self) {
        self.ending = true;
        self.keep_window().await;
    }

    /// Whatever is not delivered goes to disk; without a spool it is dropped, and counted.
    pub(super) async fn finish(mut self) {
        self.ending = true;
        self.attempts = Attempts::default();
        let mut rest: Vec<Item> = self.held.drain(..).collect();
        self.parts.arrivals.close();
        while let Ok(item) = self.parts.arrivals.try_recv() {
            rest.push(item);
        }
        if let Some(spool) = self.parts.spool.clone() {
            self.keep_window().await;
            let given = spool.waiting() == 0;
            // Those that cannot be written are dropped here.
            let failed = self.keep_arrivals(&spool, rest, given).await;
            drop(failed);
            self.write_marks(&spool).await;
            let synced = spool.sync().await;
            self.complain(synced.err());
        }
    }
}

fn outcome(fate: Fate) -> Outcome {
    match fate {
        Fate::Full => Outcome::SpoolFull,
        Fate::TooOld => Outcome::TooOld,
        Fate::Damaged => Outcome::Damaged,
    }
}

fn to_keep(item: &Item) -> ToKeep {
    let age = Instant::now().duration_since(item.since);
    let at = SystemTime::now().checked_sub(age).unwrap_or(SystemTime::UNIX_EPOCH);
    ToKeep { outgoing: item.outgoing().clone(), at }
}
