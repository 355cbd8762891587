//! Packets cut short, lying or made of noise.

use detector_common::{
    packet::Layer,
    parse::{Facts, ParseFault, parse},
};
use etherparse::IpHeaders;
use proptest::{collection::vec, prelude::*};

use crate::{
    encapsulation,
    frames::{Link, Plan, any_plan, ipv4, ipv6},
    tunnel::{message, on_n3},
};

fn is_truncation(fault: ParseFault) -> bool {
    matches!(
        fault,
        ParseFault::TruncatedLink
            | ParseFault::TruncatedIp
            | ParseFault::TruncatedTransport
            | ParseFault::TruncatedGtpu
            | ParseFault::TruncatedTunnel
    )
}

/// Cuts a frame at every byte: a truncation is named, or all but the payload's length is the same.
fn cut_everywhere(frame: &[u8], layer: Layer, whole: Facts) -> Result<(), TestCaseError> {
    for length in 0..frame.len() {
        match parse(&frame[..length], layer) {
            Err(fault) => prop_assert!(is_truncation(fault), "{fault:?} at {length}"),
            Ok(facts) => {
                let left = (length as u32).saturating_sub(whole.payload_offset);
                let payload_length = whole.payload_length.min(left);
                prop_assert_eq!(facts, Facts { payload_length, ..whole });
            }
        }
    }
    Ok(())
}

/// A valid packet, most of them in tunnels.
fn any_frame() -> impl Strategy<Value = (Vec<u8>, Layer)> {
    let nested = (any_plan(), encapsulation::wraps(0..=3))
        .prop_map(|(plan, wraps)| (encapsulation::nest(&plan, &wraps).0, Layer::Ethernet));
    prop_oneof![in_gtpu(), nested]
}

/// A valid packet, half of them in GTP-U.
fn in_gtpu() -> impl Strategy<Value = (Vec<u8>, Layer)> {
    (any_plan(), any::<bool>(), any::<bool>(), any::<bool>()).prop_map(|(plan, tunnel, v6, qfi)| {
        if !tunnel {
            return (plan.build(), plan.link.layer());
        }
        let user = Plan { link: Link::None, ..plan };
        let extensions = [(0x85, vec![0x10, 9])];
        let (flags, extensions) = if qfi { (4, &extensions[..]) } else { (0, &[][..]) };
        let bytes = message(255, flags, extensions, &user.build());
        (on_n3(if v6 { ipv6() } else { ipv4() }, bytes).build(), Layer::Ethernet)
    })
}

proptest! {
    #[test]
    fn a_packet_cut_at_any_byte_is_truncated_or_says_the_same((frame, layer) in any_frame()) {
        let whole = parse(frame.as_slice(), layer).expect("a good packet");
        cut_everywhere(&frame, layer, whole)?;
    }

    #[test]
    fn noise_never_panics(bytes in vec(any::<u8>(), 0..300)) {
        for layer in [Layer::Ethernet, Layer::Ip] {
            let _ = parse(bytes.as_slice(), layer);
        }
    }

    /// Nearly all noise ends at its first byte; damaged packets go deep.
    #[test]
    fn damaged_packets_never_panic_and_never_point_behind_what_is_there(
        (mut frame, layer) in any_frame(),
        damage in vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
    ) {
        for (at, byte) in damage {
            let at = at.index(frame.len());
            frame[at] = byte;
        }
        if let Ok(facts) = parse(frame.as_slice(), layer) {
            let end = facts.payload_offset as usize + facts.payload_length as usize;
            prop_assert!(facts.payload_length == 0 || end <= frame.len());
        }
    }

    #[test]
    fn a_lying_ip_length_is_clamped_to_the_packet(v6: bool, lie: u16, payload in vec(any::<u8>(), 0..80)) {
        let ip: IpHeaders = if v6 { ipv6() } else { ipv4() };
        let plan = Plan::udp(ip, (1, 2), payload.clone());
        let mut frame = plan.build();
        let (at, base) = if v6 { (18, 8) } else { (16, 28) };
        frame[at..at + 2].copy_from_slice(&lie.to_be_bytes());
        let said = usize::from(lie).saturating_sub(base);
        // 0 means "to the end" (BIG TCP, jumbograms).
        let expected = if lie == 0 { payload.len() } else { said.min(payload.len()) };
        let facts = parse(frame.as_slice(), Layer::Ethernet);
        prop_assert_eq!(facts, Ok(Facts { payload_length: expected as u32, ..plan.facts() }));
    }

    #[test]
    fn a_tcp_header_longer_than_the_packet_has_no_payload(words in 5u8..16, payload in 0usize..60) {
        let tcp = etherparse::TcpHeader::new(1, 2, 3, 4);
        let transport = crate::frames::Transport::Tcp(tcp);
        let plan = Plan { link: Link::None, ip: ipv4(), transport, payload: vec![0; payload] };
        let mut frame = plan.build();
        frame[20 + 12] = words << 4;
        let facts = parse(frame.as_slice(), Layer::Ip).expect("ports are there");
        let options = usize::from(words) * 4 - 20;
        prop_assert_eq!(facts.payload_length as usize, payload.saturating_sub(options));
    }
}
