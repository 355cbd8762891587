//! From record to detections: decode, session, confirm. Everything here is called from one thread
//! and told the time, so that replay gives the same answers as the live agent.

mod device_names;
mod flow_ends;
mod history;
mod inspect;
mod outside;
mod reads;
mod seen_at;
mod sessions;
mod sum_rules;
mod sums;
mod unfinished;
mod wall_clock;
mod watch;

use std::{
    collections::{HashMap, HashSet},
    sync::Arc,
    time::Instant,
};

use detector_common::state::FlowKey;
use uuid::Uuid;

use crate::{
    confirm::{Refusal, confirm},
    decode::{DecodeError, Record},
    deep::{DeepCounts, Judge},
    detection::{Detection, Evidence, Session},
    memory_budget::Relief,
    rules::{
        compile::stable_id,
        model::{Application, Rule},
    },
    session::SessionTable,
    source::{
        deep_notes::{DeepChanges, RuleAndUser},
        flow_notes::{FlowChanges, FlowNote},
        rule_notes::ReadNote,
        session_map::Sessions,
    },
};

use reads::Reads;
use seen_at::SeenAt;
use sums::Sums;
use unfinished::Unfinished;
use watch::FlowWatch;

pub use device_names::DeviceNames;
pub use history::{LoadedRules, RuleHistory, name_of};
pub use outside::{LiveOutside, Outside, boot_id, monotonic_now};
pub use reads::RuleReads;
pub use sessions::Adopted;
pub use wall_clock::WallClock;

/// What became of records; nothing is dropped without a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct PipelineCounts {
    /// Records read.
    pub records: u64,
    /// Records that could not be decoded, by reason.
    pub undecodable: HashMap<DecodeError, u64>,
    /// Matches of rules that are no longer known.
    pub unknown_generation: u64,
    /// Those among them whose rule can still be told, by rule.
    pub gone: HashMap<String, u64>,
    /// What records named, by rule.
    pub reads: Vec<RuleReads>,
    /// Begins and ends of sessions that rules ask for, by rule.
    pub sessions_told: HashMap<String, u64>,
    /// Matches of a rule that were none after all.
    pub refused: HashMap<(String, Refusal), u64>,
    /// Detections, by rule.
    pub detected: HashMap<String, u64>,
    /// Sessions that are open.
    pub sessions_open: u64,
    /// Flows that were forgotten for want of room before they were read.
    pub flows_forgotten: u64,
    /// Of the rules that user space decides.
    pub deep: DeepCounts,
}

/// Records in, detections out.
pub struct Pipeline<O> {
    rules: RuleHistory,
    sessions: SessionTable,
    outside: O,
    /// Of records that are to be read as part of their flows.
    watch: FlowWatch<SeenAt>,
    judge: Judge,
    /// Of sessions whose rates are asked for.
    sums: Sums,
    reads: Reads,
    /// Only if the next agent can read records again.
    unfinished: Option<Unfinished>,
    /// Where the record stands that is being read.
    position: u64,
    counts: PipelineCounts,
    judged_by: u32,
    read_until_ns: u64,
}

impl<O: Outside> Pipeline<O> {
    /// A pipeline without open sessions. For `seed` see [`SessionTable::new`].
    pub fn new(rules: RuleHistory, seed: Uuid, outside: O) -> Self {
        Self {
            rules,
            sessions: SessionTable::new(seed),
            outside,
            watch: FlowWatch::new(),
            judge: Judge::default(),
            sums: Sums::default(),
            reads: Reads::default(),
            unfinished: None,
            position: 0,
            counts: PipelineCounts::default(),
            judged_by: 0,
            read_until_ns: 0,
        }
    }

    /// What became of records so far.
    pub fn counts(&self) -> PipelineCounts {
        PipelineCounts {
            sessions_open: self.sessions.len() as u64,
            flows_forgotten: self.watch.forgotten(),
            deep: self.judge.counts(),
            reads: self.reads.all(),
            ..self.counts.clone()
        }
    }

