use proptest::prelude::*;

use super::*;
use crate::l7::{Fact, drive};

/// A confirmable message with token `t`.
fn con(code: u8, options: &[u8]) -> Vec<u8> {
    [&[0x41, code, 0x12, 0x34, b't'][..], options].concat()
}

#[test]
fn a_request_says_path_query_and_observe() {
    let message = message(&con(1, b"\x60\x51a\x03b/c\x43x=1\x03y=2\xffpayload")).unwrap();
    let expected = CoapMessage {
        kind: Some(0),
        code: 1,
        token: b"t".to_vec(),
        path: "/a/b/c".into(),
        query: vec!["x=1".into(), "y=2".into()],
        observe: Some(0),
        uri: "/a/b/c".into(),
    };
    assert_eq!(message, expected);
}

#[test]
fn host_and_port_stand_before_the_path() {
    assert_eq!(message(&con(1, b"\x33dev\x42\x16\x33\x41a")).unwrap().uri, "coap://dev:5683/a");
    assert_eq!(message(&con(1, b"\x33::1\x81a")).unwrap().uri, "coap://[::1]/a");
}

#[test]
fn deltas_and_lengths_are_extended() {
    let long = vec![b'x'; 300];
    let two_bytes = [b"\xbe\x00\x1f", &long[..]].concat();
    assert_eq!(message(&con(1, &two_bytes)).unwrap().path.len(), 301);
    // An option with number 300 (0xe0: two bytes, 269 and 31) behind the path.
    assert_eq!(message(&con(1, b"\xb1a\xe0\x00\x14\x01z")).unwrap().path, "/a");
    assert_eq!(message(&con(1, b"\xd1\x02v")).unwrap().query, ["v"], "13 and 2: Uri-Query");
}

#[test]
fn broken_options_are_no_message() {
    for options in [&b"\xf1a"[..], b"\xbf", b"\xb5abc", b"\xd0", b"\xe0\x01"] {
        assert_eq!(message(&con(1, options)), None, "{options:x?}");
    }
    assert_eq!(message(&[0x48, 1, 0, 0, 1, 2, 3]), None, "token cut off");
}

#[test]
fn a_response_is_about_what_was_asked_with_its_token() {
    let mut exchanges = Exchanges::default();
    assert_eq!(exchanges.datagram(&con(0x45, b"\xffhello")).unwrap().uri, "", "not seen asked");
    exchanges.datagram(&con(1, b"\xb1a"));
    let answer = exchanges.datagram(&con(0x45, b"\xffhello")).unwrap();
    assert_eq!((answer.uri.as_str(), answer.path.as_str()), ("/a", ""));
}

#[test]
fn tokens_are_forgotten_before_they_fill_the_memory() {
    let mut exchanges = Exchanges::default();
    for token in 0..100_000u32 {
        exchanges.datagram(&[&[0x44, 1, 0, 0][..], &token.to_be_bytes(), b"\xb1a"].concat());
    }
    assert!(exchanges.remembered() <= 256);
}

/// A message on a stream: head by RFC 8323 section 3.2.
fn framed(code: u8, options: &[u8]) -> Vec<u8> {
    let head = match options.len() {
        n @ 0..=12 => vec![(n as u8) << 4 | 1],
        n @ 13..=268 => vec![0xd1, (n - 13) as u8],
        n => [&[0xe1][..], &((n - 269) as u16).to_be_bytes()].concat(),
    };
    [&head[..], &[code, b't'], options].concat()
}

fn uris(facts: &[Fact]) -> Vec<String> {
    let uri = |fact: &Fact| match fact {
        Fact::Coap(message) => message.uri.clone(),
        other => panic!("{other:?}"),
    };
    facts.iter().map(uri).collect()
}

#[test]
fn a_stream_has_messages_with_lengths_of_each_size() {
    let long = [&b"\xb1c\xff"[..], &[b'x'; 60_000]].concat();
    let csm = b"\x00\xe1"; // no token
    let stream = [
        &csm[..],
        &framed(1, b"\xb1a"),
        &framed(2, b"\xb1bxxxxxxxxxxxxx"),
        &framed(3, &long),
        &framed(1, b""),
    ];
    let mut exchanges = Exchanges::default();
    let (facts, end) = drive::whole(|bytes| exchanges.step(bytes), &stream.concat());
    assert_eq!(
        (uris(&facts), end),
        (["", "/a", "/c", ""].map(String::from).to_vec(), true),
        "the third is broken"
    );
}

#[test]
fn odd_ports_need_a_message_of_version_1() {
    assert!(looks_like(&con(1, b"\xb1a")));
    assert!(looks_like(&[0x40, 0, 0, 1]), "a ping");
    assert!(!looks_like(&[0x80, 1, 0, 1]));
    assert!(!looks_like(&con(0x21, b"")), "1.01 is not defined");
    assert!(!looks_like(&con(1, b"\xf1")));
}

#[test]
fn a_client_library_builds_what_is_read() {
    let mut packet = coap_lite::CoapRequest::<()>::new();
    packet.set_method(coap_lite::RequestType::Post);
    packet.set_path("/sensors/a-name-longer-than-thirteen-bytes/led");
    packet.message.set_token(vec![7; 8]);
    packet.message.add_option(coap_lite::CoapOption::UriQuery, b"on=1".to_vec());
    packet.message.add_option(coap_lite::CoapOption::Unknown(2049), vec![1; 280]);
    packet.message.payload = b"{}".to_vec();
    let message = message(&packet.message.to_bytes().unwrap()).unwrap();
    assert_eq!(message.code, 2);
    assert_eq!(message.path, "/sensors/a-name-longer-than-thirteen-bytes/led");
    assert_eq!((message.query, message.token), (vec!["on=1".to_owned()], vec![7; 8]));
}

proptest! {
    #[test]
    fn nothing_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        message(&bytes);
        looks_like(&bytes);
        let mut exchanges = Exchanges::default();
        drive::whole(|bytes| exchanges.step(bytes), &bytes);
    }

    #[test]
    fn any_split_gives_the_same_facts(bytes in prop::collection::vec(0..0x40u8, 0..300), cuts in drive::cuts()) {
        let (mut one, mut other) = (Exchanges::default(), Exchanges::default());
        let split = drive::drive(|bytes| one.step(bytes), drive::split(&bytes, &cuts));
        prop_assert_eq!(split, drive::whole(|bytes| other.step(bytes), &bytes));
    }
}
