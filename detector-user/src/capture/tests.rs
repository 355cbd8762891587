//! Capture files as tools write them, and a packet under every header that is known.

use std::io::{Cursor, Write};

use flate2::{Compression, write::GzEncoder};
use proptest::prelude::*;

use super::*;
use crate::flow::Transport;

/// A frame's number, time and bytes.
type Read = (u64, u64, Vec<u8>);

/// The frames; and why reading ended, if not at the end.
fn read(file: Vec<u8>) -> (Vec<Read>, Option<CaptureError>) {
    match CaptureFile::read(Cursor::new(file)) {
        Ok(file) => read_to_end(file),
        Err(error) => (Vec::new(), Some(error)),
    }
}

fn read_to_end(mut file: CaptureFile) -> (Vec<Read>, Option<CaptureError>) {
    let mut frames = Vec::new();
    loop {
        match file.next_frame() {
            Ok(Some(frame)) => frames.push((frame.number, frame.time_ns, frame.bytes.to_vec())),
            Ok(None) => return (frames, None),
            Err(error) => return (frames, Some(error)),
        }
    }
}

/// A classic capture in the byte order of `word`.
fn classic(magic: u32, word: fn(u32) -> [u8; 4], fraction: u32, frames: &[&[u8]]) -> Vec<u8> {
    let version = if word(1)[0] == 1 { [2, 0, 4, 0] } else { [0, 2, 0, 4] };
    let mut file = [word(magic), version, word(0), word(0), word(65_535), word(1)].concat();
    for bytes in frames {
        let length = word(bytes.len() as u32);
        file.extend([word(7), word(fraction), length, length].concat());
        file.extend(*bytes);
    }
    file
}

fn little(word: u32) -> [u8; 4] {
    word.to_le_bytes()
}

fn big(word: u32) -> [u8; 4] {
    word.to_be_bytes()
}

/// A block of pcapng, little-endian.
fn block(kind: u32, body: &[u8]) -> Vec<u8> {
    let mut body = body.to_vec();
    body.resize(body.len().next_multiple_of(4), 0);
    let length = little(body.len() as u32 + 12);
    [&little(kind), &length, body.as_slice(), &length].concat()
}

/// A section with one interface whose clock counts nanoseconds, and these frames.
fn section(frames: &[&[u8]]) -> Vec<u8> {
    let mut file =
        block(0x0a0d_0d0a, &[&little(0x1a2b_3c4d)[..], &[1, 0, 0, 0], &[0xff; 8]].concat());
    // Ethernet, no limit; if_tsresol (9) is 9.
    file.extend(block(1, &[1, 0, 0, 0, 0, 0, 0, 0, 9, 0, 1, 0, 9, 0, 0, 0, 0, 0, 0, 0]));
    for bytes in frames {
        let time = 7_000_000_005_u64;
        let length = little(bytes.len() as u32);
        let head = [little(0), little((time >> 32) as u32), little(time as u32), length, length];
        file.extend(block(6, &[&head.concat(), *bytes].concat()));
    }
    file
}

#[test]
fn classic_captures_are_read_in_either_byte_order_and_resolution() {
    for (magic, fraction, time) in
        [(0xa1b2_c3d4, 5, 7_000_005_000), (0xa1b2_3c4d, 5, 7_000_000_005)]
    {
        for word in [little, big] {
            let (frames, error) = read(classic(magic, word, fraction, &[b"one", b"three"]));
            assert_eq!(frames, [(1, time, b"one".to_vec()), (2, time, b"three".to_vec())]);
            assert!(error.is_none());
        }
    }
}

#[test]
fn pcapng_is_read_with_its_clock_and_in_several_sections() {
    let two = [section(&[b"one"]), section(&[b"three"])].concat();
    let (frames, error) = read(two);
    let time = 7_000_000_005;
    assert_eq!(frames, [(1, time, b"one".to_vec()), (2, time, b"three".to_vec())]);
    assert!(error.is_none());
}

#[test]
fn gzipped_captures_are_read() {
    let mut packed = GzEncoder::new(Vec::new(), Compression::fast());
    packed.write_all(&section(&[b"one"])).unwrap();
    assert_eq!(read(packed.finish().unwrap()).0.len(), 1);
}

#[test]
fn what_was_read_before_a_gzipped_file_is_cut_short_counts() {
    for (frames, cut) in [(2, 20), (2_000, 200)] {
        let mut packed = GzEncoder::new(Vec::new(), Compression::none());
        packed.write_all(&section(&vec![&[7; 100][..]; frames])).unwrap();
        let packed = packed.finish().unwrap();
        let (read, error) = read(packed[..packed.len() - cut].to_vec());
        assert!(
            (frames - 2..frames).contains(&read.len()),
            "{} of {frames}: {error:?}",
            read.len()
        );
        let next = read.len() as u64 + 1;
        assert!(
            matches!(error, Some(CaptureError::CutShort { frame }) if frame == next),
            "{error:?}"
        );
    }
}

