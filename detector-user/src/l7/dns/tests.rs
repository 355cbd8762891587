use proptest::prelude::*;

use super::*;
use crate::l7::drive;

/// A message with these flags and counts, and the rest as it is.
fn dns(flags: u16, counts: [u16; 4], rest: &[u8]) -> Vec<u8> {
    let mut bytes = vec![0x12, 0x34];
    bytes.extend(flags.to_be_bytes());
    bytes.extend(counts.iter().flat_map(|count| count.to_be_bytes()));
    bytes.extend_from_slice(rest);
    bytes
}

/// A query for names as they stand on the wire, each with type A and class IN.
fn query(names: &[&[u8]]) -> Vec<u8> {
    let rest: Vec<u8> =
        names.iter().flat_map(|name| [name, &b"\0\x01\0\x01"[..]].concat()).collect();
    dns(0x0100, [names.len() as u16, 0, 0, 0], &rest)
}

fn names(message: &[u8]) -> Vec<String> {
    super::message(message).unwrap().questions.into_iter().map(|q| q.name).collect()
}

/// The name of a query with this name on the wire; none where it is broken.
fn name(wire: &[u8]) -> Option<String> {
    names(&query(&[wire])).pop()
}

#[test]
fn a_query_says_its_name_as_sent_its_type_and_class() {
    let message =
        message(&dns(0x0100, [1, 0, 0, 0], b"\x03WwW\x07example\0\x00\x1c\x00\x01")).unwrap();
    let question = DnsQuestion { name: "WwW.example".into(), qtype: 28, qclass: 1 };
    let expected =
        DnsMessage { id: 0x1234, response: false, opcode: 0, rcode: 0, questions: vec![question] };
    assert_eq!(message, expected);
}

#[test]
fn several_questions_may_point_into_each_other() {
    let message = query(&[b"\x01a\x03org\0", b"\x01b\xc0\x0e", b"\xc0\x0c"]);
    assert_eq!(names(&message), ["a.org", "b.org", "a.org"]);
}

#[test]
fn a_name_may_point_forward() {
    assert_eq!(names(&query(&[b"\xc0\x12", b"\x01b\0"])), ["b", "b"]);
}

#[test]
fn names_are_printed_as_dissectors_do() {
    assert_eq!(name(b"\0").unwrap(), "<Root>");
    assert_eq!(name(b"\x04a\n\x01 \0").unwrap(), "a\\n\\001 ");
    assert_eq!(name(b"\x03\xc3\xbc\xff\0").unwrap(), "ü\u{fffd}");
    assert_eq!(name(b"\x03a.b\x01\\\0").unwrap(), "a.b.\\");
    assert_eq!(
        name("\x0ba\u{ad}\u{202e}\u{200b}é\0".as_bytes()).unwrap(),
        "a\\u00AD\\u202E\\u200Bé"
    );
    assert_eq!(name(b"\x03\xc1\x81a\0").unwrap(), "Aa", "a longer form of A");
    assert_eq!(name(b"\x02\xc0\x87\0").unwrap(), "\\u0007");
    assert_eq!(name(b"\x01a\x41\x09\xff\x80\0").unwrap(), "a", "bits are left out");
    assert_eq!(name(b"\x01a\x45\0").unwrap(), "<Unknown extended label>");
    assert_eq!(name(b"\x81a\0"), None);
}

#[test]
fn a_name_has_at_most_255_bytes() {
    let label = |n: usize| [&[n as u8][..], &vec![b'x'; n]].concat();
    let longest = [label(63), label(63), label(63), label(61), vec![0]].concat();
    assert_eq!(longest.len(), 255);
    assert_eq!(name(&longest).unwrap().len(), 253);
    let longer = [label(63), label(63), label(63), label(62), vec![0]].concat();
    assert_eq!(name(&longer).unwrap(), "<Name too long>");
}

#[test]
fn a_pointer_that_loops_ends() {
    for loops in [&b"\xc0\x0c"[..], b"\x01a\xc0\x0c", b"\xc0\x10"] {
        assert_eq!(name(loops).unwrap(), "<Name contains a pointer that loops>", "{loops:x?}");
    }
}

#[test]
fn what_stands_before_the_damage_counts() {
    let mut message = dns(
        0x0100,
        [65535, 65535, 65535, 65535],
        b"\x01a\0\0\x01\0\x01\x01b\0\0\x01\0\x01\x01c\0\0",
    );
    assert_eq!(names(&message), ["a", "b"]);
    message.truncate(12);
    assert_eq!(names(&message), [""; 0]);
    message.truncate(11);
    assert_eq!(super::message(&message), None);
}

