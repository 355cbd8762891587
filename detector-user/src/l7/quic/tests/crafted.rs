//! Initials with what clients seldom send.

use proptest::prelude::*;

use super::{
    super::{keys::Keys, version::schemes},
    *,
};

const DCID: [u8; 8] = [0x83, 0x94, 0xc8, 0xf0, 0x3e, 0x51, 0x57, 0x08];
const OTHER: [u8; 8] = [7; 8];
const SERVERS: [u8; 4] = [1, 2, 3, 4];

/// The handshake message of RFC 9001 appendix A.2.
fn hello() -> Vec<u8> {
    let opened = Keys::of_client(&schemes(1)[0], &DCID)
        .and_then(|keys| keys.open(&packet(RFC_9001), 18, None))
        .expect("the published packet opens");
    CryptoFrames::new(&opened.payload, schemes(1)[0].frames).next().expect("a frame").1.to_vec()
}

fn varint(number: usize) -> Vec<u8> {
    (number as u64 | 0xc000_0000_0000_0000).to_be_bytes().to_vec()
}

fn frame(kind: u8, offset: usize, data: &[u8]) -> Vec<u8> {
    [&[kind][..], &varint(offset), &varint(data.len()), data].concat()
}

fn crypto(message: &[u8], range: std::ops::Range<usize>) -> Vec<u8> {
    frame(6, range.start, &message[range])
}

/// An Initial of `version` to `dcid`, under the keys of the client whose first went to [`DCID`].
fn initial(version: u32, dcid: &[u8], token: &[u8], number: u64, payload: &[u8]) -> Vec<u8> {
    sealed(version, &DCID, dcid, token, number, payload)
}

/// The same for the client whose first Initial went to `keys_of`.
fn sealed(
    version: u32,
    keys_of: &[u8],
    dcid: &[u8],
    token: &[u8],
    number: u64,
    payload: &[u8],
) -> Vec<u8> {
    let scheme = schemes(version).last().expect("a known version");
    let mut payload = payload.to_vec();
    payload.resize(payload.len().max(64), 0);
    let mut header = vec![0xc0 | scheme.initial << 4];
    header.extend(version.to_be_bytes());
    header.push(dcid.len() as u8);
    header.extend(dcid);
    header.push(0);
    header.extend(varint(token.len()));
    header.extend(token);
    header.extend(varint(4 + payload.len() + 16));
    Keys::of_client(scheme, keys_of).expect("keys").seal(&header, number, &payload)
}

fn of_1(number: u64, payload: &[u8]) -> Vec<u8> {
    initial(1, &DCID, &[], number, payload)
}

/// The first Initial of version 1 of the client that sends to `dcid`.
fn of_client(dcid: &[u8], token: &[u8], number: u64, payload: &[u8]) -> Vec<u8> {
    sealed(1, dcid, dcid, token, number, payload)
}

fn of_another(number: u64, payload: &[u8]) -> Vec<u8> {
    of_client(&OTHER, &[], number, payload)
}

const ONE: [(u32, &str); 1] = [(1, "example.com")];

#[test]
fn every_version_that_is_known() {
    let drafts = (22..=34).map(|draft| 0xff00_0000 | draft);
    let facebook = [0xface_b001, 0xface_b002, 0xface_b00e];
    for version in drafts.chain(facebook).chain([1, 0x6b33_43cf, 0x1a2a_3a4a]) {
        let sent = initial(version, &DCID, &[], 0, &crypto(&hello(), 0..hello().len()));
        let facts = Initials::default().datagram(&sent);
        assert_eq!(names(&facts), [(version, "example.com")], "version {version:#x}");
    }
    for google in [0x5430_3530, 0x5430_3531] {
        let ping_crypto_padding = [&[7][..], &frame(8, 0, &hello()), &[0, 6, 6]].concat();
        let sent = initial(google, &DCID, &[], 0, &ping_crypto_padding);
        assert_eq!(names(&Initials::default().datagram(&sent)), [(google, "example.com")]);
    }
}

#[test]
fn frames_of_other_kinds_and_padding_lie_between() {
    let hello = hello();
    let ack = [&[2][..], &varint(9), &varint(1), &varint(1), &varint(1), &[3, 2]].concat();
    let ack_ecn = [&[3, 9, 1, 0, 1][..], &[5, 6, 7]].concat();
    let closed = [0x1c, 1, 6, 3, b'b', b'y', b'e'];
    let payload = [
        &[0, 0, 1][..],
        &crypto(&hello, 100..hello.len()),
        &ack,
        &[0; 30],
        &ack_ecn,
        &closed,
        &crypto(&hello, 0..100),
    ];
    assert_eq!(names(&Initials::default().datagram(&of_1(0, &payload.concat()))), ONE);
}

#[test]
fn a_frame_with_no_place_in_an_initial_ends_its_reading() {
    let hello = hello();
    let whole = crypto(&hello, 0..hello.len());
    for bad in [&[8][..], &[2, 1, 1, 0xff], &[6, 0, 0x7f, 0xff], &[0x7f, 0xff]] {
        let sent = of_1(0, &[bad, &whole].concat());
        assert_eq!(Initials::default().datagram(&sent), [], "{bad:x?}");
    }
}

#[test]
fn a_token_and_a_longer_packet_number() {
    let sent = initial(1, &DCID, &[9; 300], 0x1234_5678, &crypto(&hello(), 0..hello().len()));
    assert_eq!(names(&Initials::default().datagram(&sent)), ONE);
}

