//! The hooks' contexts as packet bytes.

use core::mem::MaybeUninit;

use aya_ebpf::{
    EbpfContext as _,
    bindings::xdp_md,
    helpers::generated::{bpf_skb_load_bytes, bpf_xdp_get_buff_len, bpf_xdp_load_bytes},
    macros::map,
    maps::PerCpuArray,
    programs::{TcContext, XdpContext},
};
use detector_common::{packet::PacketBytes, verifier::forget};
use zerocopy::FromBytes;

use crate::verifier;

/// A packet at a hook.
pub(crate) trait HookPacket: PacketBytes {
    /// The device it was seen on.
    fn ifindex(&self) -> u32;

    /// Copies `length` bytes (1 to what `destination` has room for) from `offset`; whether it could.
    ///
    /// # Safety
    /// `destination` is valid for writing `length` bytes.
    unsafe fn copy(&self, offset: u32, destination: *mut u8, length: u32) -> bool;

    /// Copies `N` bytes where that is quicker than [`Self::copy`]; whether it did.
    ///
    /// # Safety
    /// `destination` is aligned to 8 bytes and valid for writing `N` bytes.
    unsafe fn copy_in_place<const N: usize>(&self, offset: u32, destination: *mut u8) -> bool;
}

/// [`PacketBytes::load_into`] of both hooks.
#[inline(always)]
fn load_bounded<P: HookPacket, const N: usize>(
    packet: &P,
    offset: usize,
    length: usize,
    to: &mut [u8; N],
) -> bool {
    let Some(offset) = verifier::bounded_offset(offset) else { return false };
    let Some(length) = verifier::bounded_length(length, N) else { return false };
    // SAFETY: at most N bytes, as just checked.
    unsafe { packet.copy(offset as u32, to.as_mut_ptr(), length as u32) }
}

/// The most that is read at once, the headers of a frame with TCP in IPv6, in whole words.
const COPY: usize = 80;

/// Where TC copies headers to, one place per CPU: the compiler reads them in whole words, which the
/// verifier allows at any address in a map, but on the stack only at multiples of their size. Both
/// hooks send what the verifier is to forget through it.
#[map]
static HEADERS: PerCpuArray<[u8; COPY]> = PerCpuArray::with_max_entries(1, 0);

/// A place on the stack for bytes that are copied from a packet. Headers are read in whole words,
/// which the verifier allows at any address in a packet but only at multiples of their size on the
/// stack.
#[repr(C, align(8))]
struct Aligned<T>(MaybeUninit<T>);

/// A packet at XDP: read in place.
pub(crate) struct Xdp<'a> {
    context: &'a XdpContext,
    size: usize,
    /// Whether there may be more buffers than the first.
    fragmented: bool,
}

impl<'a> Xdp<'a> {
    /// Of a program that gets packets in one buffer only.
    #[inline(always)]
    pub(crate) fn new(context: &'a XdpContext) -> Self {
        Self { context, size: context.data_end() - context.data(), fragmented: false }
    }

    /// Of a program that takes more buffers than the one that `data` and `data_end` show.
    #[inline(always)]
    pub(crate) fn with_fragments(context: &'a XdpContext) -> Self {
        // SAFETY: the kernel's context.
        let size = unsafe { bpf_xdp_get_buff_len(context.as_ptr().cast()) };
        Self { context, size: size as usize, fragmented: true }
    }

    #[inline(always)]
    fn md(&self) -> *mut xdp_md {
        self.context.as_ptr().cast()
    }
}

impl PacketBytes for Xdp<'_> {
    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let offset = match self.fragmented {
            true => verifier::bounded_offset(offset)?,
            false => verifier::bounded_offset_in_place(offset)?,
        };
        let start = self.context.data() + offset;
        if start + size_of::<T>() > self.context.data_end() {
            return None;
        }
        // SAFETY: the bytes lie between data and data_end, as just checked, and every bit pattern
        // is a T (FromBytes).
        Some(unsafe { (start as *const T).read_unaligned() })
    }

    #[inline(always)]
    fn load_payload<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        // Nearly always in the first buffer, where a look costs a fraction of the helper's call. Not
        // a single byte: LLVM makes `>=` of the check, of which the verifier learns nothing.
        if size_of::<T>() > 1 {
            if let Some(value) = self.load(offset) {
                return Some(value);
            }
            if !self.fragmented {
                return None;
            }
        }
        let offset = verifier::bounded_offset(offset)?;
        let mut value = Aligned(MaybeUninit::<T>::uninit());
        // SAFETY: the destination is as large as said.
        let done = unsafe {
            bpf_xdp_load_bytes(
                self.md(),
                offset as u32,
                value.0.as_mut_ptr().cast(),
                size_of::<T>() as u32,
            )
        };
        // SAFETY: the helper wrote all of it, and every bit pattern is a T (FromBytes).
        (done == 0).then(|| unsafe { value.0.assume_init() })
    }

    #[inline(always)]
    fn load_into<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool {
        load_bounded(self, offset, length, to)
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.size
    }

    #[inline(always)]
    fn forget(&self, value: usize) -> usize {
        match HEADERS.get_ptr_mut(0) {
            // SAFETY: this CPU's map value; programs of one CPU do not interleave.
            Some(place) => forget(value as u32, unsafe { &mut *place.cast::<u32>() }) as usize,
            None => value, // never happens
        }
    }
}

