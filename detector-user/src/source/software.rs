//! The classifier in software: the same code and the same record bytes as the kernel programs,
//! over tables and hash maps in this process. For tests that compare the two, and for replay.

use std::{
    cell::{Cell, RefCell},
    collections::HashMap,
    mem::MaybeUninit,
    num::NonZeroUsize,
    rc::Rc,
};

use detector_common::{
    burst::Burst,
    classify::{self, capture_length},
    counter::{COUNTERS, Counter, RULE_COUNTERS, RuleCounter},
    event::NOT_YET,
    inspect::BUDGET,
    marks::{MARK_PLACES, Marks},
    packet::{Address, Layer},
    parse::Facts,
    state::{
        Draft, FlowKey, FlowSnapshot, FlowState, NO_MARK, SessionKey, SessionSnapshot,
        SessionState, State,
    },
};
use lru::LruCache;
use zerocopy::{FromZeros, IntoBytes};

use super::session_map::Sessions;
use crate::rules::table::TableImage;

/// Entries of each table, as in the kernel by default: the longest unused gives way, so that a
/// capture of any size is judged in the same memory.
const ENTRIES: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();

/// A bounded table that is looked up through a shared reference, as the kernel's maps are.
type Recent<K, V> = RefCell<LruCache<K, V>>;

fn recent<K: std::hash::Hash + Eq, V>() -> Recent<K, V> {
    RefCell::new(LruCache::new(ENTRIES))
}

/// A software classifier: rule tables and everything the packet path remembers.
pub struct SoftwareClassifier {
    tables: TableImage,
    memory: Memory,
}

struct Memory {
    now_ns: u64,
    sessions: Recent<SessionKey, Rc<SessionState>>,
    marks: Vec<Marks>,
    flows: Recent<FlowKey, Rc<FlowState>>,
    /// When the window of a UE and rule opened.
    suppressions: Recent<(Address, u32), u64>,
    counters: [Cell<u64>; COUNTERS],
    rule_counts: RefCell<HashMap<u32, [u64; RULE_COUNTERS]>>,
    draft: Draft,
    session: SessionKey,
    sent: Vec<Vec<u8>>,
}

impl SoftwareClassifier {
    /// A classifier that has seen nothing yet.
    pub fn new(tables: TableImage) -> Self {
        Self {
            tables,
            memory: Memory {
                now_ns: 0,
                sessions: recent(),
                marks: (0..MARK_PLACES).map(|_| Marks::default()).collect(),
                flows: recent(),
                suppressions: recent(),
                counters: std::array::from_fn(|_| Cell::new(0)),
                rule_counts: RefCell::default(),
                draft: Draft::new_zeroed(),
                session: SessionKey::new_zeroed(),
                sent: Vec::new(),
            },
        }
    }

    /// Replaces the rules, as a reload does.
    pub fn swap(&mut self, tables: TableImage) {
        self.tables = tables;
    }

    /// Judges one packet seen at `now_ns` (any monotonic clock); gives the record it caused.
    pub fn inspect(
        &mut self,
        packet: &[u8],
        layer: Layer,
        ifindex: u32,
        now_ns: u64,
    ) -> Option<Vec<u8>> {
        self.memory.now_ns = now_ns;
        let mut judging = Judging { memory: &mut self.memory, packet };
        let mut place = MaybeUninit::uninit();
        classify::inspect(packet, layer, ifindex, &self.tables, &mut judging, &mut place);
        self.memory.sent.pop()
    }

    /// A packet counter.
    pub fn counter(&self, counter: Counter) -> u64 {
        self.memory.counters[counter as usize].get()
    }

    /// A counter of the rule with this number in the tables.
    pub fn rule_counter(&self, rule: u32, counter: RuleCounter) -> u64 {
        self.memory.rule_counts.borrow().get(&rule).map_or(0, |counts| counts[counter as usize])
    }

    /// A session as it stands.
    pub fn session(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.memory.sessions.borrow().peek(key).map(|state| snapshot(state))
    }
}

impl Sessions for SoftwareClassifier {
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.session(key)
    }
    fn remove(&mut self, key: &SessionKey) {
        self.memory.sessions.get_mut().pop(key);
    }
    fn has_late_records(&self) -> bool {
        false
    }
    fn keys(&mut self) -> Vec<SessionKey> {
        self.memory.sessions.borrow().iter().map(|(key, _)| *key).collect()
    }
    fn room(&self) -> usize {
        ENTRIES.get()
    }
    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot> {
        self.memory.flows.borrow().peek(key).map(|flow| flow_snapshot(flow))
    }
}

fn flow_snapshot(flow: &FlowState) -> FlowSnapshot {
    let pair = |cells: &[Cell<u64>; 2]| [cells[0].get(), cells[1].get()];
    FlowSnapshot {
        mark: flow.mark.get(),
        start_ns: flow.start_ns.get(),
        last_ns: flow.last_ns.get(),
        packets: pair(&flow.packets),
        bytes: pair(&flow.bytes),
        shown: pair(&flow.shown),
    }
}