#[test]
fn the_rest_of_a_hello_may_go_to_the_id_that_the_server_chose() {
    let hello = hello();
    let first = of_1(0, &crypto(&hello, 0..100));
    let rest = initial(1, &SERVERS, &[], 1, &crypto(&hello, 100..hello.len()));
    let mut initials = Initials::default();
    assert_eq!(initials.datagram(&first), []);
    assert_eq!(names(&initials.datagram(&rest)), ONE);
    // Without the first nobody has the keys.
    let mut late = Initials::default();
    assert_eq!(late.datagram(&rest), []);
    assert_eq!(late.take_unread(), Unread { keys: 1, ..Unread::default() });
}

#[test]
fn coalesced_packets_of_one_connection_are_read_and_others_are_not() {
    let hello = hello();
    let handshake = [&[0xe0, 0, 0, 0, 1, 8][..], &DCID, &[0, 3, 7, 7, 7]].concat();
    let halves =
        [of_1(0, &crypto(&hello, 0..100)), handshake, of_1(1, &crypto(&hello, 100..hello.len()))];
    assert_eq!(names(&Initials::default().datagram(&halves.concat())), ONE);
    let stranger = packet(RFC_9001);
    let sent = [initial(1, &SERVERS, &[], 0, &[1]), stranger].concat();
    assert_eq!(Initials::default().datagram(&sent), []);
}

#[test]
fn a_hello_said_again_after_version_negotiation_counts_once() {
    let whole = crypto(&hello(), 0..hello().len());
    let mut initials = Initials::default();
    let mut facts = initials.datagram(&initial(0x1a2a_3a4a, &DCID, &[], 0, &whole));
    // Version Negotiation, from a server that has version 1.
    facts.extend(initials.datagram(&[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1]));
    facts.extend(initials.datagram(&initial(1, &DCID, &[], 0, &whole)));
    assert_eq!(names(&facts), [(0x1a2a_3a4a, "example.com")]);
}

#[test]
fn a_retry_that_was_seen_tells_that_the_client_begins_again() {
    // Some clients count packets from the beginning all the same.
    let hello = hello();
    let whole = crypto(&hello, 0..hello.len());
    let retry = [&[0xf0, 0, 0, 0, 1, 0, 8][..], &OTHER, &[0; 24]].concat();
    let mut initials = Initials::default();
    assert_eq!(names(&initials.datagram(&of_1(7, &whole))), ONE);
    assert_eq!(initials.datagram(&retry), []);
    assert_eq!(initials.datagram(&of_another(0, &whole)), []);
    assert_eq!(names(&Initials::default().datagram(&of_another(0, &whole))), ONE);
}

#[test]
fn many_connections_on_the_same_ports_are_told_apart() {
    let whole = crypto(&hello(), 0..hello().len());
    let mut initials = Initials::default();
    for id in 0..20 {
        let sent = of_client(&[id; 8], &[], 0, &whole);
        assert_eq!(names(&initials.datagram(&sent)), ONE);
        assert!(initials.connections.len() <= MAX_CONNECTIONS);
    }
}

#[test]
fn a_token_of_an_earlier_connection_does_not_join_two() {
    let whole = crypto(&hello(), 0..hello().len());
    let mut initials = Initials::default();
    assert_eq!(names(&initials.datagram(&of_1(5, &whole))), ONE);
    assert_eq!(names(&initials.datagram(&of_client(&OTHER, &[99], 0, &whole))), ONE);
}

#[test]
fn data_too_far_ahead_is_dropped_and_counted() {
    let mut initials = Initials::default();
    for number in 0..20u64 {
        let ahead = frame(6, 100 + number as usize * 1000, &[7; 1000]);
        initials.datagram(&of_1(number, &ahead));
    }
    assert!(initials.take_unread().too_far >= 4);
    let hello = hello();
    let facts = initials.datagram(&of_1(20, &crypto(&hello, 0..hello.len())));
    assert_eq!(names(&facts), ONE);
}

proptest! {
    /// CRYPTO frames cut, overlapping, repeated, shuffled, in any datagrams: the same hello, once.
    #[test]
    fn any_order_says_the_same(
        cuts in prop::collection::vec((any::<prop::sample::Index>(), 0usize..40), 0..40),
        order in any::<u64>(),
        per_datagram in 1usize..8,
    ) {
        let hello = hello();
        let mut places: Vec<usize> = cuts.iter().map(|(at, _)| at.index(hello.len())).collect();
        places.extend([0, hello.len()]);
        places.sort_unstable();
        let mut frames: Vec<Vec<u8>> = places
            .windows(2)
            .zip(cuts.iter().map(|(_, overlap)| *overlap).chain([0]))
            .map(|(pair, overlap)| {
                crypto(&hello, pair[0]..(pair[1] + overlap).min(hello.len()))
            })
            .collect();
        fastrand::Rng::with_seed(order).shuffle(&mut frames);
        let mut initials = Initials::default();
        let mut facts = Vec::new();
        for (number, frames) in frames.chunks(per_datagram).enumerate() {
            facts.extend(initials.datagram(&of_1(number as u64, &frames.concat())));
        }
        prop_assert_eq!(names(&facts), ONE);
        prop_assert_eq!(initials.take_unread(), Unread::default());
    }

    /// Whatever comes in whatever packet, reading ends.
    #[test]
    fn hostile_frames_and_datagrams_are_survived(
        payload in prop::collection::vec(any::<u8>(), 0..300),
        datagram in prop::collection::vec(any::<u8>(), 0..300),
        at in any::<prop::sample::Index>(),
    ) {
        let mut initials = Initials::default();
        initials.datagram(&of_1(0, &payload));
        initials.datagram(&datagram);
        let mut header = packet(RFC_9001);
        let at = at.index(30);
        let end = (at + datagram.len()).min(header.len());
        header[at..end].copy_from_slice(&datagram[..end - at]);
        initials.datagram(&header);
        for end in 0..64 {
            initials.datagram(&header[..end]);
        }
    }
}
