//! Detector's kernel programs. Each entry point makes packet bytes of its context, hands them to
//! the one classifier, and lets the packet go on, whatever happened: XDP_PASS or TC_ACT_UNSPEC.
//!
//! Programs come per hook and per what a packet starts with, so that no packet pays for asking. They are
//! inlined into the functions that the macros make of them, or each packet would pay for a call (8 ns).
#![no_std]
#![no_main]
// For the assembly in `verifier`; the pinned stable compiler allows it with
// RUSTC_BOOTSTRAP, which build-std needs anyway.
#![feature(asm_experimental_arch)]

mod memory;
mod packet;
mod ring;
mod tables;
mod verifier;

use aya_ebpf::{
    bindings::{TC_ACT_UNSPEC, xdp_action::XDP_PASS},
    macros::{classifier, xdp},
    programs::{TcContext, XdpContext},
};
use detector_common::{classify, packet::Layer};

use crate::{memory::Memory, packet::HookPacket, tables::ActiveTables};

/// XDP on an Ethernet device.
#[xdp]
#[inline(always)]
fn detector_xdp_ethernet(context: XdpContext) -> u32 {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&context, "XDP: {} bytes", context.data_end() - context.data());
    inspect(packet::Xdp::new(&context), Layer::Ethernet);
    XDP_PASS
}

/// XDP on an Ethernet device whose MTU does not fit one buffer (multi-buffer XDP, Linux 5.18).
#[xdp(frags)]
#[inline(always)]
fn detector_xdp_frags_ethernet(context: XdpContext) -> u32 {
    inspect(packet::Xdp::with_fragments(&context), Layer::Ethernet);
    XDP_PASS
}

/// XDP on a device without link-layer header (tun, GTP): generic mode only.
#[xdp]
#[inline(always)]
fn detector_xdp_ip(context: XdpContext) -> u32 {
    inspect(packet::Xdp::new(&context), Layer::Ip);
    XDP_PASS
}

/// TC, ingress or egress, on an Ethernet device.
#[classifier]
#[inline(always)]
fn detector_tc_ethernet(context: TcContext) -> i32 {
    #[cfg(feature = "log")]
    aya_log_ebpf::debug!(&context, "TC: {} bytes", context.len());
    if let Some(packet) = packet::Tc::new(&context) {
        inspect(packet, Layer::Ethernet);
    }
    TC_ACT_UNSPEC
}

/// TC, ingress or egress, on a device without link-layer header.
#[classifier]
#[inline(always)]
fn detector_tc_ip(context: TcContext) -> i32 {
    if let Some(packet) = packet::Tc::new(&context) {
        inspect(packet, Layer::Ip);
    }
    TC_ACT_UNSPEC
}

#[inline(always)]
fn inspect<P: HookPacket>(packet: P, layer: Layer) {
    let Some(tables) = ActiveTables::now() else { return };
    let Some(mut memory) = Memory::new(&packet, tables.slot()) else { return };
    let place = memory.place();
    classify::inspect(&packet, layer, packet.ifindex(), &tables, &mut memory, place);
}

/// Nothing here panics: the verifier would refuse the endless loop.
#[cfg(not(test))]
#[panic_handler]
fn panic(_info: &core::panic::PanicInfo<'_>) -> ! {
    loop {}
}

/// The kernel lets only programs that say GPL use its GPL-only helpers; the source is also
/// offered under Apache-2.0 OR MIT.
#[unsafe(link_section = "license")]
#[unsafe(no_mangle)]
static LICENSE: [u8; 13] = *b"Dual MIT/GPL\0";
