//! A packet for every fault. The match is in full: a new fault does not compile without one.

use detector_common::{
    counter::Counter,
    packet::Layer,
    parse::{MAX_MPLS_LABELS, MAX_TUNNELS, ParseFault, parse},
};

use crate::{
    encapsulation::behind_labels,
    frames::{Plan, fragment, ipv4, ipv6},
    tunnel::{PORT, message, on_n3},
};

fn plain() -> Vec<u8> {
    Plan::udp(ipv4(), (1, 2), vec![7; 40]).build()
}

fn cut(mut frame: Vec<u8>, length: usize) -> Vec<u8> {
    frame.truncate(length);
    frame
}

fn with_byte(mut frame: Vec<u8>, at: usize, byte: u8) -> Vec<u8> {
    frame[at] = byte;
    frame
}

fn tcp_with_offset(words: u8) -> Vec<u8> {
    let frame = with_byte(plain(), 14 + 9, 6);
    with_byte(frame, 14 + 20 + 12, words << 4)
}

fn tagged_thrice() -> Vec<u8> {
    let mut frame = plain();
    for kind in [[0x81, 0x00], [0x81, 0x00], [0x88, 0xa8]] {
        frame.splice(12..12, [kind[0], kind[1], 0, 5]);
    }
    frame
}

/// IPv6 with `count` destination options of eight bytes.
fn with_extensions(count: usize) -> Vec<u8> {
    let mut frame = Plan::udp(ipv6(), (1, 2), vec![7; 40]).build();
    for _ in 0..count {
        let next = frame[14 + 6];
        frame[14 + 6] = 60;
        frame.splice(54..54, [next, 0, 1, 4, 0, 0, 0, 0]);
    }
    frame
}

/// A packet in GRE with this header.
fn in_gre(header: [u8; 4]) -> Vec<u8> {
    let mut frame = with_byte(plain(), 14 + 9, 47);
    frame.splice(34..34, [&header[..], &plain()[14..34]].concat());
    frame
}

/// IPv4 in IPv4, so many times.
fn ip_in_ip(count: usize) -> Vec<u8> {
    let mut frame = plain();
    for _ in 0..count {
        let outer = with_byte(plain(), 14 + 9, 4);
        frame.splice(14..14, outer[14..34].to_vec());
    }
    frame
}

/// A frame with this fault.
fn sample(fault: ParseFault) -> Vec<u8> {
    let n3 = |message| on_n3(ipv4(), message).build();
    let container = |count| vec![(0x85, vec![0, 9]); count];
    match fault {
        ParseFault::TruncatedLink => cut(plain(), 13),
        ParseFault::NotIp => with_byte(plain(), 13, 6), // ARP
        ParseFault::TooManyVlanTags => tagged_thrice(),
        ParseFault::TooManyMplsLabels => behind_labels(&plain(), MAX_MPLS_LABELS + 1),
        ParseFault::TruncatedIp => cut(plain(), 14 + 19),
        ParseFault::BadIp => with_byte(plain(), 14, 0x44),
        ParseFault::LaterFragment => {
            Plan::udp(fragment(ipv4(), 1, false), (1, 2), vec![7; 40]).build()
        }
        ParseFault::TooManyIpv6Extensions => with_extensions(7),
        ParseFault::OtherTransport => with_byte(plain(), 14 + 9, 1), // ICMP
        ParseFault::TruncatedTransport => cut(plain(), 14 + 20 + 7),
        ParseFault::BadTcp => tcp_with_offset(4),
        ParseFault::TruncatedTunnel => cut(in_gre([0, 0, 8, 0]), 14 + 20 + 3),
        ParseFault::OtherGre => in_gre([0x30, 1, 0x88, 0x0b]), // PPTP
        ParseFault::TooManyTunnels => ip_in_ip(MAX_TUNNELS + 1),
        ParseFault::TruncatedGtpu => Plan::udp(ipv4(), (1, PORT), vec![0x30; 7]).build(),
        ParseFault::TooManyGtpuExtensions => n3(message(255, 4, &container(5), &plain()[14..])),
        ParseFault::BadGtpuExtension => {
            n3(with_byte(message(255, 4, &container(1), &plain()[14..]), 12, 0))
        }
        ParseFault::GtpuNotIp => n3(message(255, 0, &[], &[0; 60])),
    }
}

#[test]
fn every_fault_is_found_in_a_packet_that_has_it() {
    for fault in ParseFault::ALL {
        assert_eq!(parse(sample(fault).as_slice(), Layer::Ethernet), Err(fault));
    }
}

#[test]
fn every_fault_has_a_counter_of_its_own_and_every_such_counter_a_fault() {
    let of_faults: Vec<Counter> = ParseFault::ALL.iter().map(|fault| fault.counter()).collect();
    let declared: Vec<Counter> =
        Counter::ALL.into_iter().filter(|counter| counter.is_parse_fault()).collect();
    assert_eq!(of_faults, declared);
}

#[test]
fn the_limits_themselves_are_allowed() {
    assert!(parse(with_extensions(6).as_slice(), Layer::Ethernet).is_ok());
    assert!(parse(ip_in_ip(MAX_TUNNELS).as_slice(), Layer::Ethernet).is_ok());
    let labelled = behind_labels(&plain(), MAX_MPLS_LABELS);
    assert!(parse(labelled.as_slice(), Layer::Ethernet).is_ok());
    assert!(parse(tcp_with_offset(5).as_slice(), Layer::Ethernet).is_ok());
}

#[test]
fn a_version_that_no_ip_has_is_bad_ip_in_either_layer() {
    for version in (0..16u8).filter(|version| *version != 4 && *version != 6) {
        let frame = with_byte(plain(), 14, (version << 4) | 5);
        assert_eq!(parse(frame.as_slice(), Layer::Ethernet), Err(ParseFault::BadIp));
        for end in [18, 33, frame.len()] {
            assert_eq!(parse(&frame[14..end], Layer::Ip), Err(ParseFault::BadIp), "{end}");
        }
    }
}
