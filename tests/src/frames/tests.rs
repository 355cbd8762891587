use std::net::IpAddr;

use etherparse::{NetSlice, SlicedPacket, TransportSlice, VlanSlice};

use super::*;

const UE: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 60, 0, 2)), 40_000);
const APP: (IpAddr, u16) = (IpAddr::V4(Ipv4Addr::new(10, 45, 0, 10)), 80);

fn ue6() -> (IpAddr, u16) {
    ("fd00:60::2".parse().expect("an address"), 40_000)
}

fn app6() -> (IpAddr, u16) {
    ("fd00:45::10".parse().expect("an address"), 80)
}

fn request() -> Vec<u8> {
    http_request("POST", "/api/buttons/buy", "shop", "{}")
}

#[test]
fn a_dissector_finds_the_request_behind_two_tags_and_ipv4_options() {
    let packet = Packet::tcp(UE, APP, Tcp::data(7), &request()).ipv4_options(&[1; 8]);
    let frame = packet.tagged_frame(&[100, 200]);
    let seen = SlicedPacket::from_ethernet(&frame).expect("a packet");
    let tags: Vec<u16> = seen
        .link_exts
        .iter()
        .filter_map(|link| match link {
            etherparse::LinkExtSlice::Vlan(tag) => Some(tag.vlan_identifier().value()),
            etherparse::LinkExtSlice::Macsec(_) => None,
        })
        .collect();
    assert_eq!(tags, [100, 200]);
    assert!(matches!(seen.vlan(), Some(VlanSlice::DoubleVlan(_))));
    let Some(NetSlice::Ipv4(ip)) = seen.net else { panic!("no IPv4") };
    assert_eq!(ip.header().options(), [1; 8]);
    assert_eq!(ip.header().header_checksum(), ip.header().to_header().calc_header_checksum());
    let Some(TransportSlice::Tcp(tcp)) = seen.transport else { panic!("no TCP") };
    assert_eq!((tcp.source_port(), tcp.destination_port()), (40_000, 80));
    assert_eq!(tcp.sequence_number(), 7);
    assert_eq!(tcp.payload(), request());
    let checksum = tcp.calc_checksum_ipv4([10, 60, 0, 2], [10, 45, 0, 10]);
    assert_eq!(Ok(tcp.checksum()), checksum);
}

#[test]
fn a_dissector_walks_the_ipv6_extensions() {
    let extensions = vec![
        Ipv6Extension { kind: 0, content: vec![0; 6] },
        Ipv6Extension { kind: 60, content: vec![0; 14] },
    ];
    let packet = Packet::udp(ue6(), app6(), b"hello").ipv6_extensions(extensions);
    let bytes = packet.bytes();
    let seen = SlicedPacket::from_ip(&bytes).expect("a packet");
    let Some(TransportSlice::Udp(udp)) = seen.transport else { panic!("no UDP") };
    assert_eq!(udp.payload(), b"hello");
    let Some(NetSlice::Ipv6(ip)) = seen.net else { panic!("no IPv6") };
    let header = ip.header();
    let checksum = udp.to_header().calc_checksum_ipv6_raw(
        header.source(),
        header.destination(),
        udp.payload(),
    );
    assert_eq!(Ok(udp.checksum()), checksum);
}

#[test]
fn fragments_put_together_are_the_packet() {
    for (ue, app) in [(UE, APP), (ue6(), app6())] {
        let packet = Packet::tcp(ue, app, Tcp::data(7), &request()).identification(99);
        let mut together = Vec::new();
        let fragments = packet.fragments(48);
        assert!(fragments.len() > 2);
        for (index, fragment) in fragments.iter().enumerate() {
            let bytes = fragment.bytes();
            let seen = SlicedPacket::from_ip(&bytes).expect("a packet");
            let payload = match &seen.net {
                Some(NetSlice::Ipv4(ip)) => {
                    assert_eq!(
                        usize::from(ip.header().fragments_offset().byte_offset()),
                        index * 48
                    );
                    assert_eq!(ip.header().more_fragments(), index + 1 < fragments.len());
                    assert_eq!(ip.header().identification(), 99);
                    ip.payload().clone()
                }
                Some(NetSlice::Ipv6(ip)) => ip.payload().clone(),
                Some(NetSlice::Arp(_)) | None => panic!("no IP"),
            };
            assert!(payload.fragmented);
            together.extend_from_slice(payload.payload);
        }
        assert_eq!(together, packet.body);
    }
}

#[test]
fn a_tunnelled_packet_stands_behind_its_headers() {
    let inner = Packet::tcp(UE, APP, Tcp::SYN, b"");
    let n3 = ["10.100.0.1".parse().expect("an address"), "10.100.0.2".parse().expect("an address")];
    let mut tunnel = Gtpu::with_qfi(0x1234, 9);
    let plain = Gtpu { teid: 0x1234, ..Default::default() };
    // The examples of TS 29.281 section 5.1: 8 bytes, or 12 and the extensions.
    for (tunnel, header) in [(&plain, 8), (&tunnel, 16)] {
        let outer = inner.in_tunnel(n3[0], n3[1], tunnel);
        let message = &outer.body[8..];
        assert_eq!(&message[4..8], &[0, 0, 0x12, 0x34]);
        assert_eq!(usize::from(u16::from_be_bytes([message[2], message[3]])), message.len() - 8);
        assert_eq!(&message[header..], inner.bytes());
    }
    assert_eq!(
        tunnel.message(255, &[])[..],
        [0x34, 255, 0, 8, 0, 0, 0x12, 0x34, 0, 0, 0, 0x85, 1, 0x10, 9, 0]
    );
    tunnel.sequence = Some(0x0102);
    tunnel.extensions.clear();
    assert_eq!(tunnel.message(255, &[])[..], [0x32, 255, 0, 4, 0, 0, 0x12, 0x34, 1, 2, 0, 0]);
}
