//! Rules that user space decides: their terms are compared with what was read from the packets that
//! the kernel sent, and then weighed, counted and held back. No clock: every observation has its
//! time, so that replay decides as the live agent does.
//!
//! In this order: direction, user, session and terms; `final`; `rate`; `every`.

mod lately;
mod matching;
mod memory;
mod rate;
mod window;

use std::{
    collections::{BTreeSet, HashMap},
    net::IpAddr,
    sync::Arc,
    time::Duration,
};

pub use self::{matching::matches, memory::FlowId};
use self::{
    memory::FlowMemory,
    rate::{Amount, Rates},
    window::Windows,
};
use crate::{
    detection::{Evidence, Flow, Moment, Tunnel},
    flow::Wanted,
    rules::{
        compile::stable_id,
        model::{Rule, RuleSet},
        term::{MessageKind, MessageTerm, RateOf},
    },
    source::deep_notes::{self, DeepChanges, RuleAndUser},
};

/// The rules of one generation that user space decides, by the stable id of their application.
#[derive(Debug, Default)]
pub struct DeepRules {
    applications: HashMap<u32, ApplicationRules>,
}

/// Those of one application, the highest priority first.
#[derive(Debug, Default)]
struct ApplicationRules {
    rules: Vec<Arc<Rule>>,
    /// Whether responses must know which request they answer.
    pairs_responses: bool,
    /// Whether any asks how flows end.
    tells_ends: bool,
    /// Protocols over UDP that any asks for.
    wanted: Wanted,
    /// Whether flows that are over must know their ClientHello.
    keeps_hellos: bool,
    /// Times of silence that rules ask for, ascending.
    silences: Arc<[Duration]>,
    /// Rules on how much passes at all, by stable id.
    sums: Vec<(u32, Arc<Rule>)>,
}

impl DeepRules {
    /// Those of a set.
    pub fn new(set: &RuleSet) -> Self {
        let mut applications: HashMap<u32, ApplicationRules> = HashMap::new();
        let deep = set.rules.iter().filter(|rule| rule.signature().is_none());
        for rule in deep {
            let of = applications.entry(stable_id(&rule.application.name)).or_default();
            // Also where only templates show the request.
            of.pairs_responses |= rule.terms.http().is_some_and(|http| http.is_response());
            of.tells_ends |= rule.terms.flow_is_over();
            let message = rule.terms.message.as_ref().map(MessageTerm::kind);
            of.wanted.dns |= message == Some(MessageKind::Dns);
            of.wanted.coap |= message == Some(MessageKind::Coap);
            of.keeps_hellos |= rule.terms.flow_is_over() && rule.terms.message.is_some();
            if rule.terms.sum().is_some() {
                of.sums.push((stable_id(&rule.name), rule.clone()));
                continue;
            }
            of.rules.push(rule.clone());
        }
        for of in applications.values_mut() {
            let flows = of.rules.iter().filter_map(|rule| rule.terms.flow.as_ref()?.idle);
            let silences: BTreeSet<Duration> = flows.collect();
            of.silences = silences.into_iter().collect();
            // Stable: equals stay in the order of the file.
            of.rules.sort_by_key(|rule| std::cmp::Reverse(rule.priority));
        }
        Self { applications }
    }

    /// The times of silence that an application's rules ask for, ascending.
    pub fn silences(&self, application: u32) -> Arc<[Duration]> {
        self.applications.get(&application).map(|of| of.silences.clone()).unwrap_or_default()
    }

    /// Whether any of an application asks how flows end.
    pub fn tells_ends(&self, application: u32) -> bool {
        self.applications.get(&application).is_some_and(|of| of.tells_ends)
    }

    /// Protocols that an application's rules ask for, on whichever port.
    pub fn wanted(&self, application: u32) -> Wanted {
        self.applications.get(&application).map(|of| of.wanted).unwrap_or_default()
    }

    /// An application's rules on how much passes at all, by stable id.
    pub fn sums(&self, application: u32) -> &[(u32, Arc<Rule>)] {
        self.applications.get(&application).map_or(&[], |of| &of.sums)
    }

    /// Whether an application has any.
    pub fn has(&self, application: u32) -> bool {
        self.applications.contains_key(&application)
    }
}

