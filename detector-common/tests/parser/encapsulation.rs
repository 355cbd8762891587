//! Packets in GRE, IP in IP and VXLAN, built with pnet and etherparse, and in MPLS and PPPoE.

use detector_common::{
    packet::Layer,
    parse::{Facts, ParseFault, parse},
};
use etherparse::{IpHeaders, IpNumber, PacketBuilder};
use pnet::packet::{
    Packet as _,
    gre::GrePacket,
    vxlan::{MutableVxlanPacket, Vxlan},
};
use proptest::{collection::vec, option, prelude::*};

use crate::frames::{Link, Plan, any_ip, any_plan, dissect, first_fragment, fragment, ipv4, ipv6};

/// A tunnel's header and the headers before it.
#[derive(Clone, Debug)]
pub(crate) enum Wrap {
    /// GRE with or without checksum, key and sequence number; its content is bridged Ethernet, or IP.
    Gre { outer: IpHeaders, bridged: bool, words: [Option<u32>; 3] },
    /// IPv4 or IPv6 in IPv4 or IPv6.
    IpInIp { outer: IpHeaders },
    /// VXLAN.
    Vxlan { outer: IpHeaders, from: u16, vni: u32 },
}

impl Wrap {
    /// Whether it carries frames, and not IP packets.
    fn bridges(&self) -> bool {
        matches!(self, Self::Gre { bridged: true, .. } | Self::Vxlan { .. })
    }

    /// The outer IP packet around a frame or a packet.
    fn around(&self, content: &[u8]) -> Vec<u8> {
        let mut packet = Vec::new();
        match self {
            Self::Gre { outer, bridged, words } => {
                let kind = if *bridged { 0x6558 } else { ethertype(content) };
                PacketBuilder::ip(outer.clone()).write(
                    &mut packet,
                    IpNumber::GRE,
                    &gre(*words, kind, content),
                )
            }
            Self::IpInIp { outer } => {
                let number = if ethertype(content) == 0x0800 { 4 } else { 41 };
                PacketBuilder::ip(outer.clone()).write(&mut packet, IpNumber(number), content)
            }
            Self::Vxlan { outer, from, vni } => PacketBuilder::ip(outer.clone())
                .udp(*from, 4789)
                .write(&mut packet, &vxlan(0x08, *vni, content)),
        }
        .expect("a packet");
        packet
    }
}

fn ethertype(packet: &[u8]) -> u16 {
    if packet[0] >> 4 == 4 { 0x0800 } else { 0x86dd }
}

/// A GRE message, as pnet reads it; the words are checksum, key and sequence number (RFC 2784,
/// RFC 2890).
fn gre(words: [Option<u32>; 3], kind: u16, content: &[u8]) -> Vec<u8> {
    let bits = [0x8000u16, 0x2000, 0x1000];
    let flags = words.iter().zip(bits).filter(|(word, _)| word.is_some()).map(|(_, bit)| bit);
    let mut bytes = flags.sum::<u16>().to_be_bytes().to_vec();
    bytes.extend(kind.to_be_bytes());
    words.into_iter().flatten().for_each(|word| bytes.extend(word.to_be_bytes()));
    bytes.extend(content);
    let seen = GrePacket::new(&bytes).expect("a GRE header");
    assert_eq!((seen.get_protocol_type(), seen.payload()), (kind, content));
    bytes
}

fn vxlan(flags: u8, vni: u32, content: &[u8]) -> Vec<u8> {
    let header = Vxlan { flags, reserved1: 0, vni, reserved2: 0, payload: content.to_vec() };
    let mut bytes = vec![0; 8 + content.len()];
    let mut packet = MutableVxlanPacket::new(&mut bytes).expect("room");
    packet.populate(&header);
    packet.packet().to_vec()
}

/// An Ethernet header in front of an IP packet.
fn framed(packet: &[u8]) -> Vec<u8> {
    [&[2; 12], &ethertype(packet).to_be_bytes()[..], packet].concat()
}

