//! Records that user space reads itself: what they show of their flows, and the rules decided on it.

use std::{sync::Arc, time::Instant};

use detector_common::event::PayloadKind;

use super::{
    LoadedRules, Outside, Pipeline,
    seen_at::SeenAt,
    unfinished::Part,
    watch::{Asked, Sighting, Silence},
};
use crate::{
    confirm::parse_request,
    decode::Record,
    detection::{Detection, Evidence, Flow},
    l7::fact::{Fact, HttpVersion},
    rules::model::Rule,
    source::session_map::Sessions,
};

impl<O: Outside> Pipeline<O> {
    /// Reads the record as part of its flow, and decides the rules that ask for that.
    pub(super) fn inspect(
        &mut self,
        record: &Record<'_>,
        rules: &LoadedRules,
        memory: &dyn Sessions,
        read_at: Instant,
    ) -> Vec<Detection> {
        let application = record.session.application;
        let seen_at = SeenAt::of(record);
        let asked = Asked {
            silences: rules.deep.silences(application),
            ends: rules.deep.tells_ends(application),
            wanted: rules.deep.wanted(application),
        };
        let sightings = self.watch.record(record, &asked, || seen_at.clone(), memory);
        let mut found = Vec::new();
        self.follow_messages(record, &sightings);
        for Sighting { evidence, direction, number } in sightings {
            found.extend(self.cut_requests(rules, record, &seen_at, &evidence, read_at));
            let at = SeenAt { flow: Flow { direction, ..record.flow }, number, ..seen_at.clone() };
            found.extend(self.decide(rules, &at, evidence, read_at));
        }
        found
    }

    /// Notes whether the record leaves its flow in the middle of a message.
    fn follow_messages(&mut self, record: &Record<'_>, sightings: &[Sighting]) {
        let Some(unfinished) = self.unfinished.as_mut() else { return };
        unfinished.read(Part {
            flow: record.flow_key,
            position: self.position,
            time_ns: record.time_ns,
            completes: sightings.iter().any(|sighting| sighting.evidence.message().is_some()),
            goes_on: self.watch.is_unfinished(record),
        });
    }

    /// Decides the rules that user space decides.
    fn decide(
        &mut self,
        rules: &LoadedRules,
        at: &SeenAt,
        evidence: Evidence,
        read_at: Instant,
    ) -> Vec<Detection> {
        let fired = self.judge.judge(&rules.deep, at.observation(evidence));
        fired
            .into_iter()
            .map(|(rule, evidence)| self.detection(&rule, at, evidence, read_at))
            .collect()
    }

    /// Requests that the kernel would have told by their first segment, had they not been cut: those
    /// that a segment completes which does not itself begin one.
    fn cut_requests(
        &mut self,
        rules: &LoadedRules,
        record: &Record<'_>,
        at: &SeenAt,
        evidence: &Evidence,
        read_at: Instant,
    ) -> Vec<Detection> {
        let of_kernel = rules.requests(record.session.application);
        let Some(Fact::HttpRequest(request)) = evidence.message() else { return Vec::new() };
        if of_kernel.is_empty() || request.version == HttpVersion::Http2 {
            return Vec::new();
        }
        let told_by_kernel = record.payload_kind == PayloadKind::HttpRequest
            && parse_request(record.payload).is_ok();
        if told_by_kernel {
            return Vec::new();
        }
        let seen = at.observation(evidence.clone());
        let fired = of_kernel.iter().filter(|rule| self.judge.judge_one(rule, &seen));
        let fired: Vec<&Arc<Rule>> = fired.collect();
        let detection = |rule| self.detection(rule, at, evidence.clone(), read_at);
        fired.into_iter().map(detection).collect()
    }

    /// The flows that have fallen silent.
    pub(super) fn silences(
        &mut self,
        now_ns: u64,
        memory: &dyn Sessions,
        now: Instant,
    ) -> Vec<Detection> {
        let Some(rules) = self.rules.newest() else { return Vec::new() };
        let mut found = Vec::new();
        self.judge.reading(None);
        for Silence { context, last_ns, evidence } in self.watch.silent(now_ns, memory) {
            let at = SeenAt { time_ns: last_ns, ..context };
            found.extend(self.decide(&rules, &at, evidence, now));
        }
        self.count_detections(&found);
        found
    }
}