#[test]
fn what_was_read_before_the_file_is_cut_short_counts() {
    let whole = classic(0xa1b2_c3d4, little, 0, &[b"one", b"three"]);
    let (frames, error) = read(whole[..whole.len() - 1].to_vec());
    assert_eq!(frames.len(), 1);
    assert!(matches!(error, Some(CaptureError::CutShort { frame: 2 })));
    let whole = section(&[b"one", b"three"]);
    let (frames, error) = read(whole[..whole.len() - 1].to_vec());
    assert_eq!(frames.len(), 1);
    assert!(matches!(error, Some(CaptureError::CutShort { frame: 2 })));
}

#[test]
fn a_length_that_no_frame_has_is_damage() {
    let mut file = classic(0xa1b2_c3d4, little, 0, &[b"one"]);
    file.extend([little(7), little(0), little(1 << 20), little(1 << 20)].concat());
    file.resize(file.len() + (1 << 20), 0);
    let (frames, error) = read(file);
    assert_eq!(frames.len(), 1);
    assert!(matches!(error, Some(CaptureError::Damaged { frame: 2, .. })), "{error:?}");
}

#[test]
fn a_large_frame_makes_the_buffer_grow() {
    let large = vec![1; 200_000];
    let frames: Vec<&[u8]> = vec![&large; 20];
    assert_eq!(read(classic(0xa1b2_c3d4, little, 0, &frames)).0.len(), 20);
}

#[test]
fn a_file_says_the_same_however_it_is_read() {
    let frames: Vec<Vec<u8>> =
        (0..9_000).map(|number| vec![number as u8; number % 1_500]).collect();
    let frames: Vec<&[u8]> = frames.iter().map(Vec::as_slice).collect();
    for whole in [classic(0xa1b2_c3d4, little, 0, &frames), section(&frames)] {
        let path = tempfile::NamedTempFile::new().expect("a file").into_temp_path();
        std::fs::write(&path, &whole).expect("room on disk");
        let file = CaptureFile::open(&path).expect("a capture");
        let (frames, error) = read_to_end(file);
        assert!(error.is_none());
        assert!(frames == read(whole).0);
    }
}

#[test]
fn other_files_are_refused_with_what_to_do() {
    let (_, error) = read(b"snoop\0\0\0\0\0\0\x02\0\0\0\x04 and some more of it".to_vec());
    assert!(error.is_some_and(|error| error.to_string().contains("editcap")));
    assert!(matches!(read(Vec::new()).1, Some(CaptureError::NoHeader)));
}

const PAYLOAD: &[u8] = b"what the user says";

fn ipv4(protocol: u8, body: &[u8]) -> Vec<u8> {
    ipv4_part(protocol, 0, body)
}

/// An IPv4 packet with these fragment flags and offset.
fn ipv4_part(protocol: u8, fragment: u16, body: &[u8]) -> Vec<u8> {
    let length = (20 + body.len() as u16).to_be_bytes();
    let [high, low] = fragment.to_be_bytes();
    let head = [0x45, 0, length[0], length[1], 0, 9, high, low, 64, protocol, 0, 0];
    [&head[..], &[10, 0, 0, 1, 10, 0, 0, 2], body].concat()
}

fn ipv6(next: u8, body: &[u8]) -> Vec<u8> {
    let length = (body.len() as u16).to_be_bytes();
    let head = [0x60, 0, 0, 0, length[0], length[1], next, 64];
    [&head[..], &[0xfd; 16], &[0xfe; 16], body].concat()
}

fn udp(from: u16, to: u16, body: &[u8]) -> Vec<u8> {
    let length = 8 + body.len() as u16;
    let head = [from, to, length, 0].map(u16::to_be_bytes).concat();
    [&head[..], body].concat()
}

/// The user's packet.
fn inner() -> Vec<u8> {
    ipv4(17, &udp(40_000, 7, PAYLOAD))
}

fn ethernet(kind: u16, body: &[u8]) -> Vec<u8> {
    [&[2; 12][..], &kind.to_be_bytes(), body].concat()
}

/// The payloads that are found in frames of a link type, with the destination's port.
fn found(link: u16, frames: &[Vec<u8>]) -> Vec<(u16, Vec<u8>)> {
    let mut layers = Layers::default();
    let mut found = Vec::new();
    for bytes in frames {
        let length = bytes.len() as u32;
        let frame = Frame { number: 1, time_ns: 0, link: LinkType(link), bytes, length };
        layers.frame(&frame, &mut |segment| {
            assert_eq!(segment.length as usize, segment.payload.len());
            found.push((segment.destination.port, segment.payload.to_vec()));
        });
    }
    found
}

