//! Packets as they are meant to be.

use std::net::{Ipv4Addr, Ipv6Addr};

use detector_common::{
    packet::{Layer, Protocol},
    parse::{Facts, ParseFault, TunnelWord, parse},
};
use pnet::packet::{
    MutablePacket,
    ethernet::{EtherTypes, MutableEthernetPacket},
    ip::IpNextHeaderProtocols,
    ipv4::MutableIpv4Packet,
    ipv6::MutableIpv6Packet,
    tcp::{MutableTcpPacket, TcpFlags},
    udp::MutableUdpPacket,
    vlan::MutableVlanPacket,
};
use proptest::prelude::*;

use crate::frames::{
    Link, Plan, TUNNEL_PORTS, address, any_ip, any_plan, dissect, first_fragment, fragment, ipv6,
};

proptest! {
    #[test]
    fn a_packet_is_read_as_it_was_built_and_as_etherparse_reads_it(plan in any_plan()) {
        let frame = plan.build();
        let facts = parse(frame.as_slice(), plan.link.layer());
        prop_assert_eq!(facts, Ok(plan.facts()));
        prop_assert_eq!(facts.ok(), dissect(&frame, plan.link.layer()));
    }

    #[test]
    fn ethernet_padding_is_no_payload(plan in any_plan(), padding in 0usize..60) {
        let mut frame = plan.build();
        frame.resize(frame.len() + padding, 0xee);
        prop_assert_eq!(parse(frame.as_slice(), plan.link.layer()), Ok(plan.facts()));
    }

    #[test]
    fn a_first_fragment_has_ports_and_says_what_it_is(ip in any_ip(), ports: (u16, u16)) {
        prop_assume!(!TUNNEL_PORTS.contains(&ports.1));
        let plan = Plan::udp(first_fragment(ip), ports, vec![7; 64]);
        let facts = parse(plan.build().as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Ok(plan.facts()));
        prop_assert!(facts.is_ok_and(|facts| facts.first_fragment));
    }

    /// RFC 6946: a fragment header, and no fragment.
    #[test]
    fn an_atomic_fragment_is_whole(ports in (any::<u16>(), 5000u16..6000)) {
        let plan = Plan::udp(fragment(ipv6(), 0, false), ports, vec![7; 64]);
        let facts = parse(plan.build().as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Ok(plan.facts()));
        prop_assert!(facts.is_ok_and(|facts| !facts.first_fragment));
    }

    #[test]
    fn qinq_says_both_vlans_outermost_first(outer in 1u16..4096, inner in 1u16..4096) {
        let plan = Plan { link: Link::DoubleTagged(outer, inner), ..Plan::udp(ipv6(), (1, 2), vec![7]) };
        let facts = parse(plan.build().as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts.map(|facts| facts.vlan), Ok([outer, inner]));
    }

    #[test]
    fn a_later_fragment_has_no_ports(ip in any_ip(), offset in 1u16..8192, more: bool) {
        let plan = Plan::udp(fragment(ip, offset, more), (1, 2), vec![7; 64]);
        let facts = parse(plan.build().as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Err(ParseFault::LaterFragment));
    }

    #[test]
    fn pnets_ipv4_tcp_segment_is_read(
        from: [u8; 4], to: [u8; 4], ports: (u16, u16), sequence: u32, payload: [u8; 9],
    ) {
        let mut frame = vec![0; 14 + 20 + 20 + 9];
        let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("room");
        ethernet.set_ethertype(EtherTypes::Ipv4);
        let mut ip = MutableIpv4Packet::new(ethernet.payload_mut()).expect("room");
        ip.set_version(4);
        ip.set_header_length(5);
        ip.set_total_length(49);
        ip.set_next_level_protocol(IpNextHeaderProtocols::Tcp);
        ip.set_source(Ipv4Addr::from(from));
        ip.set_destination(Ipv4Addr::from(to));
        let mut tcp = MutableTcpPacket::new(ip.payload_mut()).expect("room");
        tcp.set_source(ports.0);
        tcp.set_destination(ports.1);
        tcp.set_sequence(sequence);
        tcp.set_data_offset(5);
        tcp.set_flags(TcpFlags::SYN | TcpFlags::ACK);
        tcp.set_payload(&payload);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(Facts {
            source: address(Ipv4Addr::from(from).into()),
            destination: address(Ipv4Addr::from(to).into()),
            source_port: ports.0,
            destination_port: ports.1,
            protocol: Protocol::Tcp,
            tcp_flags: 0x12,
            first_fragment: false,
            sequence,
            payload_offset: 54,
            payload_length: 9,
            vlan: [0; 2],
            tunnel: TunnelWord::NONE,
        }));
        prop_assert_eq!(&frame[54..], &payload);
    }

    #[test]
    fn pnets_ipv6_udp_datagram_behind_a_tag_is_read(
        from: [u8; 16], to: [u8; 16], ports: (u16, u16), payload: [u8; 5],
    ) {
        prop_assume!(!TUNNEL_PORTS.contains(&ports.1));
        let mut frame = vec![0; 14 + 4 + 40 + 8 + 5];
        let mut ethernet = MutableEthernetPacket::new(&mut frame).expect("room");
        ethernet.set_ethertype(EtherTypes::Vlan);
        let mut tag = MutableVlanPacket::new(ethernet.payload_mut()).expect("room");
        tag.set_vlan_identifier(99);
        tag.set_ethertype(EtherTypes::Ipv6);
        let mut ip = MutableIpv6Packet::new(tag.payload_mut()).expect("room");
        ip.set_version(6);
        ip.set_payload_length(13);
        ip.set_next_header(IpNextHeaderProtocols::Udp);
        ip.set_source(Ipv6Addr::from(from));
        ip.set_destination(Ipv6Addr::from(to));
        let mut udp = MutableUdpPacket::new(ip.payload_mut()).expect("room");
        udp.set_source(ports.0);
        udp.set_destination(ports.1);
        udp.set_length(13);
        udp.set_payload(&payload);
        prop_assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Ok(Facts {
            source: address(Ipv6Addr::from(from).into()),
            destination: address(Ipv6Addr::from(to).into()),
            source_port: ports.0,
            destination_port: ports.1,
            protocol: Protocol::Udp,
            tcp_flags: 0,
            first_fragment: false,
            sequence: 0,
            payload_offset: 66,
            payload_length: 5,
            vlan: [99, 0],
            tunnel: TunnelWord::NONE,
        }));
    }
}
