//! Programs for `cargo xtask bench` and the flood test only; the agent never loads them.
//!
//! A test run sends the same bytes again and again, which a deduplicating program sees as one
//! packet sent again. So these change the packet first, then tail-call the program under test; the
//! baseline changes the packet too, and calls an empty program.
#![no_std]
#![no_main]

use aya_ebpf::{
    bindings::xdp_action::XDP_PASS,
    helpers::{bpf_get_prandom_u32, bpf_redirect},
    macros::{map, xdp},
    maps::{Array, ProgramArray},
    programs::XdpContext,
};

/// The program to go on with.
#[map]
static NEXT: ProgramArray = ProgramArray::with_max_entries(1, 0);
/// How often a packet was changed.
#[map]
static RUNS: Array<u32> = Array::with_max_entries(1, 0);
/// How many UEs `detector_bench_spread` takes turns with; a power of two.
#[unsafe(no_mangle)]
static UES: u32 = 1;

/// Where `detector_bench_flood` sends packets, by number.
#[unsafe(no_mangle)]
static DEVICE: u32 = 0;

const IP_SOURCE: usize = 14 + 12;
const TCP_SEQUENCE: usize = 14 + 20 + 4;

/// Does nothing: what every other program is compared with.
#[xdp]
fn detector_bench_empty(_context: XdpContext) -> u32 {
    XDP_PASS
}

/// Gives the segment a new sequence number, then goes on.
#[xdp]
fn detector_bench_segments(context: XdpContext) -> u32 {
    change(&context, TCP_SEQUENCE, 0, u32::MAX);
    go_on(&context)
}

/// Gives the packet another UE of 10.128.0.0/9, then goes on.
#[xdp]
fn detector_bench_spread(context: XdpContext) -> u32 {
    // SAFETY: a constant of the program; volatile, because the loader writes it after compilation.
    let ues = unsafe { core::ptr::read_volatile(&raw const UES) };
    change(&context, IP_SOURCE, 0x0a80_0000, ues.wrapping_sub(1));
    go_on(&context)
}

/// Sends the segment out of the device, as one of 128 UEs of 10.60.1.0/25 and with some sequence
/// number: for test runs with live frames.
#[xdp]
fn detector_bench_flood(context: XdpContext) -> u32 {
    change(&context, IP_SOURCE, 0x0a3c_0100, 0x7f);
    // SAFETY: a helper without arguments.
    write(&context, TCP_SEQUENCE, unsafe { bpf_get_prandom_u32() });
    // SAFETY: a constant of the program; volatile, because the loader writes it after compilation.
    let device = unsafe { core::ptr::read_volatile(&raw const DEVICE) };
    // SAFETY: a helper without pointers.
    unsafe { bpf_redirect(device, 0) as u32 }
}

/// Writes `base` plus a number that jumps about within `mask`.
#[inline(always)]
fn change(context: &XdpContext, offset: usize, base: u32, mask: u32) {
    let Some(runs) = RUNS.get_ptr_mut(0) else { return };
    // SAFETY: a map value; one benchmark runs at a time.
    let number = unsafe { (*runs).wrapping_add(0x9e37_79b1) };
    // SAFETY: as above.
    unsafe { *runs = number };
    // Jumps over the table rather than walking it, as packets of many users do.
    write(context, offset, base.wrapping_add(number.wrapping_mul(0x85eb_ca6b) & mask));
}

#[inline(always)]
fn write(context: &XdpContext, offset: usize, value: u32) {
    let place = context.data() + offset;
    if place + 4 <= context.data_end() {
        // SAFETY: inside the packet, as just checked.
        unsafe { (place as *mut u32).write_unaligned(value.to_be()) };
    }
}

#[inline(always)]
fn go_on(context: &XdpContext) -> u32 {
    // SAFETY: the map holds XDP programs.
    unsafe { NEXT.tail_call(context, 0) };
    XDP_PASS
}

#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
