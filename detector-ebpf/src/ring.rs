//! The ring buffer: one record out, and when to wake the reader.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    macros::map,
    maps::{PerCpuArray, RingBuf},
};
use detector_common::{
    classify::capture_length,
    event::{MAX_SEGMENT, RecordHeader, WAKE_HOLDOFF_NS},
    parse::Facts,
    state::{Draft, FlowSnapshot, SessionKey, SessionSnapshot, SuppressionKey},
};

use crate::{packet::HookPacket, verifier};

/// Replaced by `limits.ringBytes` at load time.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);
#[map]
static SCRATCH: PerCpuArray<Scratch> = PerCpuArray::with_max_entries(1, 0);

/// See [`detector_common::event::WAKE_HOLDOFF_NS`]; benchmarks set it to compare policies.
#[unsafe(no_mangle)]
static WAKE_HOLDOFF: u64 = WAKE_HOLDOFF_NS;

/// One CPU's place to put a record together: too large for the stack of 512 bytes.
#[repr(C)]
pub(crate) struct Scratch {
    /// Ends with the record's head; the payload must follow at once.
    pub(crate) draft: Draft,
    payload: [u8; MAX_SEGMENT],
    /// What the packet says.
    pub(crate) facts: MaybeUninit<Facts>,
    /// When this CPU last woke the reader.
    last_wake_ns: u64,
    /// Key of the session being watched.
    pub(crate) session: SessionKey,
    /// Key of the suppression window being asked for.
    pub(crate) suppression: SuppressionKey,
    /// What a session begins as.
    pub(crate) empty_session: SessionSnapshot,
    /// What a flow begins as.
    pub(crate) empty_flow: FlowSnapshot,
}

/// This CPU's scratch.
#[inline(always)]
pub(crate) fn scratch() -> Option<*mut Scratch> {
    SCRATCH.get_ptr_mut(0)
}

/// Sends the record in `scratch` with up to `capture` bytes of the payload; whether it found room.
#[inline(always)]
pub(crate) fn send<P: HookPacket>(
    scratch: &mut Scratch,
    packet: &P,
    facts: &Facts,
    capture: usize,
) -> bool {
    let mut size = RecordHeader::SIZE;
    scratch.draft.record.captured = 0;
    if let Some(length) = verifier::bounded_length(capture_length(facts, capture), MAX_SEGMENT) {
        // SAFETY: the payload has room for MAX_SEGMENT bytes.
        let copied = unsafe {
            packet.copy(facts.payload_offset, scratch.payload.as_mut_ptr(), length as u32)
        };
        if copied {
            scratch.draft.record.captured = length as u32;
            size += length;
        }
    }
    let Some(size) = verifier::bounded_length(size, RecordHeader::SIZE + MAX_SEGMENT) else {
        return false;
    };
    let flags = wake_up(scratch);
    // SAFETY: header and payload lie together (repr(C), no padding between), `size` is within them.
    let bytes = unsafe {
        core::slice::from_raw_parts((&raw const scratch.draft.record).cast::<u8>(), size)
    };
    EVENTS.output::<[u8]>(bytes, u64::from(flags)).is_ok()
}

/// Waking the reader costs the packet path 5 to 9 us, so it happens at most once per holdoff and
/// CPU. The reader, once woken, looks again after each holdoff until it finds nothing: a record
/// that did not wake it waits at most that long, and one that comes after a quiet time none.
#[inline(always)]
fn wake_up(scratch: &mut Scratch) -> u32 {
    let now = scratch.draft.record.time_ns;
    // SAFETY: a constant of the program; volatile, because the loader writes it after compilation.
    let holdoff = unsafe { core::ptr::read_volatile(&raw const WAKE_HOLDOFF) };
    if now.wrapping_sub(scratch.last_wake_ns) < holdoff {
        return BPF_RB_NO_WAKEUP;
    }
    scratch.last_wake_ns = now;
    BPF_RB_FORCE_WAKEUP
}
