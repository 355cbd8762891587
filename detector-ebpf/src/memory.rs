//! What the kernel side remembers: bounded LRU maps, counters, the clock.

#![expect(
    clippy::needless_borrows_for_generic_args,
    reason = "by value, keys and values would be copied to the stack, of which there are 512 bytes"
)]

use core::{cell::Cell, mem::MaybeUninit};

use aya_ebpf::{
    bindings::BPF_NOEXIST,
    helpers::{bpf_ktime_get_ns, generated::bpf_jiffies64},
    macros::map,
    maps::{Array, LruHashMap, PerCpuArray},
};
use detector_common::{
    burst::{self, Burst},
    counter::{Counter, RULE_COUNTERS, RuleCounter},
    cpu::{Clock, CpuMemory},
    inspect::BUDGET,
    marks::{MARK_PLACES, MarkWords, Marks},
    parse::Facts,
    rule::{MAX_RULES, SLOTS},
    state::{
        Draft, FlowKey, FlowSnapshot, FlowState, NO_MARK, SessionKey, SessionSnapshot,
        SessionState, State, SuppressionKey,
    },
};

use crate::{packet::HookPacket, ring, verifier};

// The sizes are the defaults; the agent's `limits` replace them at load time.
#[map]
static SESSIONS: LruHashMap<SessionKey, SessionSnapshot> = LruHashMap::with_max_entries(65536, 0);
#[map]
static FLOWS: LruHashMap<FlowKey, FlowSnapshot> = LruHashMap::with_max_entries(65536, 0);
#[map]
static SUPPRESSIONS: LruHashMap<SuppressionKey, u64> = LruHashMap::with_max_entries(65536, 0);
#[map]
static BURSTS: PerCpuArray<Burst> = PerCpuArray::with_max_entries(burst::BURSTS, 0);
#[map]
static MARKS: Array<MarkWords> = Array::with_max_entries(MARK_PLACES, 0);
#[map]
static CPU: PerCpuArray<CpuMemory> = PerCpuArray::with_max_entries(1, 0);
#[map]
static RULE_COUNTS: PerCpuArray<[u64; RULE_COUNTERS]> =
    PerCpuArray::with_max_entries((MAX_RULES * SLOTS) as u32, 0);

/// How often bursts were ended, on all CPUs. A variable, which aya makes a map of one entry: the program has
/// its address and looks nothing up.
#[unsafe(no_mangle)]
#[unsafe(link_section = ".bss.burst_ends")]
static BURST_ENDS: BurstEnds = BurstEnds(Cell::new(0));

struct BurstEnds(Cell<u64>);

// SAFETY: one word, which is read and written whole: other CPUs and user space write it too.
unsafe impl Sync for BurstEnds {}

impl BurstEnds {
    /// Volatile: LLVM sees no other writer.
    #[inline(always)]
    fn read(&self) -> u64 {
        // SAFETY: of a variable that lives as long as the program.
        unsafe { self.0.as_ptr().read_volatile() }
    }

    /// Any other value than before ends them.
    #[inline(always)]
    fn add_one(&self) {
        verifier::atomic_add(&self.0, 1);
    }
}

/// The packet path's memory while it judges one packet.
pub(crate) struct Memory<'a, P> {
    packet: &'a P,
    slot: u32,
    cpu: *mut CpuMemory,
}

impl<'a, P: HookPacket> Memory<'a, P> {
    /// `None` never happens: the map has its one entry.
    #[inline(always)]
    pub(crate) fn new(packet: &'a P, slot: u32) -> Option<Self> {
        Some(Self { packet, slot, cpu: CPU.get_ptr_mut(0)? })
    }

    /// Marks of the session being watched; `None` never happens.
    #[inline(always)]
    fn marks(&self) -> Option<&'static Marks> {
        // SAFETY: this CPU's memory; programs of one CPU do not interleave.
        let place = Marks::place(unsafe { &(*self.cpu).session });
        // SAFETY: a map value of cells, of which other CPUs write whole words.
        MARKS.get_ptr(place).map(|marks| unsafe { &*marks.cast::<Marks>() })
    }

    /// Memory for the packet's facts.
    #[inline(always)]
    pub(crate) fn place(&self) -> &'static mut MaybeUninit<Facts> {
        // SAFETY: this CPU's memory, in a map that lives as long as the program; nothing else
        // refers to this field.
        unsafe { &mut (*self.cpu).facts }
    }
}