fn is_found(link: u16, frame: Vec<u8>) {
    assert_eq!(found(link, &[frame]), [(7, PAYLOAD.to_vec())], "link type {link}");
}

#[test]
fn every_link_layer_leads_to_the_packet() {
    let padded = |bytes: usize| vec![0; bytes];
    let ip = inner();
    is_found(1, ethernet(0x0800, &ip));
    for raw in [12, 14, 101, 228] {
        is_found(raw, ip.clone());
    }
    is_found(0, [&little(2), &ip[..]].concat());
    is_found(0, [&big(2), &ip[..]].concat());
    is_found(108, [&big(2), &ip[..]].concat());
    is_found(113, [&padded(14)[..], &[8, 0], &ip].concat());
    is_found(276, [&[8, 0], &padded(18)[..], &ip].concat());
    is_found(9, [&[0xff, 0x03, 0x00, 0x21][..], &ip].concat());
    is_found(9, [&[0x21][..], &ip].concat());
    is_found(51, [&padded(6)[..], &[0x00, 0x21], &ip].concat());
    is_found(104, [&[0x0f, 0, 8, 0][..], &ip].concat());
    let llc = [&[0xaa, 0xaa, 3, 0, 0, 0, 8, 0][..], &ip].concat();
    // ARCNET of the BSDs and of Linux, IP of RFC 1051 and of RFC 1201.
    is_found(7, [&[1, 2, 240][..], &ip].concat());
    is_found(7, [&[1, 2, 212, 0, 0, 9][..], &ip].concat());
    is_found(129, [&[1, 2, 0, 0, 212, 0, 0, 9][..], &ip].concat());
    is_found(105, [&[8, 0][..], &padded(22), &llc].concat());
    is_found(127, [&[0, 0, 8, 0, 0, 0, 0, 0, 8, 0][..], &padded(22), &llc].concat());
    is_found(
        239,
        [&[2, 0, 0, 0, 8, 0, 1, 0, 0, 0, 0, 0][..], &[(ip.len() + 4) as u8, 0, 9, 0], &ip].concat(),
    );
}

#[test]
fn every_tunnel_leads_to_the_innermost_packet() {
    let ip = inner();
    let frame = ethernet(0x0800, &ip);
    let over_udp = |port, body: &[u8]| ipv4(17, &udp(50_000, port, body));
    let in_ethernet = |kind, head: &[u8], body: &[u8]| ethernet(kind, &[head, body].concat());
    is_found(1, in_ethernet(0x8100, &[0, 5, 0x08, 0], &ip));
    is_found(1, in_ethernet(0x88a8, &[0, 5, 0x81, 0, 0, 6, 0x08, 0], &ip));
    is_found(1, in_ethernet(0x8847, &[0, 1, 0, 64, 0, 2, 1, 64], &ip));
    is_found(1, in_ethernet(0x8864, &[0x11, 0, 0, 1, 0, ip.len() as u8 + 2, 0, 0x21], &ip));
    for (protocol, body) in [
        (4, ip.clone()),
        (47, [&[0, 0, 8, 0][..], &ip].concat()),
        (47, [&[0xb0, 0, 8, 0][..], &[0; 12], &ip].concat()),
        (47, [&[0, 0, 0x65, 0x58][..], &frame].concat()),
        (47, [&[0x10, 0, 0x88, 0xbe, 0, 0, 0, 1][..], &[0; 8], &frame].concat()),
        (97, [&[0x30, 0][..], &frame].concat()),
    ] {
        is_found(101, ipv4(protocol, &body));
        is_found(101, ipv6(protocol, &body));
    }
    let session = [&[0x34, 255, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0x85, 1, 0x10, 5, 0][..], &ip].concat();
    is_found(101, over_udp(2152, &session));
    is_found(101, over_udp(2152, &[&[0x30, 255, 0, 0, 0, 0, 0, 1][..], &frame].concat()));
    // An Ethernet address may begin like an IP version.
    let like_ip = [&[0x46][..], &frame[1..]].concat();
    is_found(101, over_udp(2152, &[&[0x30, 255, 0, 0, 0, 0, 0, 1][..], &like_ip].concat()));
    is_found(101, over_udp(4789, &[&[8, 0, 0, 0, 0, 0, 1, 0][..], &frame].concat()));
    is_found(
        101,
        over_udp(6081, &[&[1, 0, 0x65, 0x58, 0, 0, 1, 0, 1, 2, 3, 4][..], &frame].concat()),
    );
    let wireless = [&[0u8; 22][..], &[0xaa, 0xaa, 3, 0, 0, 0, 8, 0], &ip].concat();
    let capwap = [0, 0x10, 0x03, 0x00, 0, 0, 0, 0];
    is_found(101, over_udp(5247, &[&capwap[..], &[0x08, 0x01], &wireless].concat()));
    // As Cisco has it.
    is_found(101, over_udp(5247, &[&capwap[..], &[0x01, 0x08], &wireless].concat()));
    is_found(101, over_udp(5247, &[&[0, 0x10, 0x02, 0x00, 0, 0, 0, 0][..], &frame].concat()));
    is_found(101, over_udp(1701, &[&[0, 2, 0, 1, 0, 2, 0xff, 3, 0, 0x21][..], &ip].concat()));
    let ipv6 = ipv6(17, &udp(40_000, 7, PAYLOAD));
    is_found(101, over_udp(3544, &[&[0, 0, 1, 2, 3, 4, 5, 6][..], &ipv6].concat()));
}