/// Something that was seen of an application's user.
#[derive(Clone, Debug)]
pub struct Observation {
    /// The application's stable id.
    pub application: u32,
    /// Who talked to whom.
    pub flow: Flow,
    /// The tunnel the packet came in.
    pub tunnel: Option<Tunnel>,
    /// Whether it is inside a session that the user began.
    pub in_session: bool,
    /// When, in ns, on the clock of the packets.
    pub time_ns: u64,
    /// Bytes of the packet at the hook.
    pub bytes: u64,
    /// What was seen.
    pub evidence: Evidence,
}

/// What became of matches; nothing is held back without a count.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct DeepCounts {
    /// Observations that rules were compared with.
    pub observations: u64,
    /// Matches, whatever became of them, by rule.
    pub matched: HashMap<String, u64>,
    /// Matches of a rule that a final rule outweighed, by rule.
    pub outweighed: HashMap<String, u64>,
    /// Matches that were counted for a rate and did not reach it, or had reached it before, by rule.
    pub below_rate: HashMap<String, u64>,
    /// Matches inside a rule's `every` window, by rule.
    pub suppressed: HashMap<String, u64>,
    /// What was forgotten to make room: ClientHellos and requests of flows.
    pub forgotten_flows: u64,
    /// What was forgotten to make room: counts of rates. They begin at zero again.
    pub forgotten_rates: u64,
    /// What was forgotten to make room: `every` windows. The next match fires.
    pub forgotten_windows: u64,
}

/// Decides rules and remembers what that needs. Every memory is bounded.
#[derive(Debug)]
pub struct Judge {
    flows: FlowMemory,
    rates: Rates,
    windows: Windows,
    /// Where the record stands that shows what is judged.
    position: u64,
    counts: DeepCounts,
}

/// What no record shows, and no other agent can read again.
const NOWHERE: u64 = u64::MAX;

impl Default for Judge {
    fn default() -> Self {
        Self::new(deep_notes::PAIRS)
    }
}

impl Judge {
    /// A judge that remembers at most so many flows, and so many pairs of rule and user.
    pub fn new(remembered: usize) -> Self {
        Self {
            flows: FlowMemory::new(remembered),
            rates: Rates::new(remembered),
            windows: Windows::new(remembered),
            position: NOWHERE,
            counts: DeepCounts::default(),
        }
    }

    /// What became of matches so far.
    pub fn counts(&self) -> DeepCounts {
        DeepCounts {
            forgotten_flows: self.flows.forgotten(),
            forgotten_rates: self.rates.forgotten(),
            forgotten_windows: self.windows.forgotten(),
            ..self.counts.clone()
        }
    }

    /// What is judged next is shown by the record at this position of the ring; `None` if it was found
    /// by a timer.
    pub fn reading(&mut self, position: Option<u64>) {
        self.position = position.unwrap_or(NOWHERE);
    }

    /// From here on, remembers what changes, for [`Self::take_changed`].
    pub fn track_changes(&mut self) {
        self.windows.track_changes();
        self.rates.track_changes();
    }

    /// What changed since the last time, when the ring had been read up to `read_to`: what the next
    /// agent is to know of windows and rates.
    pub fn take_changed(&mut self, read_to: u64) -> DeepChanges {
        let windows = self.windows.take_changed();
        let mut changes = DeepChanges { windows, ..DeepChanges::default() };
        self.rates.take_changed(read_to, &mut changes);
        changes
    }

    /// Goes on with what the agents before have noted.
    pub fn adopt(&mut self, notes: &DeepChanges) {
        for (key, note) in &notes.windows {
            note.iter().for_each(|note| self.windows.adopt(*key, *note));
        }
        for (key, note) in &notes.rates {
            note.iter().for_each(|note| self.rates.adopt(*key, note));
        }
        for ((key, mark), slot) in &notes.flows {
            slot.iter().for_each(|slot| self.rates.adopt_flow(*key, *mark, *slot));
        }
    }