/// This CPU's burst in the place of a session, whosever it is.
#[inline(always)]
fn burst_of(key: &SessionKey) -> Option<&'static mut Burst> {
    // SAFETY: this CPU's own map value, which user space only reads; programs of one CPU do not
    // interleave.
    BURSTS.get_ptr_mut(Burst::place(key)).map(|burst| unsafe { &mut *burst })
}

/// Adds a burst to its session, if that is still there.
#[inline(always)]
fn settle(burst: &Burst) {
    let Some(session) = SESSIONS.get_ptr(&burst.key) else { return };
    // SAFETY: as in `Memory::session`.
    let session = unsafe { &*session.cast::<SessionState>() };
    if session.start_ns.get() != burst.start_ns {
        return;
    }
    for direction in 0..2 {
        verifier::atomic_add(&session.packets[direction], burst.packets[direction]);
        verifier::atomic_add(&session.bytes[direction], burst.bytes[direction]);
    }
}

impl<P: HookPacket> State for Memory<'_, P> {
    /// Not really static: a map value lives at least as long as the program runs (RCU).
    type Session = &'static SessionState;
    /// Likewise.
    type Flow = &'static FlowState;

    #[inline(always)]
    fn now(&self) -> u64 {
        // SAFETY: a helper without arguments.
        unsafe { bpf_ktime_get_ns() }
    }

    /// The clock is read once a tick and CPU. The tick's number costs one load (the verifier puts it in
    /// the place of the call, Linux 5.5), `bpf_ktime_get_coarse_ns` costs 15 ns.
    #[inline(always)]
    fn now_coarse(&self) -> u64 {
        // SAFETY: a helper without arguments.
        let tick = unsafe { bpf_jiffies64() };
        // SAFETY: as in `watch`.
        let clock = unsafe { &mut (*self.cpu).clock };
        if clock.tick != tick {
            *clock = Clock { tick, ns: self.now() };
        }
        clock.ns
    }

    #[inline(always)]
    fn add(&self, cell: &Cell<u64>, amount: u64) {
        verifier::atomic_add(cell, amount);
    }

    #[inline(always)]
    fn watch(&mut self, flow: FlowKey, application: u32) {
        // SAFETY: this CPU's memory; programs of one CPU do not interleave.
        let cpu = unsafe { &mut *self.cpu };
        cpu.draft.record.flow = flow;
        cpu.session = SessionKey { ue: flow.ue, application, reserved: 0 };
    }

    #[inline(always)]
    fn flow(&self) -> &FlowKey {
        // SAFETY: as in `watch`.
        unsafe { &(*self.cpu).draft.record.flow }
    }

    #[inline(always)]
    fn session(&self) -> Option<&'static SessionState> {
        // SAFETY: as in `watch`.
        let session = SESSIONS.get_ptr(unsafe { &(*self.cpu).session })?;
        // SAFETY: a map value of cells: other CPUs write whole words of it, which the CPU does not
        // tear. An LRU entry that is evicted now is freed only after this program has run (RCU).
        Some(unsafe { &*session.cast::<SessionState>() })
    }

    #[inline(always)]
    fn create_session(&mut self, ue_word: u64) -> Option<&'static SessionState> {
        // SAFETY: as in `watch`.
        let cpu = unsafe { &mut *self.cpu };
        cpu.empty_session.ue = ue_word;
        // Another CPU may have been first: then its entry counts.
        let _ = SESSIONS.insert(&cpu.session, &cpu.empty_session, u64::from(BPF_NOEXIST));
        if let Some(marks) = self.marks() {
            marks.clear();
        }
        self.session()
    }

    #[inline(always)]
    fn burst(&mut self, generation: u32) -> Option<&mut Burst> {
        let tick = self.now_coarse();
        // SAFETY: as in `watch`.
        let key = unsafe { &(*self.cpu).session };
        let burst = burst_of(key)?;
        burst.goes_on(key, tick, generation, BURST_ENDS.read()).then_some(burst)
    }

    #[inline(always)]
    fn begin_burst(&mut self, start_ns: u64, ue_word: u64) {
        let tick = self.now_coarse();
        // SAFETY: as in `watch`.
        let key = unsafe { &(*self.cpu).session };
        let ends = BURST_ENDS.read();
        let Some(burst) = burst_of(key) else { return };
        if !burst.is_empty() {
            settle(burst);
        }
        burst.begin(key, start_ns, tick, ue_word, ends);
    }

    #[inline(always)]
    fn end_bursts(&mut self) {
        BURST_ENDS.add_one();
    }

    #[inline(always)]
    fn seen_before(&mut self, mark: u64) -> bool {
        self.marks().is_some_and(|marks| marks.seen_before(mark))
    }

    #[inline(always)]
    fn flow_state(&self) -> Option<&'static FlowState> {
        let flow = FLOWS.get_ptr(self.flow())?;
        // SAFETY: as in `session`.
        Some(unsafe { &*flow.cast::<FlowState>() })
    }

    #[inline(always)]
    fn create_flow(&mut self, shown: u64) -> Option<&'static FlowState> {
        // SAFETY: as in `watch`.
        let cpu = unsafe { &mut *self.cpu };
        let now = self.now_coarse();
        cpu.empty_flow.mark = NO_MARK;
        cpu.empty_flow.start_ns = now;
        cpu.empty_flow.last_ns = now;
        cpu.empty_flow.shown = [shown; 2];
        // Another CPU may have been first: then its entry counts.
        let flow = &cpu.draft.record.flow;
        let _ = FLOWS.insert(flow, &cpu.empty_flow, u64::from(BPF_NOEXIST));
        self.flow_state()
    }

    #[inline(always)]
    fn mark_flow(&mut self, mark: u64) -> Option<u64> {
        let known = self.flow_state();
        let flow = known.or_else(|| self.create_flow(BUDGET))?;
        // A race between CPUs leaves one of the two marks.
        let before = flow.mark.replace(mark);
        (before != NO_MARK).then_some(before)
    }

    #[inline(always)]
    fn unmark_flow(&self) -> bool {
        self.flow_state().is_some_and(|flow| flow.mark.replace(NO_MARK) != NO_MARK)
    }

    #[inline(always)]
    fn suppress(&mut self, rule: u32, now_ns: u64, window_ns: u64) -> bool {
        // SAFETY: as in `watch`.
        let cpu = unsafe { &mut *self.cpu };
        cpu.suppression = SuppressionKey { ue: cpu.draft.record.flow.ue, rule, reserved: 0 };
        match SUPPRESSIONS.get_ptr_mut(&cpu.suppression) {
            Some(opened) => {
                // SAFETY: a map value; two CPUs that race may both let their match through.
                if now_ns.wrapping_sub(unsafe { *opened }) < window_ns {
                    return true;
                }
                // SAFETY: as above.
                unsafe { *opened = now_ns };
            }
            None => {
                let _ = SUPPRESSIONS.insert(&cpu.suppression, &now_ns, 0);
            }
        }
        false
    }

    #[inline(always)]
    fn count(&self, counter: Counter, amount: u64) {
        // SAFETY: this CPU's own counters.
        unsafe { (*self.cpu).counters[counter as usize] += amount };
    }

    #[inline(always)]
    fn count_rule(&self, rule: u32, counter: RuleCounter) {
        if let Some(counts) = RULE_COUNTS.get_ptr_mut(self.slot * MAX_RULES as u32 + rule) {
            // SAFETY: this CPU's own counters.
            unsafe { (*counts)[counter as usize] += 1 };
        }
    }

    #[inline(always)]
    fn draft(&mut self) -> Option<&mut Draft> {
        // SAFETY: this CPU's memory; programs of one CPU do not interleave.
        Some(unsafe { &mut (*self.cpu).draft })
    }

    #[inline(always)]
    fn send(&mut self, facts: &Facts, capture: usize) -> bool {
        // SAFETY: this CPU's memory; programs of one CPU do not interleave.
        ring::send(unsafe { &mut *self.cpu }, self.packet, facts, capture)
    }
}
