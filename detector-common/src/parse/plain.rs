//! What nearly all packets are, read in one look (IPv6: two): TCP or UDP in IP without options or extension
//! headers, in a frame without tags or in none. Each look less is 2 ns at XDP, and at TC, where it is a call, 15.
//!
//! All others, and those too short for a TCP header, are read header after header, which says the same of these.

use zerocopy::{FromBytes, Immutable, KnownLayout, Unaligned};

use super::{
    Facts,
    ip::{self, Ip},
    transport,
};
use crate::{
    packet::{Layer, PacketBytes},
    wire::{Ethernet, Ipv4, Ipv6, Tcp, ethertype, ip_protocol, port},
};

/// A frame without tags.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Frame<H> {
    ethernet: Ethernet,
    headers: H,
}

/// An IP header and what follows it: UDP's ports stand where TCP's do.
#[derive(Clone, Copy, FromBytes, Immutable, KnownLayout, Unaligned)]
#[repr(C)]
struct Headers<I> {
    ip: I,
    transport: Tcp,
}

/// What a plain packet says; `None` of any other.
#[inline(always)]
pub(super) fn parse<P: PacketBytes + ?Sized>(packet: &P, layer: Layer) -> Option<Facts> {
    let limit = packet.size();
    match layer {
        Layer::Ethernet => {
            let frame: Frame<Headers<Ipv4>> = packet.load(0)?;
            let offset = size_of::<Ethernet>();
            match frame.ethernet.ethertype.get() {
                ethertype::IPV4 => v4(&frame.headers, offset, limit),
                ethertype::IPV6 => {
                    let frame: Frame<Headers<Ipv6>> = packet.load(0)?;
                    v6(&frame.headers, offset, limit)
                }
                _ => None,
            }
        }
        Layer::Ip => {
            let headers: Headers<Ipv4> = packet.load(0)?;
            match headers.ip.version() {
                4 => v4(&headers, 0, limit),
                _ => v6(&packet.load(0)?, 0, limit),
            }
        }
    }
}

#[inline(always)]
fn v4(headers: &Headers<Ipv4>, offset: usize, limit: usize) -> Option<Facts> {
    if !headers.ip.is_plain() {
        return None;
    }
    facts(&headers.transport, &ip::v4_of(&headers.ip, offset, limit).ok()?)
}

#[inline(always)]
fn v6(headers: &Headers<Ipv6>, offset: usize, limit: usize) -> Option<Facts> {
    if headers.ip.version() != 6 {
        return None;
    }
    facts(&headers.transport, &ip::v6_of(&headers.ip, offset, limit))
}

#[inline(always)]
fn facts(header: &Tcp, ip: &Ip) -> Option<Facts> {
    match ip.protocol {
        ip_protocol::TCP => transport::tcp_of(header, ip).ok(),
        ip_protocol::UDP if !port::is_tunnel(header.destination.get()) => {
            Some(transport::udp_of(header.source.get(), header.destination.get(), ip))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use std::vec::Vec;

    use proptest::prelude::*;

    use super::*;
    use crate::parse::parse_by_header;

    /// An Ethernet header, an IP header and what may be TCP or UDP, each field near to what is plain.
    fn nearly_plain() -> impl Strategy<Value = Vec<u8>> {
        let ethertype = prop_oneof![Just(0x0800u16), Just(0x86dd), Just(0x8100), any::<u16>()];
        let first = prop_oneof![Just(0x45u8), Just(0x60), Just(0x46), any::<u8>()];
        let fragment = prop_oneof![Just(0u16), Just(0x4000), Just(0x2000), any::<u16>()];
        let protocol = prop_oneof![Just(6u8), Just(17), Just(44), Just(4), any::<u8>()];
        let port = prop_oneof![Just(80u16), Just(port::GTPU), Just(port::VXLAN), any::<u16>()];
        let data_offset = prop_oneof![Just(0x50u8), Just(0x80), any::<u8>()];
        let length = prop_oneof![0u16..120, any::<u16>()];
        let rest = prop::collection::vec(any::<u8>(), 100);
        (ethertype, first, fragment, protocol, port, data_offset, length, rest).prop_map(
            |(ethertype, first, fragment, protocol, port, data_offset, length, mut bytes)| {
                let v6 = ethertype == 0x86dd;
                let transport = if v6 { 54 } else { 34 };
                bytes[12..14].copy_from_slice(&ethertype.to_be_bytes());
                bytes[14] = first;
                if v6 {
                    bytes[18..20].copy_from_slice(&length.to_be_bytes());
                    bytes[20] = protocol;
                } else {
                    bytes[16..18].copy_from_slice(&length.to_be_bytes());
                    bytes[20..22].copy_from_slice(&fragment.to_be_bytes());
                    bytes[23] = protocol;
                }
                bytes[transport + 2..transport + 4].copy_from_slice(&port.to_be_bytes());
                bytes[transport + 12] = data_offset;
                bytes
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(4096))]
        #[test]
        fn what_is_read_in_one_look_is_what_header_after_header_says(
            frame in nearly_plain(),
            size in 0usize..=100,
        ) {
            for (bytes, layer) in [
                (&frame[..], Layer::Ethernet),
                (&frame[..size], Layer::Ethernet),
                (&frame[14..], Layer::Ip),
                (&frame[size..], Layer::Ip),
            ] {
                if let Some(facts) = parse(bytes, layer) {
                    prop_assert_eq!(parse_by_header(bytes, layer), Ok(facts));
                }
            }
        }
    }

    #[test]
    fn tcp_and_udp_in_either_version_are_read_in_one_look_with_and_without_a_frame() {
        for (ethertype, first, protocol_at) in [([8, 0], 0x45, 23), ([0x86, 0xdd], 0x60, 20)] {
            for protocol in [6, 17] {
                let mut frame = [0; 100];
                frame[12..14].copy_from_slice(&ethertype);
                frame[14] = first;
                frame[protocol_at] = protocol;
                frame[if first == 0x45 { 46 } else { 66 }] = 0x50;
                assert!(parse(&frame[..], Layer::Ethernet).is_some(), "{ethertype:?} {protocol}");
                assert!(parse(&frame[14..], Layer::Ip).is_some(), "{ethertype:?} {protocol}");
            }
        }
    }
}