#[test]
fn a_tunnel_that_carries_nothing_readable_is_a_datagram_itself() {
    let frames = [ipv4(17, &udp(50_000, 4789, b"no VXLAN"))];
    assert_eq!(found(101, &frames), [(4789, b"no VXLAN".to_vec())]);
}

#[test]
fn fragments_are_put_together_in_any_order() {
    let datagram = udp(40_000, 7, PAYLOAD);
    let parts = [
        ipv4_part(17, 0x2000, &datagram[..8]),
        ipv4_part(17, 0x2001, &datagram[8..16]),
        ipv4_part(17, 0x0002, &datagram[16..]),
    ];
    for order in [[0, 1, 2], [2, 1, 0], [1, 0, 2]] {
        let frames = order.map(|place| parts[place].clone());
        assert_eq!(found(101, &frames), [(7, PAYLOAD.to_vec())]);
    }
    assert!(found(101, &parts[..2]).is_empty());
}

#[test]
fn of_overlapping_fragments_the_bytes_that_came_first_stay() {
    let datagram = udp(40_000, 7, PAYLOAD);
    let frames = [
        ipv4_part(17, 0x2000, &datagram[..16]),
        ipv4_part(17, 0x0001, &[b"xxxxxxxx", &datagram[16..]].concat()),
    ];
    assert_eq!(found(101, &frames), [(7, PAYLOAD.to_vec())]);
}

#[test]
fn an_icmp_error_quotes_the_packet() {
    let mut layers = Layers::default();
    let bytes = ipv4(1, &[&[3, 3, 0, 0, 0, 0, 0, 0][..], &inner()].concat());
    let length = bytes.len() as u32;
    let frame = Frame { number: 1, time_ns: 0, link: LinkType(101), bytes: &bytes, length };
    let mut quoted = Vec::new();
    layers.frame(&frame, &mut |segment| quoted.push((segment.quoted, segment.transport)));
    assert_eq!(quoted, [(true, Transport::Udp)]);
}

#[test]
fn a_loop_of_tunnels_ends() {
    let mut packet = inner();
    for _ in 0..100 {
        packet = ipv4(4, &packet);
    }
    assert!(found(101, &[packet]).is_empty());
}

proptest! {
    #[test]
    fn random_frames_never_panic(
        link in prop_oneof![0..20_u16, 50..52_u16, 100..130_u16, 138..170_u16, Just(192), Just(228), Just(239), Just(258), Just(276)],
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        found_any(link, &bytes);
    }

    /// Damage behind good headers gets further down.
    #[test]
    fn damaged_tunnels_never_panic(
        port in prop_oneof![Just(2152), Just(4789), Just(4790), Just(6081), Just(3544), Just(1701), Just(4341), Just(4754), Just(5072), Just(6635)],
        protocol in prop_oneof![Just(17), Just(47), Just(4), Just(41), Just(97), Just(1), Just(137)],
        bytes in proptest::collection::vec(any::<u8>(), 0..120),
    ) {
        found_any(101, &ipv4(protocol, &bytes));
        found_any(101, &ipv4(17, &udp(9, port, &bytes)));
    }

    #[test]
    fn random_files_never_panic(
        start in prop_oneof![Just(section(&[b"one"])), Just(classic(0xa1b2_c3d4, little, 0, &[b"one"]))],
        bytes in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        read([start, bytes].concat());
    }
}

fn found_any(link: u16, bytes: &[u8]) {
    let length = bytes.len() as u32;
    let frame = Frame { number: 1, time_ns: 0, link: LinkType(link), bytes, length };
    Layers::default().frame(&frame, &mut |_| {});
}
