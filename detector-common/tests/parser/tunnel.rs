//! GTP-U (TS 29.281): the user's packet inside the N3 tunnel, over IPv4 and IPv6.

use detector_common::{
    packet::Layer,
    parse::{Facts, ParseFault, TunnelWord, parse},
};
use etherparse::IpHeaders;
use proptest::{collection::vec, prelude::*, sample::select};

use crate::frames::{Link, Plan, any_plan, first_fragment, fragment, ipv4, ipv6};

/// UDP port of GTP-U.
pub(crate) const PORT: u16 = 2152;
/// E, S, PN.
const E: u8 = 4;
/// PDU Session Container.
const CONTAINER: u8 = 0x85;

/// A GTP-U message: `flags` are E, S and PN; extension headers are (type, content after the length
/// byte and before the next type: 2 bytes, 6 bytes, ...).
pub(crate) fn message(kind: u8, flags: u8, extensions: &[(u8, Vec<u8>)], inner: &[u8]) -> Vec<u8> {
    let mut tail = Vec::new();
    if flags != 0 {
        // Sequence number and N-PDU number hold garbage: they are not looked at.
        tail.extend([0xde, 0xad, 0xbe]);
        let types = extensions.iter().map(|(kind, _)| *kind);
        let mut next = types.clone().chain([0]);
        // Without E the type field is not to be evaluated (section 5.1).
        tail.push(if flags & E == 0 { CONTAINER } else { next.next().unwrap_or(0) });
        for ((_, content), next) in extensions.iter().zip(next) {
            tail.push(((content.len() + 2) / 4) as u8);
            tail.extend(content);
            tail.push(next);
        }
    }
    tail.extend(inner);
    let mut message = vec![0x30 | flags, kind];
    message.extend((tail.len() as u16).to_be_bytes());
    message.extend(TEID.to_be_bytes());
    message.extend(tail);
    message
}

const TEID: u32 = 0xfeed_0001;

/// The message in a UDP datagram to GTP-U's port.
pub(crate) fn on_n3(outer: IpHeaders, message: Vec<u8>) -> Plan {
    Plan::udp(outer, (40_000, PORT), message)
}

fn outer() -> impl Strategy<Value = IpHeaders> {
    select(vec![ipv4(), ipv6(), first_fragment(ipv4())])
}

fn inner() -> impl Strategy<Value = Plan> {
    any_plan().prop_map(|plan| Plan { link: Link::None, ..plan })
}

/// A user's packet in an Ethernet frame of their own.
fn framed() -> impl Strategy<Value = Plan> {
    any_plan().prop_filter("a frame", |plan| !matches!(plan.link, Link::None))
}