fn snapshot(state: &SessionState) -> SessionSnapshot {
    let pair = |cells: &[Cell<u64>; 2]| [cells[0].get(), cells[1].get()];
    SessionSnapshot {
        start_ns: state.start_ns.get(),
        last_ns: state.last_ns.get(),
        packets: pair(&state.packets),
        bytes: pair(&state.bytes),
        open_connections: state.open_connections.get(),
        ue: state.ue.get(),
        cut_until: state.cut_until.get(),
    }
}

/// The memory while it judges one packet.
struct Judging<'a> {
    memory: &'a mut Memory,
    packet: &'a [u8],
}

impl State for Judging<'_> {
    type Session = Rc<SessionState>;
    type Flow = Rc<FlowState>;

    fn now(&self) -> u64 {
        self.memory.now_ns
    }

    fn now_coarse(&self) -> u64 {
        self.memory.now_ns
    }

    fn add(&self, cell: &Cell<u64>, amount: u64) {
        cell.set(cell.get().wrapping_add(amount));
    }

    fn watch(&mut self, flow: FlowKey, application: u32) {
        self.memory.draft.record.flow = flow;
        self.memory.session = SessionKey { ue: flow.ue, application, reserved: 0 };
    }

    fn flow(&self) -> &FlowKey {
        &self.memory.draft.record.flow
    }

    fn session(&self) -> Option<Rc<SessionState>> {
        self.memory.sessions.borrow_mut().get(&self.memory.session).cloned()
    }

    fn create_session(&mut self, ue_word: u64) -> Option<Rc<SessionState>> {
        let state = Rc::new(SessionState::default());
        state.ue.set(ue_word);
        self.memory.sessions.get_mut().put(self.memory.session, state.clone());
        self.memory.marks[Marks::place(&self.memory.session) as usize].clear();
        Some(state)
    }

    /// A session is found in a hash map as quickly as a burst would be.
    fn burst(&mut self, _generation: u32) -> Option<&mut Burst> {
        None
    }

    fn begin_burst(&mut self, _start_ns: u64, _ue_word: u64) {}

    fn end_bursts(&mut self) {}

    fn seen_before(&mut self, mark: u64) -> bool {
        self.memory.marks[Marks::place(&self.memory.session) as usize].seen_before(mark)
    }

    fn flow_state(&self) -> Option<Rc<FlowState>> {
        self.memory.flows.borrow_mut().get(self.flow()).cloned()
    }

    fn create_flow(&mut self, shown: u64) -> Option<Rc<FlowState>> {
        let flow = FlowState::default();
        flow.mark.set(NO_MARK);
        flow.start_ns.set(self.memory.now_ns);
        flow.last_ns.set(self.memory.now_ns);
        flow.shown.iter().for_each(|cell| cell.set(shown));
        let flow = Rc::new(flow);
        self.memory.flows.borrow_mut().put(*self.flow(), flow.clone());
        Some(flow)
    }

    fn mark_flow(&mut self, mark: u64) -> Option<u64> {
        let known = self.flow_state();
        let flow = known.or_else(|| self.create_flow(BUDGET))?;
        let before = flow.mark.replace(mark);
        (before != NO_MARK).then_some(before)
    }

    fn unmark_flow(&self) -> bool {
        self.flow_state().is_some_and(|flow| flow.mark.replace(NO_MARK) != NO_MARK)
    }

    fn suppress(&mut self, rule: u32, now_ns: u64, window_ns: u64) -> bool {
        let key = (self.memory.draft.record.flow.ue, rule);
        let suppressions = self.memory.suppressions.get_mut();
        let open =
            suppressions.get(&key).is_some_and(|opened| now_ns.wrapping_sub(*opened) < window_ns);
        if !open {
            suppressions.put(key, now_ns);
        }
        open
    }

    fn count(&self, counter: Counter, amount: u64) {
        let cell = &self.memory.counters[counter as usize];
        cell.set(cell.get() + amount);
    }

    fn count_rule(&self, rule: u32, counter: RuleCounter) {
        self.memory.rule_counts.borrow_mut().entry(rule).or_default()[counter as usize] += 1;
    }

    fn draft(&mut self) -> Option<&mut Draft> {
        Some(&mut self.memory.draft)
    }

    fn send(&mut self, facts: &Facts, capture: usize) -> bool {
        let start = facts.payload_offset as usize;
        let length = capture_length(facts, capture);
        let payload = self.packet.get(start..start + length).unwrap_or_default();
        let record = &mut self.memory.draft.record;
        if record.time_ns == NOT_YET {
            record.time_ns = self.memory.now_ns;
        }
        record.captured = payload.len() as u32;
        let mut record = self.memory.draft.record.as_bytes().to_vec();
        record.extend_from_slice(payload);
        self.memory.sent.push(record);
        true
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn more_users_than_there_is_room_for_take_no_more_memory() {
        let mut table = recent::<u32, u32>();
        for user in 0..2 * ENTRIES.get() as u32 {
            table.get_mut().put(user, user);
        }
        assert_eq!(table.borrow().len(), ENTRIES.get());
        assert!(table.borrow().peek(&0).is_none(), "the longest unused gave way");
    }
}
