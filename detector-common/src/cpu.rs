//! What each CPU has of its own in the kernel: one value of one map, so that a packet looks it up once.

use core::mem::MaybeUninit;

use crate::{
    counter::COUNTERS,
    parse::Facts,
    state::{Draft, FlowSnapshot, SessionKey, SessionSnapshot, SuppressionKey},
};

/// One CPU's memory. User space reads the counters. Of the rest, the clock and what the ring needs stay from
/// packet to packet, and harm nobody who begins without them; what is one packet's lies here because BPF's
/// stack has 512 bytes.
#[repr(C)]
pub struct CpuMemory {
    /// In the order of [`crate::counter::Counter::ALL`].
    pub counters: [u64; COUNTERS],
    /// Where a record is put together.
    pub draft: Draft,
    /// What the packet says.
    pub facts: MaybeUninit<Facts>,
    /// What this CPU's clock last said.
    pub clock: Clock,
    /// Bytes that this CPU reserved since it last asked how full the ring is.
    pub unasked: u64,
    /// When this CPU last woke the reader.
    pub last_wake_ns: u64,
    /// Key of the session being watched.
    pub session: SessionKey,
    /// Key of the suppression window being asked for.
    pub suppression: SuppressionKey,
    /// What a session begins as.
    pub empty_session: SessionSnapshot,
    /// What a flow begins as.
    pub empty_flow: FlowSnapshot,
}

/// When a kernel tick began, as far as packets came in it.
#[repr(C)]
pub struct Clock {
    /// The tick's number.
    pub tick: u64,
    /// The clock in it, in ns of CLOCK_MONOTONIC.
    pub ns: u64,
}