#[test]
fn work_on_a_hostile_message_is_bounded() {
    // 63 KiB of labels, and questions that each walk them all.
    let mut rest = b"\x01a".repeat(8000);
    rest.extend_from_slice(b"\0\0\x01\0\x01");
    rest.extend(b"\xc0\x0c\0\x01\0\x01".repeat(8000));
    let started = std::time::Instant::now();
    assert!(message(&dns(0, [65535, 0, 0, 0], &rest)).unwrap().questions.len() < 200);
    assert!(started.elapsed() < std::time::Duration::from_secs(1));
}

#[test]
fn edns_adds_its_half_of_the_response_code() {
    let question = &b"\x01a\0\0\x01\0\x01"[..];
    let answer = b"\xc0\x0c\0\x01\0\x01\0\0\0\x05\0\x04\x0a\0\0\x01";
    let opt = b"\0\0\x29\x10\0\x01\0\0\0\0\0"; // extended code 1: with 0, BADVERS
    let rest = [question, answer, opt].concat();
    assert_eq!(message(&dns(0x8180, [1, 1, 0, 1], &rest)).unwrap().rcode, 16);
    assert_eq!(message(&dns(0x8183, [1, 1, 0, 0], &rest)).unwrap().rcode, 3);
}

#[test]
fn a_stream_has_messages_behind_each_other() {
    let framed = |message: Vec<u8>| [&(message.len() as u16).to_be_bytes()[..], &message].concat();
    let stream =
        [framed(query(&[b"\x01a\0"])), framed(vec![]), framed(query(&[b"\x01b\0"]))].concat();
    let (facts, end) = drive::whole(|bytes| Stream.step(bytes), &stream);
    let names: Vec<_> = facts.iter().map(names_of).collect();
    assert_eq!((names, end), (vec!["a".to_owned(), "b".to_owned()], true));
}

#[test]
fn a_long_response_is_passed_over() {
    let mut message = dns(0x8180, [1, 0, 0, 0], b"\x01a\0\0\xfc\0\x01");
    message.resize(60_000, 0);
    let stream = [&60_000u16.to_be_bytes()[..], &message].concat();
    let Step::Took { consumed, facts } = Stream.step(&stream[..5000]) else { panic!() };
    assert_eq!((consumed, facts.len()), (60_002, 1));
}

#[test]
fn odd_ports_need_a_plain_question() {
    assert!(looks_like(&query(&[b"\x01a\0"])));
    assert!(!looks_like(&dns(0x2800, [1, 0, 0, 0], b"\x01a\0\0\x01\0\x01")), "an update");
    assert!(!looks_like(&dns(0, [2, 0, 0, 0], b"\x01a\0\0\x01\0\x01")));
    assert!(!looks_like(&dns(0, [0, 0, 0, 0], b"")));
    assert!(looks_like_stream(&[b"\0\x13", &query(&[b"\x01a\0"])[..]].concat()));
    assert!(!looks_like_stream(&[b"\0\x05", &query(&[b"\x01a\0"])[..]].concat()));
}

fn names_of(fact: &Fact) -> String {
    let Fact::Dns(message) = fact else { panic!("{fact:?}") };
    message.questions.iter().map(|q| q.name.clone()).collect()
}

/// Bytes that are mostly names, types and pointers.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        prop::collection::vec(any::<u8>(), 0..8),
        (1..20u8).prop_map(|n| [&[n][..], &vec![b'a'; n as usize]].concat()),
        (0..128u16).prop_map(|to| (0xc000 | to).to_be_bytes().to_vec()),
        Just(b"\0\0\x01\0\x01".to_vec()),
        Just(b"\0\0\x29\x10\0\x01\0\0\0\0\0".to_vec()),
    ];
    (any::<u16>(), any::<[u8; 4]>(), prop::collection::vec(piece, 0..40))
        .prop_map(|(flags, counts, pieces)| dns(flags, counts.map(u16::from), &pieces.concat()))
}

proptest! {
    #[test]
    fn nothing_breaks_the_reader(bytes in prop::collection::vec(any::<u8>(), 0..200), hostile in hostile()) {
        for bytes in [bytes, hostile] {
            message(&bytes);
            looks_like_stream(&bytes);
            drive::whole(|bytes| Stream.step(bytes), &bytes);
        }
    }

    #[test]
    fn any_split_gives_the_same_facts(messages in prop::collection::vec(hostile(), 0..5), cuts in drive::cuts()) {
        let stream: Vec<u8> = messages.iter().flat_map(|m| [&(m.len() as u16).to_be_bytes()[..], m].concat()).collect();
        let split = drive::drive(|bytes| Stream.step(bytes), drive::split(&stream, &cuts));
        prop_assert_eq!(split, drive::whole(|bytes| Stream.step(bytes), &stream));
    }
}