/// The packet inside these tunnels, outermost first, as a frame; and what must be said of it.
pub(crate) fn nest(plan: &Plan, wraps: &[Wrap]) -> (Vec<u8>, Facts) {
    let innermost_bridges = wraps.last().is_none_or(Wrap::bridges);
    let link = match (innermost_bridges, plan.link) {
        (true, Link::None) => Link::Plain,
        (true, link) => link,
        (false, _) => Link::None,
    };
    let plan = Plan { link, ..plan.clone() };
    let packet = plan.build();
    let mut frame = packet.clone();
    for (index, wrap) in wraps.iter().enumerate().rev() {
        let outer = wrap.around(&frame);
        let in_frame = index == 0 || wraps[index - 1].bridges();
        frame = if in_frame { framed(&outer) } else { outer };
    }
    let facts = plan.facts();
    let payload_offset = facts.payload_offset + (frame.len() - packet.len()) as u32;
    let vlan = if wraps.is_empty() { facts.vlan } else { [0; 2] };
    (frame, Facts { payload_offset, vlan, ..facts })
}

fn any_gre(bridged: bool) -> impl Strategy<Value = Wrap> {
    let words = [option::of(any::<u32>()), option::of(any::<u32>()), option::of(any::<u32>())];
    (any_ip(), words).prop_map(move |(outer, words)| Wrap::Gre { outer, bridged, words })
}

fn any_ip_in_ip() -> impl Strategy<Value = Wrap> {
    any_ip().prop_map(|outer| Wrap::IpInIp { outer })
}

fn any_vxlan() -> impl Strategy<Value = Wrap> {
    (any_ip(), any::<u16>(), 0u32..1 << 24).prop_map(|(outer, from, vni)| Wrap::Vxlan {
        outer,
        from,
        vni,
    })
}

/// Tunnels in each other.
pub(crate) fn wraps(count: std::ops::RangeInclusive<usize>) -> impl Strategy<Value = Vec<Wrap>> {
    vec(prop_oneof![any_gre(false), any_gre(true), any_ip_in_ip(), any_vxlan()], count)
}

/// Puts so many MPLS labels before a frame's IP header.
pub(crate) fn behind_labels(frame: &[u8], count: usize) -> Vec<u8> {
    let label = |index: usize| [0, index as u8, 0x10 | u8::from(index + 1 == count), 64];
    let labels: Vec<u8> = (0..count).flat_map(label).collect();
    [&frame[..12], &[0x88, 0x47], &labels, &frame[14..]].concat()
}

/// What the parser says of the whole is what etherparse says of the innermost packet alone.
fn is_read_through(plan: &Plan, wraps: &[Wrap]) -> Result<(), TestCaseError> {
    let (frame, expected) = nest(plan, wraps);
    prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    // The innermost packet of tunnels that carry IP is at the end, without a link layer.
    if wraps.last().is_some_and(|wrap| !wrap.bridges()) {
        let alone = Plan { link: Link::None, ..plan.clone() }.build();
        let shift = (frame.len() - alone.len()) as u32;
        let seen = dissect(&alone, Layer::Ip).expect("a packet");
        let payload_offset = seen.payload_offset + shift;
        prop_assert_eq!(expected, Facts { payload_offset, ..seen });
    }
    Ok(())
}

