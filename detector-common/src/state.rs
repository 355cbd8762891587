//! What the packet path remembers: sessions, flows and suppression windows. The kernel keeps them
//! in bounded LRU maps, replay and tests in hash maps; the classifier sees only this trait.

use core::{cell::Cell, ops::Deref};

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

use crate::{
    burst::Burst,
    counter::{Counter, RuleCounter},
    dns_name::Name,
    event::RecordHeader,
    packet::Address,
    parse::Facts,
};

/// One user of one application.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SessionKey {
    /// The user.
    pub ue: Address,
    /// The application's stable id.
    pub application: u32,
    /// Always 0.
    pub reserved: u32,
}

impl SessionKey {
    /// Spreads sessions over places of arrays: the high bits count.
    #[inline(always)]
    pub const fn hash(&self) -> u32 {
        // Folded first and cut from the top, as in `lookup::hash`.
        let [a, b] = self.ue.0;
        let mixed = a ^ b ^ ((self.application as u64) << 16);
        let mixed = (mixed ^ (mixed >> 32)).wrapping_mul(0x9e37_79b9_7f4a_7c15);
        (mixed >> 32) as u32
    }
}

/// What is known of a session. Several CPUs write it at once: sums go through [`State::add`] and
/// stay exact, the rest are whole words that are only ever compared. Plain cells, because LLVM has
/// no atomic loads and stores for the BPF target.
#[derive(Debug, Default)]
#[repr(C)]
pub struct SessionState {
    /// Under which rules the UE was last looked up, and what was found: see [`Self::judged_under`].
    pub ue: Cell<u64>,
    /// When the UE's first packet came, in ns of CLOCK_MONOTONIC; 0 while only the application spoke.
    pub start_ns: Cell<u64>,
    /// When the last packet came; coarse (a kernel tick, 1 to 10 ms) where the kernel has 5.11.
    pub last_ns: Cell<u64>,
    /// Packets by [`crate::packet::Direction`].
    pub packets: [Cell<u64>; 2],
    /// Bytes by [`crate::packet::Direction`].
    pub bytes: [Cell<u64>; 2],
    /// TCP connections that are open, as far as their SYN was seen; as two's complement.
    pub open_connections: Cell<u64>,
    /// Until when flows of the session may be followed because a request was cut, ns, coarse.
    pub cut_until: Cell<u64>,
}

/// A [`SessionState`] as plain bytes: how it lies in the kernel's map and is read from it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct SessionSnapshot {
    /// See [`SessionState::ue`].
    pub ue: u64,
    /// See [`SessionState::start_ns`].
    pub start_ns: u64,
    /// See [`SessionState::last_ns`].
    pub last_ns: u64,
    /// See [`SessionState::packets`].
    pub packets: [u64; 2],
    /// See [`SessionState::bytes`].
    pub bytes: [u64; 2],
    /// See [`SessionState::open_connections`].
    pub open_connections: u64,
    /// See [`SessionState::cut_until`].
    pub cut_until: u64,
}

// The kernel programs see the map's bytes as either.
const _: () = assert!(size_of::<SessionState>() == size_of::<SessionSnapshot>());

impl SessionState {
    /// The word for a UE that has this row under a generation of rules: one word, so that it is
    /// read and written whole.
    #[inline(always)]
    pub const fn ue_word(generation: u32, row: u32) -> u64 {
        ((generation as u64) << 32) | row as u64
    }

    /// The number of the UE's row, if it was looked up under this generation of rules.
    #[inline(always)]
    pub fn judged_under(&self, generation: u32) -> Option<u32> {
        let word = self.ue.get();
        ((word >> 32) as u32 == generation).then_some(word as u32)
    }
}

/// One TCP connection or UDP flow.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct FlowKey {
    /// The user.
    pub ue: Address,
    /// The application's address.
    pub application_address: Address,
    /// The user's port.
    pub ue_port: u16,
    /// The application's port.
    pub application_port: u16,
    /// IP protocol number.
    pub protocol: u32,
}

/// What is known of a flow. As [`SessionState`], written by several CPUs.
#[derive(Debug, Default)]
#[repr(C)]
pub struct FlowState {
    /// UDP: when the last packet came, ns, coarse. TCP: the SYN's sequence number. Else [`NO_MARK`].
    pub mark: Cell<u64>,
    /// When it began, as far as it was counted; ns, coarse.
    pub start_ns: Cell<u64>,
    /// When the last packet came that was counted; ns, coarse.
    pub last_ns: Cell<u64>,
    /// Packets by [`crate::packet::Direction`], where rules ask for how flows end.
    pub packets: [Cell<u64>; 2],
    /// Bytes by [`crate::packet::Direction`], likewise.
    pub bytes: [Cell<u64>; 2],
    /// Payload bytes by direction that user space was shown, and whether some were not: see
    /// [`crate::inspect`].
    pub shown: [Cell<u64>; 2],
}

/// A flow of which no SYN was seen.
pub const NO_MARK: u64 = u64::MAX;

