//! Rules on how much passes between a user and an application at all: what is counted is looked at
//! when it is time, and judged.

use std::{net::IpAddr, sync::Arc, time::Instant};

use detector_common::state::SessionKey;

use super::{
    LoadedRules, Outside, Pipeline,
    sums::{Passed, total},
};
use crate::{
    detection::Detection,
    rules::{compile::stable_id, model::Rule},
    session::{EndedSession, OpenSession},
    source::session_map::Sessions,
};

impl<O: Outside> Pipeline<O> {
    /// Counts from now on what these rules ask for, in sessions that are open already.
    pub(super) fn begin_sums(&mut self, rules: &LoadedRules, now_ns: u64, kernel: &dyn Sessions) {
        for (key, session) in self.sessions.iter() {
            for (id, rule, rate) in sum_rules(rules, key.application, session.flow.ue_ip) {
                let Some(state) = kernel.get(key) else { break };
                let counted = total(rule, rate, &state);
                self.sums.begin((*key, id), session.start_ns, counted, now_ns, rate.step_ns());
            }
        }
    }

    /// As [`Self::begin_sums`], in a session that has just begun.
    pub(super) fn begin_sums_of(&mut self, rules: &LoadedRules, key: &SessionKey, start_ns: u64) {
        let Some(ue) = self.sessions.get_mut(key, start_ns).map(|open| open.flow.ue_ip) else {
            return;
        };
        for (id, _, rate) in sum_rules(rules, key.application, ue) {
            self.sums.begin((*key, id), start_ns, 0, start_ns, rate.step_ns());
        }
    }

    /// Makes the looks that are due.
    pub(super) fn look_at_sums(
        &mut self,
        now_ns: u64,
        kernel: &dyn Sessions,
        now: Instant,
    ) -> Vec<Detection> {
        let Some(rules) = self.rules.newest() else { return Vec::new() };
        let mut found = Vec::new();
        while let Some((of, due_ns)) = self.sums.due(now_ns) {
            let (key, id) = of;
            let rule = rules.deep.sums(key.application).iter().find(|(known, _)| *known == id);
            let start_ns = self.sums.start_ns(&of).unwrap_or_default();
            let session = self.sessions.get_mut(&key, start_ns).cloned();
            let state = kernel.get(&key).filter(|state| state.start_ns == start_ns);
            let (Some((_, rule)), Some(session), Some(state)) = (rule, session, state) else {
                // It was counted when it ended, or is told to have been evicted.
                self.sums.forget(&of);
                continue;
            };
            let Some(rate) = rule.terms.sum() else { continue };
            let passed = self.sums.look(of, total(rule, rate, &state), rate.step_ns());
            found.extend(self.judge_sum(rule, &session, passed, due_ns, now));
        }
        self.count_detections(&found);
        found
    }

    /// Counts the rest of a session that has ended.
    pub(super) fn end_sums(
        &mut self,
        rules: &LoadedRules,
        ended: &EndedSession,
        now: Instant,
    ) -> Vec<Detection> {
        let session = &ended.session;
        let application = stable_id(&session.application.name);
        let mut found = Vec::new();
        for (id, rule, rate) in sum_rules(rules, application, session.flow.ue_ip) {
            let of = (session.key(), id);
            let passed = self.sums.end(of, session.start_ns, total(rule, rate, &ended.state));
            found.extend(self.judge_sum(rule, session, passed, ended.last_ns, now));
        }
        found
    }

    fn judge_sum(
        &mut self,
        rule: &Arc<Rule>,
        session: &OpenSession,
        passed: Option<Passed>,
        at_ns: u64,
        now: Instant,
    ) -> Option<Detection> {
        let Passed { amount, since_ns } = passed?;
        let rate = self.judge.passed(rule, session.flow.ue_ip, since_ns, amount)?;
        self.sessions.detected(&session.key(), session.start_ns);
        let mut detection = self.of_session(rule, session, at_ns, None, now);
        detection.evidence.rate = Some(rate);
        Some(detection)
    }
}

/// The rules on how much passes that are about this user.
fn sum_rules(
    rules: &LoadedRules,
    application: u32,
    ue: IpAddr,
) -> impl Iterator<Item = (u32, &Arc<Rule>, crate::rules::term::RateTerm)> {
    rules.deep.sums(application).iter().filter_map(move |(id, rule)| {
        let of_it = rule.ue.is_empty() || rule.ue.iter().any(|net| net.contains(&ue));
        Some((*id, rule, rule.terms.sum().filter(|_| of_it)?))
    })
}