proptest! {
    #[test]
    fn gre_is_entered_with_any_of_checksum_key_and_sequence(plan in any_plan(), wrap in any_gre(false)) {
        is_read_through(&plan, &[wrap])?;
    }

    #[test]
    fn gre_that_bridges_ethernet_is_entered(plan in any_plan(), wrap in any_gre(true)) {
        is_read_through(&plan, &[wrap])?;
    }

    /// 4in4, 6in4, 4in6 and 6in6.
    #[test]
    fn ip_in_ip_is_entered(plan in any_plan(), wrap in any_ip_in_ip()) {
        is_read_through(&plan, &[wrap])?;
    }

    #[test]
    fn vxlan_is_entered(plan in any_plan(), wrap in any_vxlan()) {
        is_read_through(&plan, &[wrap])?;
    }

    #[test]
    fn three_tunnels_in_each_other_are_entered(plan in any_plan(), wraps in wraps(2..=3)) {
        is_read_through(&plan, &wraps)?;
    }

    #[test]
    fn four_tunnels_are_too_many(plan in any_plan(), wraps in wraps(4..=5)) {
        let (frame, _) = nest(&plan, &wraps);
        let facts = parse(frame.as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Err(ParseFault::TooManyTunnels));
    }

    #[test]
    fn padding_behind_the_outer_packet_is_no_payload_of_the_inner(
        plan in any_plan(), wraps in wraps(1..=3), lie: u16, padding in 1usize..60,
    ) {
        let (mut frame, expected) = nest(&plan, &wraps);
        let length = frame.len();
        frame.resize(length + padding, 0xee);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
        // Not even when the inner packet says that it is longer.
        let (v4, v6) = (expected.source.is_v4(), !expected.source.is_v4());
        let at = length - Plan { link: Link::None, ..plan }.build().len() + if v4 { 2 } else { 4 };
        frame[at..at + 2].copy_from_slice(&lie.to_be_bytes());
        prop_assert!(v4 || v6);
        let facts = parse(frame.as_slice(), Layer::Ethernet).expect("only a length changed");
        prop_assert!(facts.payload_length <= expected.payload_length);
    }

    #[test]
    fn fragments_inside_and_outside_of_tunnels_are_told(
        plan in any_plan(), wrap in any_ip_in_ip(), outside: bool, later: bool,
    ) {
        let offset = u16::from(later) * 3;
        let part = |ip: &IpHeaders| fragment(ip.clone(), offset, true);
        let Wrap::IpInIp { outer } = wrap else { panic!("IP in IP was asked for") };
        let (plan, outer) = if outside {
            (plan, part(&outer))
        } else {
            (Plan { ip: part(&plan.ip), ..plan }, outer)
        };
        let (frame, facts) = nest(&plan, &[Wrap::IpInIp { outer }]);
        let expected = if later {
            Err(ParseFault::LaterFragment)
        } else {
            Ok(Facts { first_fragment: true, ..facts })
        };
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), expected);
    }

    #[test]
    fn a_datagram_to_the_port_of_vxlan_without_a_valid_vni_is_somebody_elses(
        flags in any::<u8>().prop_filter("I is not set", |flags| flags & 8 == 0),
        content in vec(any::<u8>(), 0..60), fragmented: bool,
    ) {
        let ip = if fragmented { first_fragment(ipv4()) } else { ipv6() };
        let plan = Plan::udp(ip, (1, 4789), vxlan(flags, 7, &content));
        prop_assert_eq!(parse(plan.build().as_slice(), Layer::Ethernet), Ok(plan.facts()));
    }

    #[test]
    fn gre_with_routing_another_version_or_another_content_is_counted(
        flag in prop_oneof![Just(0x4000u16), 1u16..8], kind in any::<u16>(), routed: bool,
    ) {
        prop_assume!(routed || ![0x0800, 0x86dd, 0x6558].contains(&kind));
        let flags = if routed { flag } else { 0 };
        let kind = if routed { 0x0800 } else { kind };
        let content = [&flags.to_be_bytes()[..], &kind.to_be_bytes(), &[0x45; 60]].concat();
        let mut packet = Vec::new();
        PacketBuilder::ip(ipv4()).write(&mut packet, IpNumber::GRE, &content).expect("a packet");
        prop_assert_eq!(parse(packet.as_slice(), Layer::Ip), Err(ParseFault::OtherGre));
    }

    #[test]
    fn mpls_labels_are_skipped(plan in any_plan(), count in 1usize..=4) {
        let plan = Plan { link: Link::Plain, ..plan };
        let frame = behind_labels(&plan.build(), count);
        let payload_offset = plan.facts().payload_offset + 4 * count as u32;
        let expected = Facts { payload_offset, ..plan.facts() };
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(expected));
    }

    #[test]
    fn a_pppoe_session_is_entered(plan in any_plan(), session: u16) {
        let plan = Plan { link: Link::Plain, ..plan };
        let frame = plan.build();
        let protocol = if ethertype(&frame[14..]) == 0x0800 { 0x21 } else { 0x57 };
        let [high, low] = session.to_be_bytes();
        let header = [0x88, 0x64, 0x11, 0, high, low, 0, 0, 0, protocol];
        let inside = [&frame[..12], &header, &frame[14..]].concat();
        let expected = Facts { payload_offset: plan.facts().payload_offset + 8, ..plan.facts() };
        prop_assert_eq!(parse(inside.as_slice(), Layer::Ethernet), Ok(expected));
    }
}