/// A [`FlowState`] as plain bytes: how it lies in the kernel's map and is read from it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct FlowSnapshot {
    /// See [`FlowState::mark`].
    pub mark: u64,
    /// See [`FlowState::start_ns`].
    pub start_ns: u64,
    /// See [`FlowState::last_ns`].
    pub last_ns: u64,
    /// See [`FlowState::packets`].
    pub packets: [u64; 2],
    /// See [`FlowState::bytes`].
    pub bytes: [u64; 2],
    /// See [`FlowState::shown`].
    pub shown: [u64; 2],
}

const _: () = assert!(size_of::<FlowState>() == size_of::<FlowSnapshot>());

/// A UDP flow that was silent for this long is a new one: RFC 4787 section 4.3 asks NATs to keep
/// a mapping for at least two minutes.
pub const UDP_FLOW_IDLE_NS: u64 = 120_000_000_000;

/// The suppression window of one rule and UE.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct SuppressionKey {
    /// The user.
    pub ue: Address,
    /// The rule's stable id.
    pub rule: u32,
    /// Always 0.
    pub reserved: u32,
}

/// Where a record is put together.
#[derive(Clone, Copy, Debug, FromBytes, Immutable, KnownLayout)]
#[repr(C)]
pub struct Draft {
    /// A name that is looked up.
    pub name: Name,
    /// Numbers of the rows to AND.
    pub rows: [u32; 4],
    /// See [`crate::verifier::forget`].
    pub opaque: u32,
    /// The row of rules that a request may match which is kept out otherwise, see
    /// [`crate::request_gate`]; that of all rules for any other packet.
    pub gate_row: u32,
    /// Where the target of the HTTP request starts that the packet begins with.
    pub request_target: u32,
    /// That request's kind, as [`crate::rule::row::seen`] counts them.
    pub request_kind: u32,
    /// [`crate::rule::ApplicationEntry::first_word`].
    pub first_word: u32,
    /// [`crate::rule::ApplicationEntry::last_word`].
    pub last_word: u32,
    /// Rules that matched beyond those the record has room for.
    pub over: u32,
    /// The record's head.
    pub record: RecordHeader,
}

/// The packet path's memory, clock, counters and way out.
pub trait State {
    /// A session that was found; finding it is dear (30 ns), holding it is free.
    type Session: Deref<Target = SessionState>;
    /// A flow that was found; as dear to find.
    type Flow: Deref<Target = FlowState>;

    /// Precise time in ns of CLOCK_MONOTONIC; dear (28 ns), so only on the matched path.
    fn now(&self) -> u64;
    /// The same clock, at most a kernel tick behind; cheap.
    fn now_coarse(&self) -> u64;
    /// Adds to a cell that other CPUs add to as well. A method of the memory, because the BPF target
    /// has the instruction but Rust's `fetch_add` does not compile to it there.
    fn add(&self, cell: &Cell<u64>, amount: u64);
    /// Says whose session, flow and suppression windows are meant from here on. The keys lie in the
    /// memory, not in arguments: BPF's stack has 512 bytes.
    fn watch(&mut self, flow: FlowKey, application: u32);
    /// The flow being watched.
    fn flow(&self) -> &FlowKey;
    /// Finds the open session of the UE and application.
    fn session(&self) -> Option<Self::Session>;
    /// Begins their session with what is known of the UE ([`SessionState::ue_word`]); `None` if there
    /// is no room.
    fn create_session(&mut self, ue_word: u64) -> Option<Self::Session>;
    /// The watched session's burst ([`crate::burst`]), if one goes on. Only what keeps sessions in a
    /// dear place has bursts.
    fn burst(&mut self, generation: u32) -> Option<&mut Burst>;
    /// Begins a burst of the watched session, which began at `start_ns`; `ue_word` is
    /// [`SessionState::ue`].
    fn begin_burst(&mut self, start_ns: u64, ue_word: u64);
    /// Ends the bursts of the watched session, whichever CPU counts in them; and all others, which costs each
    /// of them one look-up.
    fn end_bursts(&mut self);
    /// Whether a segment of the watched session matched before, see [`crate::marks`].
    fn seen_before(&mut self, mark: u64) -> bool;
    /// Finds the flow.
    fn flow_state(&self) -> Option<Self::Flow>;
    /// Remembers the flow, as one that was shown so many bytes in each direction; `None` if there is
    /// no room.
    fn create_flow(&mut self, shown: u64) -> Option<Self::Flow>;
    /// Remembers the flow under a mark and gives the mark it had before.
    fn mark_flow(&mut self, mark: u64) -> Option<u64>;
    /// Takes the flow's mark away; whether it had one.
    fn unmark_flow(&self) -> bool;
    /// Opens the suppression window of a rule and the UE at `now_ns`, unless one is open: then
    /// `true`. `rule` is the rule's stable id.
    fn suppress(&mut self, rule: u32, now_ns: u64, window_ns: u64) -> bool;
    /// Adds to a counter.
    fn count(&self, counter: Counter, amount: u64);
    /// Adds one to a counter of a rule.
    fn count_rule(&self, rule: u32, counter: RuleCounter);
    /// Where the record of this packet is put together; [`Self::watch`] filled in its flow. `None`
    /// never happens.
    fn draft(&mut self) -> Option<&mut Draft>;
    /// Sends the record with the first `capture` bytes of the payload, and says in it when, unless that is
    /// known; whether it found room.
    fn send(&mut self, facts: &Facts, capture: usize) -> bool;
}
