//! The ring buffer: one record out, and when to wake the reader.

use core::mem::MaybeUninit;

use aya_ebpf::{
    bindings::{BPF_RB_AVAIL_DATA, BPF_RB_FORCE_WAKEUP, BPF_RB_NO_WAKEUP},
    helpers::bpf_ktime_get_ns,
    macros::map,
    maps::RingBuf,
};
use detector_common::{
    classify::capture_length,
    cpu::CpuMemory,
    event::{
        FLAG_IMPORTANT, MAX_SEGMENT, NOT_YET, RING_PARTS, RecordHeader, WAKE_HOLDOFF_NS, ring_step,
    },
    parse::Facts,
};

use crate::{packet::HookPacket, verifier};

/// Replaced by `limits.ringBytes` at load time.
#[map]
static EVENTS: RingBuf = RingBuf::with_byte_size(4 << 20, 0);

/// See [`detector_common::event::WAKE_HOLDOFF_NS`]; benchmarks set it to compare policies.
#[unsafe(no_mangle)]
static WAKE_HOLDOFF: u64 = WAKE_HOLDOFF_NS;

/// Bytes of the ring that records without [`FLAG_IMPORTANT`] may fill; set by the agent for the size
/// of its ring.
#[unsafe(no_mangle)]
static RING_SHARE: u64 = (4 << 20) / RING_PARTS * (RING_PARTS - 1);

/// Bytes that a CPU sends of such records before it asks again how full the ring is; set by the agent so
/// that all CPUs together exceed the share by half of what is kept.
#[unsafe(no_mangle)]
static RING_STEP: u64 = ring_step(4 << 20, 64);

/// A record's place in the ring with room for `N` payload bytes.
#[repr(C)]
struct Place<const N: usize> {
    header: MaybeUninit<RecordHeader>,
    payload: MaybeUninit<[u8; N]>,
}

/// The size that is copied word by word: what rules get unless they ask for more.
const IN_PLACE: usize = 256;

/// Sends the record in `cpu` with up to `capture` bytes of the payload; whether it found room.
///
/// The payload is copied once, from the packet to the ring. The verifier wants to know the size of
/// a reservation, so there are few sizes; what stays unused behind the payload is left as it is.
#[inline(always)]
pub(crate) fn send<P: HookPacket>(
    cpu: &mut CpuMemory,
    packet: &P,
    facts: &Facts,
    capture: usize,
) -> bool {
    let length = capture_length(facts, capture);
    match length {
        0 => send_in::<0, P>(cpu, packet, facts, length),
        1..=256 => send_in::<256, P>(cpu, packet, facts, length),
        257..=1024 => send_in::<1024, P>(cpu, packet, facts, length),
        1025..=1536 => send_in::<1536, P>(cpu, packet, facts, length),
        _ => send_in::<MAX_SEGMENT, P>(cpu, packet, facts, length),
    }
}

/// Whether the ring has room for what is not important: a part of it is kept, so that a flood of
/// matches of one rule does not keep out those of another that matters more. A part of the one ring
/// and no ring of its own, so that a user's events stay in order.
///
/// Asking is a call (15 ns): where there was room, a CPU asks again after [`RING_STEP`]; where there was
/// none, each time.
#[inline(always)]
fn has_share(cpu: &mut CpuMemory, length: u64) -> bool {
    if cpu.draft.record.flags & FLAG_IMPORTANT != 0 {
        return true;
    }
    // SAFETY: constants of the program; volatile, because the loader writes them after compilation.
    let (share, step) = unsafe {
        (
            core::ptr::read_volatile(&raw const RING_SHARE),
            core::ptr::read_volatile(&raw const RING_STEP),
        )
    };
    if cpu.unasked < step {
        cpu.unasked += length;
        return true;
    }
    let room = EVENTS.query(u64::from(BPF_RB_AVAIL_DATA)) < share;
    if room {
        cpu.unasked = length;
    }
    room
}