    /// Makes detections of a record. `memory` is what the packet path remembers.
    pub fn record(
        &mut self,
        bytes: &[u8],
        memory: &dyn Sessions,
        read_at: Instant,
    ) -> Vec<Detection> {
        self.counts.records += 1;
        let record = match Record::decode(bytes) {
            Ok(record) => record,
            Err(error) => {
                *self.counts.undecodable.entry(error).or_default() += 1;
                return Vec::new();
            }
        };
        self.read_until_ns = self.read_until_ns.max(record.time_ns);
        let Some(rules) = self.rules.generation(record.generation) else {
            self.counts.unknown_generation += 1;
            return Vec::new();
        };
        let mut found = self.follow_session(&record, &rules, read_at);
        for number in &record.rules {
            if let Some((id, name)) = rules.named(*number) {
                self.reads.read(id, name, self.position);
            }
            match rules.rule(*number) {
                Some(rule) => found.extend(self.match_rule(rule, &record, read_at)),
                None => self.count_gone(&rules, *number),
            }
        }
        if record.inspect {
            found.extend(self.inspect(&record, &rules, memory, read_at));
        }
        self.count_detections(&found);
        found
    }

    /// Ends the sessions whose time has come.
    pub fn tick(&mut self, now_ns: u64, kernel: &mut dyn Sessions, now: Instant) -> Vec<Detection> {
        let mut found = self.look_at_sums(now_ns, kernel, now);
        let mut ended = self.sessions.expire(now_ns, kernel);
        if let Some(rules) = self.rules.newest()
            && rules.generation != self.judged_by
        {
            self.judged_by = rules.generation;
            let gone = |app: &Application| !rules.applications.contains_key(&stable_id(&app.name));
            ended.extend(self.sessions.end_all(gone, kernel));
            self.begin_sums(&rules, now_ns, kernel);
        }
        found.extend(self.silences(now_ns, kernel, now));
        found.extend(self.end_sessions(ended, now));
        found
    }

    /// Keeps no more than so many bytes of messages that are not whole, of TCP flows and of UDP flows.
    pub fn keep_at_most(&mut self, bytes: usize) {
        self.watch.keep_at_most(bytes);
    }

    /// Memory is short: what can be forgotten is, and the sessions that end by it are told.
    pub fn give_way(
        &mut self,
        relief: Relief,
        kernel: &mut dyn Sessions,
        now: Instant,
    ) -> Vec<Detection> {
        self.watch.give_way();
        let ended = match relief {
            Relief::Messages => Vec::new(),
            Relief::Sessions => self.sessions.give_way(kernel),
        };
        self.end_sessions(ended, now)
    }

    /// From here on, remembers what changes, for [`Self::changed_sessions`] and
    /// [`Self::changed_judgement`].
    pub fn track_changes(&mut self) {
        self.sessions.track_changes();
        self.judge.track_changes();
        self.watch.track_changes();
        self.unfinished.get_or_insert_default();
    }

    /// What changed of flows whose end rules ask for.
    pub fn changed_flows(&mut self) -> FlowChanges {
        self.watch.take_changed()
    }

    /// Goes on with flows that another agent noted; gives those of which no rule wants to hear any
    /// longer.
    pub fn adopt_flows(&mut self, notes: &[(FlowKey, FlowNote)]) -> Vec<FlowKey> {
        let Some(rules) = self.rules.newest() else { return Vec::new() };
        let wanted = |(key, note): &(FlowKey, FlowNote)| {
            let deep = &rules.deep;
            deep.tells_ends(note.application)
                && self.watch.adopt(key, note, deep.silences(note.application))
        };
        let mut wanted = wanted;
        notes.iter().filter(|note| !wanted(note)).map(|(key, _)| *key).collect()
    }

    /// From where on the ring must stay for the next agent to put together what this one has only
    /// parts of.
    pub fn needed_from(&mut self, now_ns: u64) -> Option<u64> {
        self.unfinished.as_mut()?.since(now_ns)
    }

    /// What changed of windows and rates since the last time, when the ring had been read up to
    /// `read_to`.
    pub fn changed_judgement(&mut self, read_to: u64) -> DeepChanges {
        self.judge.take_changed(read_to)
    }