/// Extension headers and the QFI they announce.
fn extensions(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<(u8, Vec<u8>)>> {
    let kind = select(vec![CONTAINER, 0x40, 0xc0, 0x20, 0x82]);
    let content = (select(vec![2usize, 6, 14]), any::<[u8; 14]>())
        .prop_map(|(size, bytes)| bytes[..size].to_vec());
    vec((kind, content), count)
}

/// TS 38.415 section 5.5.2: the QFI is the lower six bits of the container's second octet, of PDU
/// types 0 (downlink) and 1 (uplink).
fn qfi(extensions: &[(u8, Vec<u8>)]) -> Option<u8> {
    let of_a_pdu = |(kind, content): &&(u8, Vec<u8>)| *kind == CONTAINER && content[0] >> 4 <= 1;
    extensions.iter().rev().find(of_a_pdu).map(|(_, content)| content[1] & 0x3f)
}

/// What the parser must say of an inner packet at the end of the frame.
fn tunnelled(inner: &Plan, frame: &[u8], qfi: Option<u8>) -> Facts {
    let at = frame.len() - inner.build().len();
    let facts = inner.facts();
    Facts {
        payload_offset: facts.payload_offset + at as u32,
        first_fragment: frame[14] >> 4 == 4 && frame[20] & 0x20 != 0 || facts.first_fragment,
        vlan: [0; 2],
        tunnel: qfi.into_iter().fold(TunnelWord::new(TEID, 255), TunnelWord::with_qfi),
        ..facts
    }
}

proptest! {
    #[test]
    fn every_combination_of_flags_and_extensions_leads_to_the_inner_packet(
        outer in outer(), inner in inner(), flags in 0u8..8, extensions in extensions(0..=4),
    ) {
        let with = if flags & E == 0 { &[][..] } else { &extensions[..] };
        let frame = on_n3(outer, message(255, flags, with, &inner.build())).build();
        let expected = tunnelled(&inner, &frame, qfi(with));
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }

    #[test]
    fn five_extension_headers_are_too_many(
        outer in outer(), inner in inner(), extensions in extensions(5..=7),
    ) {
        let frame = on_n3(outer, message(255, E, &extensions, &inner.build())).build();
        let facts = parse(frame.as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Err(ParseFault::TooManyGtpuExtensions));
    }

    #[test]
    fn an_extension_header_of_length_zero_is_refused_wherever_it_stands(
        extensions in extensions(1..=4), at: prop::sample::Index,
    ) {
        let mut bytes = message(255, E, &extensions, &[0x45; 40]);
        let before: usize = extensions[..at.index(extensions.len())]
            .iter()
            .map(|(_, content)| content.len() + 2)
            .sum();
        bytes[12 + before] = 0;
        let facts = parse(on_n3(ipv4(), bytes).build().as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Err(ParseFault::BadGtpuExtension));
    }

    /// Echo, error indication, end marker: seen between the ends of the tunnel.
    #[test]
    fn a_message_without_a_user_packet_says_its_type_and_its_own_ends(
        outer in outer(), kind in 0u8..255, flags in 0u8..8, inner in inner(),
    ) {
        let plan = on_n3(outer, message(kind, flags, &[], &inner.build()));
        let tunnel = TunnelWord::new(TEID, kind);
        let expected = Facts { tunnel, ..plan.facts() };
        prop_assert_eq!(parse(plan.build().as_slice(), Layer::Ethernet), Ok(expected));
    }

    #[test]
    fn pdu_session_containers_of_both_directions_have_the_qfi(
        inner in inner(), uplink: bool, rest in 0u8..16, qfi in 0u8..64, upper in 0u8..4,
    ) {
        let extensions = [(CONTAINER, vec![(u8::from(uplink) << 4) | rest, (upper << 6) | qfi])];
        let frame = on_n3(ipv4(), message(255, E, &extensions, &inner.build())).build();
        let expected = tunnelled(&inner, &frame, Some(qfi));
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }

    #[test]
    fn an_ethernet_pdu_session_is_entered(
        outer in outer(), inner in framed(), flags in 0u8..8, macs in any::<[u8; 12]>(),
    ) {
        let mut user = inner.build();
        user[..12].copy_from_slice(&macs);
        let frame = on_n3(outer, message(255, flags, &[], &user)).build();
        let expected = tunnelled(&inner, &frame, None);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }

    /// 8.0.69.1 has the bytes of an EtherType and of an IPv4 header's first byte.
    #[test]
    fn a_user_whose_address_looks_like_an_ethertype_is_no_ethernet(
        inner in inner(), start in select(vec![[8, 0, 0x45, 1], [0x86, 0xdd, 0x60, 0], [0x81, 0, 8, 0]]),
    ) {
        let IpHeaders::Ipv4(mut ip, extensions) = ipv4() else { panic!("asked for IPv4") };
        ip.source = start;
        let inner = Plan { ip: IpHeaders::Ipv4(ip, extensions), ..inner };
        let frame = on_n3(ipv6(), message(255, 0, &[], &inner.build())).build();
        let expected = tunnelled(&inner, &frame, None);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }

    #[test]
    fn a_user_packet_that_is_not_ip_is_counted_as_such(
        outer in outer(), flags in 0u8..8, nibble in 0u8..16, rest in vec(any::<u8>(), 60),
    ) {
        prop_assume!(nibble != 4 && nibble != 6);
        let mut inner = rest;
        inner[0] = (nibble << 4) | (inner[0] & 0x0f);
        let frame = on_n3(outer, message(255, flags, &[], &inner)).build();
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Err(ParseFault::GtpuNotIp));
    }

    #[test]
    fn other_versions_and_gtp_prime_are_somebody_elses_udp(
        first in any::<u8>().prop_filter("not GTP version 1", |first| first & 0xf0 != 0x30),
        rest in vec(any::<u8>(), 7..100),
    ) {
        let plan = on_n3(ipv4(), [&[first][..], &rest].concat());
        prop_assert_eq!(parse(plan.build().as_slice(), Layer::Ethernet), Ok(plan.facts()));
    }

    #[test]
    fn a_datagram_from_the_port_of_gtpu_is_not_gtpu(inner in inner()) {
        let plan = Plan::udp(ipv4(), (PORT, 53), message(255, 0, &[], &inner.build()));
        prop_assert_eq!(parse(plan.build().as_slice(), Layer::Ethernet), Ok(plan.facts()));
    }

    #[test]
    fn a_lying_gtpu_length_changes_nothing(inner in inner(), flags in 0u8..4, length: [u8; 2]) {
        let mut bytes = message(255, flags, &[], &inner.build());
        bytes[2..4].copy_from_slice(&length);
        let frame = on_n3(ipv4(), bytes).build();
        let expected = tunnelled(&inner, &frame, None);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }
}

#[test]
fn a_tunnel_inside_the_tunnel_is_the_users_own_business() {
    let innermost = Plan { link: Link::None, ..Plan::udp(ipv4(), (1, 2), vec![1]) };
    let user = on_n3(ipv6(), message(255, 0, &[], &innermost.build()));
    let user = Plan { link: Link::None, ..user };
    let frame = on_n3(ipv4(), message(255, 0, &[], &user.build())).build();
    let expected = tunnelled(&user, &frame, None);
    assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
}

#[test]
fn a_later_fragment_of_the_inner_packet_has_no_ports() {
    for ip in [ipv4(), ipv6()] {
        let user = Plan { link: Link::None, ..Plan::udp(fragment(ip, 3, true), (1, 2), vec![1]) };
        let frame = on_n3(ipv4(), message(255, 0, &[], &user.build())).build();
        assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Err(ParseFault::LaterFragment));
    }
}