impl HookPacket for Xdp<'_> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.md()).ingress_ifindex }
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, destination: *mut u8, length: u32) -> bool {
        // Reads through fragments too (Linux 5.18); direct access would end at the first buffer.
        // SAFETY: the caller's promise, and the kernel's context.
        unsafe { bpf_xdp_load_bytes(self.md(), offset, destination.cast(), length) == 0 }
    }

    /// The helper costs 30 ns, 32 words a third of that.
    #[inline(always)]
    unsafe fn copy_in_place<const N: usize>(&self, offset: u32, destination: *mut u8) -> bool {
        let Some(offset) = verifier::bounded_offset(offset as usize) else { return false };
        let start = self.context.data() + offset;
        if start + N > self.context.data_end() {
            return false;
        }
        let (from, to) = (start as *const u64, destination.cast::<u64>());
        for word in 0..N / 8 {
            // SAFETY: N bytes lie between data and data_end, as just checked, and at the destination,
            // as the caller promises. Volatile: see `ring::copy_header`.
            unsafe { to.add(word).write_volatile(from.add(word).read_unaligned()) };
        }
        true
    }
}

/// A packet at TC. Only 74 bytes of it are sure to be linear, so it is read through the helper.
pub(crate) struct Tc<'a> {
    context: &'a TcContext,
    copy: *mut [u8; COPY],
}

impl<'a> Tc<'a> {
    #[inline(always)]
    pub(crate) fn new(context: &'a TcContext) -> Option<Self> {
        Some(Self { context, copy: HEADERS.get_ptr_mut(0)? })
    }
}

impl PacketBytes for Tc<'_> {
    #[inline(always)]
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        const { assert!(size_of::<T>() <= COPY) };
        let offset = verifier::bounded_offset(offset)?;
        // SAFETY: the copy has room for a T, as asserted.
        let done = unsafe { self.copy(offset as u32, self.copy.cast(), size_of::<T>() as u32) };
        // Read even when nothing was copied: of a `None` without a value LLVM makes a register that
        // was never written, and shifts it about, which the verifier refuses.
        // SAFETY: a map value, never uninitialised; every bit pattern is a T (FromBytes).
        let value = unsafe { self.copy.cast::<T>().read_unaligned() };
        done.then_some(value)
    }

    #[inline(always)]
    fn load_payload<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        let offset = verifier::bounded_offset(offset)?;
        let mut value = Aligned(MaybeUninit::<T>::uninit());
        // SAFETY: the destination is as large as said.
        let done =
            unsafe { self.copy(offset as u32, value.0.as_mut_ptr().cast(), size_of::<T>() as u32) };
        // SAFETY: the helper wrote all of it, and every bit pattern is a T (FromBytes).
        done.then(|| unsafe { value.0.assume_init() })
    }

    #[inline(always)]
    fn load_into<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool {
        load_bounded(self, offset, length, to)
    }

    #[inline(always)]
    fn size(&self) -> usize {
        self.context.len() as usize
    }

    #[inline(always)]
    fn vlan_metadata(&self) -> Option<u16> {
        // SAFETY: the kernel's context.
        let skb = unsafe { &*self.context.skb.skb };
        (skb.vlan_present != 0).then_some(skb.vlan_tci as u16)
    }

    #[inline(always)]
    fn forget(&self, value: usize) -> usize {
        // SAFETY: as in `Xdp::forget`.
        forget(value as u32, unsafe { &mut *self.copy.cast::<u32>() }) as usize
    }
}

impl HookPacket for Tc<'_> {
    #[inline(always)]
    fn ifindex(&self) -> u32 {
        // SAFETY: the kernel hands a valid context.
        unsafe { (*self.context.skb.skb).ifindex }
    }

    #[inline(always)]
    unsafe fn copy(&self, offset: u32, destination: *mut u8, length: u32) -> bool {
        let skb = self.context.as_ptr().cast();
        // SAFETY: the caller's promise, and the kernel's context.
        unsafe { bpf_skb_load_bytes(skb, offset, destination.cast(), length) == 0 }
    }

    /// Little of a packet is sure to lie in one piece here.
    #[inline(always)]
    unsafe fn copy_in_place<const N: usize>(&self, _offset: u32, _destination: *mut u8) -> bool {
        false
    }
}
