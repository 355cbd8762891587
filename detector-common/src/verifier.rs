//! Where the shared code minds the kernel's verifier, which walks every path through a program and
//! gives up after a million instructions (Linux 5.2 and later).
//!
//! It tracks the value of every register and stack slot. Where many paths meet, each with other
//! constants or ranges, it walks all that follows once for each. It does not track what lies in
//! maps: a value that went through a map's memory is one of which it knows nothing, and the paths
//! become one. `place` must therefore lie in a map when this runs in the kernel; elsewhere it may
//! be anywhere, and nothing changes.

use core::{hint::black_box, mem::MaybeUninit};

/// The value, by way of `place`.
#[inline(always)]
pub fn forget(value: u32, place: &mut u32) -> u32 {
    *place = value;
    // LLVM must take it that the memory changed here, so it loads what it has just stored.
    *black_box(place)
}

/// As [`forget`], for a whole struct that stays where it is put.
#[inline(always)]
pub fn forget_all<T>(value: T, place: &mut MaybeUninit<T>) -> &T {
    black_box(place.write(value))
}
