//! Sessions in the pipeline: their begins and ends become detections of the rules that ask for them.

use std::{sync::Arc, time::Instant};

use super::{LoadedRules, Outside, Pipeline};
use crate::{
    decode::Record,
    detection::{Detection, Evidence, Moment, Session},
    rules::model::{Rule, RuleSet, SessionEvent},
    session::{EndedSession, OpenSession, ReadUpTo, SessionChanges},
    source::{
        session_map::Sessions,
        session_notes::{NoteKey, SessionNote},
    },
};

/// What became of the sessions that another agent told of.
#[derive(Debug, Default)]
pub struct Adopted {
    /// Of applications that the rules of today do not have.
    pub unknown: Vec<NoteKey>,
    /// Those that have ended.
    pub ended: Vec<NoteKey>,
}

impl<O: Outside> Pipeline<O> {
    /// The sessions that changed since the last time, when the ring had been read up to `read_to`:
    /// what the next agent is to know of them.
    pub fn changed_sessions(&mut self, read_to: u64) -> SessionChanges {
        self.sessions.take_changed(read_to)
    }

    /// Takes over sessions that another agent told of.
    pub fn adopt(&mut self, notes: &[(NoteKey, SessionNote)]) -> Adopted {
        let rules = self.rules.newest();
        let mut adopted = Adopted::default();
        for (key, note) in notes {
            let applications = rules.as_ref().map(|rules| &rules.applications);
            match applications.and_then(|it| it.get(&key.session.application)) {
                Some(application) => {
                    self.sessions.adopt(key, note, application.clone());
                    if note.ended().is_some() {
                        adopted.ended.push(*key);
                    }
                }
                None => adopted.unknown.push(*key),
            }
        }
        adopted
    }

    /// Tells the ends of sessions that have left before, see [`crate::session::SessionTable::left`].
    pub fn left(&mut self, read: ReadUpTo, now: Instant) -> Vec<Detection> {
        let ended = self.sessions.left(read);
        self.end_sessions(ended, now)
    }

    /// What was removed from the packet path's sessions is gone from there, since `now_ns` at the
    /// latest.
    pub fn taken_out(&mut self, now_ns: u64) {
        self.sessions.taken_out(now_ns);
    }

    /// Ends every session, because the agent stops.
    pub fn stop(&mut self, kernel: &mut dyn Sessions, now: Instant) -> Vec<Detection> {
        let mut ended = self.sessions.all_left();
        ended.extend(self.sessions.end_all(|_| true, kernel));
        ended.extend(self.sessions.all_left());
        self.end_sessions(ended, now)
    }

    /// Opens the record's session if it is not, or notes that it fell silent.
    pub(super) fn follow_session(
        &mut self,
        record: &Record<'_>,
        rules: &LoadedRules,
        read_at: Instant,
    ) -> Vec<Detection> {
        let Some(start_ns) = record.session_start_ns else { return Vec::new() };
        let Some(application) = rules.applications.get(&record.session.application) else {
            return Vec::new();
        };
        let mut found = Vec::new();
        // Also when the notice was lost to a full ring: the first record after it opens the session.
        if let Some(session) = self.sessions.begins_again(&record.session, start_ns) {
            found.extend(self.begin_session(&session, rules, read_at));
        } else if self.sessions.get_mut(&record.session, start_ns).is_none() {
            let before = self.sessions.open(record, start_ns, application.clone());
            found.extend(before.into_iter().flat_map(|ended| self.end_session(&ended, read_at)));
            if let Some(session) = self.sessions.get_mut(&record.session, start_ns).cloned() {
                found.extend(self.begin_session(&session, rules, read_at));
            }
            self.begin_sums_of(rules, &record.session, start_ns);
        }
        if record.session_quiet {
            self.sessions.quiet(&record.session, start_ns, record.time_ns);
        }
        found
    }

    fn begin_session(
        &mut self,
        session: &OpenSession,
        rules: &LoadedRules,
        read_at: Instant,
    ) -> Vec<Detection> {
        session_rules(&rules.set, session, SessionEvent::Started)
            .map(|rule| self.session_detection(rule, session, session.start_ns, None, read_at))
            .collect()
    }

    pub(super) fn end_sessions(
        &mut self,
        ended: Vec<EndedSession>,
        now: Instant,
    ) -> Vec<Detection> {
        let found: Vec<Detection> =
            ended.iter().flat_map(|ended| self.end_session(ended, now)).collect();
        self.count_detections(&found);
        found
    }

    fn end_session(&mut self, ended: &EndedSession, read_at: Instant) -> Vec<Detection> {
        let Some(rules) = self.rules.newest() else { return Vec::new() };
        let mut found = self.end_sums(&rules, ended, read_at);
        found.extend(session_rules(&rules.set, &ended.session, SessionEvent::Ended).map(|rule| {
            self.session_detection(rule, &ended.session, ended.last_ns, Some(ended), read_at)
        }));
        found
    }

    fn session_detection(
        &mut self,
        rule: &Arc<Rule>,
        session: &OpenSession,
        at_ns: u64,
        ended: Option<&EndedSession>,
        read_at: Instant,
    ) -> Detection {
        *self.counts.sessions_told.entry(rule.name.clone()).or_default() += 1;
        self.of_session(rule, session, at_ns, ended, read_at)
    }

    /// A detection that is about no packet of its own.
    pub(super) fn of_session(
        &mut self,
        rule: &Arc<Rule>,
        session: &OpenSession,
        at_ns: u64,
        ended: Option<&EndedSession>,
        read_at: Instant,
    ) -> Detection {
        Detection {
            rule: rule.clone(),
            time: self.outside.wall_clock(at_ns),
            device: self.outside.device(session.ifindex, at_ns),
            flow: session.flow,
            session: Some(Session {
                id: session.id.clone(),
                started: self.outside.wall_clock(session.start_ns),
                ended: ended.map(|ended| ended.end),
            }),
            evidence: Evidence::of(Moment::Session),
            tunnel: session.tunnel,
            vlan: session.vlan,
            discriminator: session.start_ns,
            read_at,
        }
    }
}

fn session_rules<'a>(
    set: &'a RuleSet,
    session: &'a OpenSession,
    event: SessionEvent,
) -> impl Iterator<Item = &'a Arc<Rule>> {
    set.rules.iter().filter(move |rule| {
        rule.is_session(event)
            && rule.application.name == session.application.name
            && (rule.ue.is_empty() || rule.ue.iter().any(|ue| ue.contains(&session.flow.ue_ip)))
    })
}
