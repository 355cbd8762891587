//! Every place where the compiler and the kernel's verifier disagree, with the reason. What the
//! shared code needs is in [`detector_common::verifier`].

use core::{cell::Cell, hint::black_box};

/// Farthest byte of a packet that headers are looked for at. The verifier wants a bound on every
/// variable offset into a packet (Linux: `MAX_PACKET_OFF`, 65,535, for offset plus size).
const MAX_OFFSET: usize = 4096;

/// An offset the verifier can bound.
///
/// Hidden from LLVM, which would else check `end` against one pointer and read through another
/// that it computed from the same offset; the verifier only knows the one that was checked.
#[inline(always)]
pub(crate) fn bounded_offset(offset: usize) -> Option<usize> {
    let offset = black_box(offset);
    (offset <= MAX_OFFSET).then_some(offset)
}

/// The same, quicker: the offset stays in its register, where `black_box` sends it through the stack, 2 ns a
/// time. Only for what reads in place and nothing else: where a helper's call may follow, Linux 6.1 walks so
/// many more paths that it gives up.
#[inline(always)]
pub(crate) fn bounded_offset_in_place(mut offset: usize) -> Option<usize> {
    // SAFETY: changes nothing. Without any instruction its line would stand at that of the next, which the
    // kernel refuses. Not `nomem`: of the context's pointers, loaded once for several checks, LLVM makes
    // copies in 32 bits, which the verifier takes for numbers.
    unsafe { core::arch::asm!("{0} = {0}", inout(reg) offset, options(nostack)) };
    (offset <= MAX_OFFSET).then_some(offset)
}

/// A length between 1 and `max` for a helper that takes memory and size.
///
/// Hidden from LLVM, which knows the bounds from earlier code and drops the checks; the verifier
/// forgot them when the value was spilled or combined with others. That it is not 0 the verifier
/// learns from an addition: from a comparison with 0 only since Linux 6.3.
#[inline(always)]
pub(crate) fn bounded_length(length: usize, max: usize) -> Option<usize> {
    let less_one = black_box(length.wrapping_sub(1));
    (less_one < max).then(|| less_one + 1)
}

/// Adds atomically, without a result: the one atomic instruction of BPF before Linux 5.12.
///
/// rustc gives the BPF target no read-modify-write atomics (it says the target has no
/// compare-and-swap), although the instruction exists; hence assembly.
#[inline(always)]
pub(crate) fn atomic_add(cell: &Cell<u64>, amount: u64) {
    // SAFETY: the cell is valid and aligned for eight bytes, and made for concurrent writes.
    unsafe {
        core::arch::asm!("lock *(u64 *)({0} + 0) += {1}", in(reg) cell.as_ptr(), in(reg) amount);
    }
}