    /// Goes on with the windows and rates that another agent noted; gives those of rules that are
    /// gone, to be forgotten.
    pub fn adopt_judgement(&mut self, mut notes: DeepChanges) -> DeepChanges {
        let rules = self.rules.newest();
        let names = rules.iter().flat_map(|rules| &rules.set.rules);
        let known: HashSet<u32> = names.map(|rule| stable_id(&rule.name)).collect();
        let is_gone = |(rule, _): &RuleAndUser| !known.contains(rule);
        let gone = DeepChanges {
            windows: notes.windows.extract_if(.., |(key, _)| is_gone(key)).collect(),
            rates: notes.rates.extract_if(.., |(key, _)| is_gone(key)).collect(),
            flows: notes.flows.extract_if(.., |((key, _), _)| is_gone(key)).collect(),
        };
        self.judge.adopt(&notes);
        gone.forgotten()
    }

    /// When the latest record was made that was read, on the packet path's clock.
    pub fn read_until_ns(&self) -> u64 {
        self.read_until_ns
    }

    /// The next record stands at this position of the ring, from which it may be read twice.
    pub fn reading(&mut self, position: u64) {
        self.position = position;
        self.sessions.reading(position);
        self.judge.reading(Some(position));
    }

    /// What records before this position of the ring name is in no counter of today: another layout had
    /// them.
    pub fn count_from(&mut self, position: u64) {
        self.reads.count_from(position);
    }

    /// How often records have named rules, as far as that changed since the last time, when the ring
    /// had been read up to `read_to`.
    pub fn changed_reads(&mut self, read_to: u64) -> Vec<(u32, ReadNote)> {
        self.reads.take_changed(read_to)
    }

    /// Goes on with what the agents before have read.
    pub fn adopt_reads(&mut self, notes: Vec<(u32, ReadNote)>) {
        let rules = self.rules.newest();
        for (id, note) in notes {
            let name = rules.as_ref().map_or_else(String::new, |rules| name_of(id, &rules.set));
            self.reads.adopt(id, name.into(), note);
        }
    }

    fn match_rule(
        &mut self,
        rule: &Arc<Rule>,
        record: &Record<'_>,
        read_at: Instant,
    ) -> Option<Detection> {
        let evidence = match confirm(rule, record) {
            Ok(evidence) => evidence,
            Err(reason) => {
                *self.counts.refused.entry((rule.name.clone(), reason)).or_default() += 1;
                return None;
            }
        };
        Some(self.detection(rule, &SeenAt::of(record), evidence, read_at))
    }

    fn detection(
        &mut self,
        rule: &Arc<Rule>,
        at: &SeenAt,
        evidence: Evidence,
        read_at: Instant,
    ) -> Detection {
        let session = at.session_start_ns.map(|start_ns| {
            self.sessions.detected(&at.session, start_ns);
            // Also of a session that has ended meanwhile.
            let id = self.sessions.id(at.flow.ue_ip, &rule.application, start_ns);
            Session { id, started: self.outside.wall_clock(start_ns), ended: None }
        });
        Detection {
            rule: rule.clone(),
            time: self.outside.wall_clock(at.time_ns),
            device: self.outside.device(at.ifindex, at.time_ns),
            flow: at.flow,
            session,
            evidence,
            tunnel: at.tunnel,
            vlan: at.vlan,
            discriminator: u64::from(at.sequence) | u64::from(at.number) << 32,
            read_at,
        }
    }

    fn count_gone(&mut self, rules: &LoadedRules, number: u16) {
        self.counts.unknown_generation += 1;
        if let Some((_, name)) = rules.named(number) {
            *self.counts.gone.entry(name.to_string()).or_default() += 1;
        }
    }

    fn count_detections(&mut self, found: &[Detection]) {
        for detection in found {
            *self.counts.detected.entry(detection.rule.name.clone()).or_default() += 1;
        }
    }
}

#[cfg(test)]
pub(crate) use reads::tests;