#[inline(always)]
fn send_in<const N: usize, P: HookPacket>(
    cpu: &mut CpuMemory,
    packet: &P,
    facts: &Facts,
    length: usize,
) -> bool {
    if !has_share(cpu, size_of::<Place<N>>() as u64) {
        return false;
    }
    let Some(mut place) = EVENTS.reserve::<Place<N>>(0) else { return false };
    let record = place.as_mut_ptr();
    // Before the payload: a word that is read while stores to its halves wait in line waits with them.
    // SAFETY: a place of this type; every byte of the header is written.
    unsafe { copy_header(&cpu.draft.record, (&raw mut (*record).header).cast()) };
    // SAFETY: the payload has room for N bytes.
    let captured =
        unsafe { copy_payload::<N, P>(packet, facts, length, (&raw mut (*record).payload).cast()) };
    // Behind the payload: while the clock is read, the ring's cache lines come.
    let time_ns = time_of(&mut cpu.draft.record);
    // SAFETY: as above.
    let header = unsafe { (*record).header.assume_init_mut() };
    (header.captured, header.time_ns) = (captured, time_ns);
    place.submit(u64::from(wake_up(cpu)));
    true
}

/// When the packet came.
#[inline(always)]
fn time_of(record: &mut RecordHeader) -> u64 {
    if record.time_ns == NOT_YET {
        // SAFETY: a helper without arguments.
        record.time_ns = unsafe { bpf_ktime_get_ns() };
    }
    record.time_ns
}

/// Copies the first `length` bytes of the payload; how many it has copied, all or none.
///
/// # Safety
/// `to` is aligned to 8 bytes and valid for writing `N` bytes.
#[inline(always)]
unsafe fn copy_payload<const N: usize, P: HookPacket>(
    packet: &P,
    facts: &Facts,
    length: usize,
    to: *mut u8,
) -> u32 {
    let offset = facts.payload_offset;
    // SAFETY: the caller's promise.
    if N == IN_PLACE && length == N && unsafe { packet.copy_in_place::<N>(offset, to) } {
        return N as u32;
    }
    match verifier::bounded_length(length, N) {
        // SAFETY: as above.
        Some(length) if unsafe { packet.copy(offset, to, length as u32) } => length as u32,
        Some(_) | None => 0,
    }
}

/// Copies word by word: LLVM makes a call of any other copy of this size, to a function that goes
/// byte by byte. Volatile, or it would see that this is a copy too.
///
/// # Safety
/// `to` is valid for writing a header.
#[inline(always)]
unsafe fn copy_header(from: &RecordHeader, to: *mut RecordHeader) {
    const { assert!(RecordHeader::SIZE.is_multiple_of(8) && align_of::<RecordHeader>() == 8) };
    let (from, to) = (core::ptr::from_ref(from).cast::<u64>(), to.cast::<u64>());
    for word in 0..RecordHeader::SIZE / 8 {
        // SAFETY: within both headers, which are aligned as words are; the caller's promise.
        unsafe { to.add(word).write_volatile(from.add(word).read_volatile()) };
    }
}

/// Waking the reader costs the packet path 5 to 9 us, so it happens at most once per holdoff and
/// CPU. The reader, once woken, looks again after each holdoff until it finds nothing: a record
/// that did not wake it waits at most that long, and one that comes after a quiet time none.
#[inline(always)]
fn wake_up(cpu: &mut CpuMemory) -> u32 {
    let now = cpu.draft.record.time_ns;
    // SAFETY: a constant of the program; volatile, because the loader writes it after compilation.
    let holdoff = unsafe { core::ptr::read_volatile(&raw const WAKE_HOLDOFF) };
    if now.wrapping_sub(cpu.last_wake_ns) < holdoff {
        return BPF_RB_NO_WAKEUP;
    }
    cpu.last_wake_ns = now;
    BPF_RB_FORCE_WAKEUP
}