    /// The rules that fire on what was seen, the highest priority first, each with its evidence.
    pub fn judge(
        &mut self,
        rules: &DeepRules,
        mut seen: Observation,
    ) -> Vec<(Arc<Rule>, Evidence)> {
        let Some(of) = rules.applications.get(&seen.application) else { return Vec::new() };
        self.counts.observations += 1;
        self.remember(of, &mut seen);
        let mut outweighed_below = None;
        let mut fired = Vec::new();
        for rule in of.rules.iter().filter(|rule| applies(rule, &seen)) {
            *self.counts.matched.entry(rule.name.clone()).or_default() += 1;
            if outweighed_below.is_some_and(|final_at| rule.priority < final_at) {
                *self.counts.outweighed.entry(rule.name.clone()).or_default() += 1;
                continue;
            }
            let Some(rate) = self.reaches_rate(rule, &seen) else { continue };
            if rule.is_final {
                outweighed_below = Some(rule.priority);
            }
            if self.holds_back(rule, key(rule, &seen), seen.time_ns) {
                continue;
            }
            fired.push((rule.clone(), Evidence { rate, ..seen.evidence.clone() }));
        }
        fired
    }

    /// Whether a rule that the kernel decides fires on what only user space could put together: its
    /// terms, its users, its `every`.
    pub fn judge_one(&mut self, rule: &Rule, seen: &Observation) -> bool {
        if !applies(rule, seen) {
            return false;
        }
        *self.counts.matched.entry(rule.name.clone()).or_default() += 1;
        !self.holds_back(rule, key(rule, seen), seen.time_ns)
    }

    /// Adds to the evidence what earlier packets of the flow said, and keeps what later ones need.
    fn remember(&mut self, of: &ApplicationRules, seen: &mut Observation) {
        let flow = FlowId::of(&seen.flow);
        match &seen.evidence.moment {
            Moment::Message(fact) => {
                if of.keeps_hellos {
                    self.flows.hello(flow, fact);
                }
                if of.pairs_responses {
                    seen.evidence.request = self.flows.exchange(flow, fact);
                }
            }
            Moment::Closed(_) => seen.evidence.hello = self.flows.end(flow),
            Moment::Idle(_) => seen.evidence.hello = self.flows.hello_of(flow),
            Moment::Packet | Moment::Opened | Moment::UdpFirst | Moment::Session => {}
        }
    }

    /// Counts a match of a rule with a rate. `None`: the rule does not fire; else what was counted.
    #[expect(clippy::option_option, reason = "whether it fires, and with which count")]
    fn reaches_rate(&mut self, rule: &Rule, seen: &Observation) -> Option<Option<u64>> {
        let Some(rate) = rule.terms.rate else { return Some(None) };
        let amount = match rate.of {
            RateOf::Packets => 1,
            RateOf::Bytes => seen.evidence.totals().map_or(seen.bytes, |totals| totals.bytes),
            RateOf::Flows => FlowId::of(&seen.flow).mark(),
        };
        let what = Amount { amount, time_ns: seen.time_ns, position: self.position };
        let reached = self.rates.count(key(rule, seen), rate, what);
        if reached.is_none() {
            *self.counts.below_rate.entry(rule.name.clone()).or_default() += 1;
        }
        reached.map(Some)
    }

    /// So much passed between a user and an application, of which a rule asks for a rate. If it fires:
    /// how much there was in the window.
    pub fn passed(&mut self, rule: &Rule, ue: IpAddr, time_ns: u64, amount: u64) -> Option<u64> {
        let key = (stable_id(&rule.name), ue);
        // No record shows it.
        let what = Amount { amount, time_ns, position: NOWHERE };
        let reached = self.rates.count(key, rule.terms.rate?, what)?;
        *self.counts.matched.entry(rule.name.clone()).or_default() += 1;
        (!self.holds_back(rule, key, time_ns)).then_some(reached)
    }

    /// Whether the rule fired for this user within its `every`.
    fn holds_back(&mut self, rule: &Rule, key: RuleAndUser, time_ns: u64) -> bool {
        let Some(every) = rule.every else { return false };
        let held = self.windows.within(key, every, time_ns);
        if held {
            *self.counts.suppressed.entry(rule.name.clone()).or_default() += 1;
        }
        held
    }
}

fn key(rule: &Rule, seen: &Observation) -> RuleAndUser {
    (stable_id(&rule.name), seen.flow.ue_ip)
}

/// Direction, user, session and terms.
fn applies(rule: &Rule, seen: &Observation) -> bool {
    rule.direction.is_none_or(|wanted| wanted == seen.flow.direction)
        && (rule.ue.is_empty() || rule.ue.iter().any(|ue| ue.contains(&seen.flow.ue_ip)))
        && (!rule.needs_session || seen.in_session)
        && matches(&rule.terms, &seen.evidence, seen.tunnel)
}

#[cfg(test)]
mod again_tests;
#[cfg(test)]
mod tests;
