//! Where packet bytes come from, and the words every part of Detector uses for them.

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Bytes of one packet. Implemented for slices (tests, replay) and for the kernel's XDP and TC
/// contexts, so that the one parser in [`crate::parse`] reads all of them.
pub trait PacketBytes {
    /// Copies a `T` from `offset` bytes into the packet; `None` when it does not fit.
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T>;

    /// As [`Self::load`], for bytes of the payload: they may lie in a later buffer than the headers,
    /// so the kernel reads them through a helper, which costs more than a look in place.
    fn load_payload<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        self.load(offset)
    }

    /// Copies `length` bytes of the payload (1 to `N`) from `offset`; whether they were there.
    fn load_into<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool;

    /// Bytes of the packet as the hook sees it; a super-packet (GSO) counts whole.
    fn size(&self) -> usize;

    /// The control field of a VLAN tag that is not in the bytes any more: devices and kernel take
    /// the outermost tag off and keep it beside the packet.
    fn vlan_metadata(&self) -> Option<u16> {
        None
    }

    /// The value; in the kernel, one of which the verifier knows nothing any more, see
    /// [`crate::verifier`].
    fn forget(&self, value: usize) -> usize {
        value
    }
}

impl PacketBytes for [u8] {
    fn load<T: FromBytes + Copy>(&self, offset: usize) -> Option<T> {
        T::read_from_prefix(self.get(offset..)?).ok().map(|(value, _rest)| value)
    }

    fn load_into<const N: usize>(&self, offset: usize, length: usize, to: &mut [u8; N]) -> bool {
        let from = self.get(offset..).and_then(|bytes| bytes.get(..length));
        match (from, to.get_mut(..length)) {
            (Some(from @ [_, ..]), Some(to)) => {
                to.copy_from_slice(from);
                true
            }
            (Some([]) | None, _) | (_, None) => false,
        }
    }

    fn size(&self) -> usize {
        self.len()
    }
}

/// What a packet starts with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Layer {
    /// An Ethernet header.
    Ethernet,
    /// An IPv4 or IPv6 header (tun, GTP and other L3 devices).
    Ip,
}

/// Which way a packet travels between the user and the application.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Direction {
    /// From the UE to the application: the user's action.
    Uplink = 0,
    /// From the application to the UE: the answer.
    Downlink = 1,
}

/// A transport that an application endpoint can name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Protocol {
    /// IP protocol 6 (RFC 9293).
    Tcp = 6,
    /// IP protocol 17 (RFC 768).
    Udp = 17,
}

/// An IPv4 or IPv6 address; IPv4 is held IPv4-mapped (RFC 4291 section 2.5.5.2).
///
/// The 16 bytes in network order, seen as two words of the machine's own order: comparing,
/// masking and hashing need no byte swap in the kernel.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, Hash, FromBytes, IntoBytes, Immutable, KnownLayout,
)]
#[repr(C)]
pub struct Address(pub [u64; 2]);

impl Address {
    /// From the four bytes of an IPv4 address.
    #[inline(always)]
    pub const fn v4(bytes: [u8; 4]) -> Self {
        let [a, b, c, d] = bytes;
        Self([0, u64::from_ne_bytes([0, 0, 0xff, 0xff, a, b, c, d])])
    }

    /// From the sixteen bytes of an IPv6 address.
    #[inline(always)]
    pub const fn v6(bytes: [u8; 16]) -> Self {
        let [a, b, c, d, e, f, g, h, i, j, k, l, m, n, o, p] = bytes;
        Self([
            u64::from_ne_bytes([a, b, c, d, e, f, g, h]),
            u64::from_ne_bytes([i, j, k, l, m, n, o, p]),
        ])
    }

    /// Whether this is an IPv4 address.
    #[inline(always)]
    pub const fn is_v4(self) -> bool {
        const PREFIX: u64 = u64::from_ne_bytes([0, 0, 0xff, 0xff, 0, 0, 0, 0]);
        const MASK: u64 = u64::from_ne_bytes([0xff, 0xff, 0xff, 0xff, 0, 0, 0, 0]);
        self.0[0] == 0 && self.0[1] & MASK == PREFIX
    }

    /// The sixteen bytes in network order.
    pub fn bytes(self) -> [u8; 16] {
        zerocopy::transmute!(self.0)
    }
}
