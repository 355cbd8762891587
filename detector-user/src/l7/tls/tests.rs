//! Hellos of real clients and hand-made ones, whole, split, repeated, cut and damaged.

use proptest::prelude::*;

use super::*;
use crate::l7::{
    client::{Shares, config, first_flight},
    drive::{cuts, drive, split, whole},
};

fn shop(shares: Shares) -> Vec<u8> {
    first_flight(config(shares, &["h2", "http/1.1"]), "shop.example.com")
}

fn only_hello((facts, to_the_end): (Vec<Fact>, bool)) -> ClientHello {
    assert!(to_the_end, "the stream was not read to its end");
    match <[Fact; 1]>::try_from(facts) {
        Ok([Fact::Tls(hello)]) => hello,
        other => panic!("one hello expected: {other:?}"),
    }
}

fn read(stream: &[u8]) -> Vec<Fact> {
    let mut records = Records::default();
    whole(|bytes| records.step(bytes), stream).0
}

fn record(kind: u8, body: &[u8]) -> Vec<u8> {
    let mut record = vec![kind, 3, 3];
    record.extend((body.len() as u16).to_be_bytes());
    record.extend(body);
    record
}

fn vector16(content: &[u8]) -> Vec<u8> {
    [&(content.len() as u16).to_be_bytes(), content].concat()
}

fn extension(kind: u16, content: &[u8]) -> Vec<u8> {
    [&kind.to_be_bytes()[..], &vector16(content)].concat()
}

fn server_name(name: &[u8]) -> Vec<u8> {
    extension(0, &vector16(&[&[0][..], &vector16(name)].concat()))
}

/// A hello with these extensions, as a handshake message.
fn message(extensions: &[u8]) -> Vec<u8> {
    let mut body = vec![3, 3];
    body.extend([7; 32]);
    body.push(0);
    body.extend(vector16(&[0x13, 0x01]));
    body.extend([1, 0]);
    body.extend(vector16(extensions));
    let length = (body.len() as u32).to_be_bytes();
    [&[1][..], &length[1..], &body].concat()
}

fn names(facts: &[Fact]) -> Vec<Option<&str>> {
    facts
        .iter()
        .map(|fact| match fact {
            Fact::Tls(hello) => hello.sni.as_deref(),
            other => panic!("not from a TLS reader: {other:?}"),
        })
        .collect()
}

#[test]
fn a_hello_says_name_protocols_version_and_fingerprint() {
    let mut records = Records::default();
    let hello = only_hello(whole(|bytes| records.step(bytes), &shop(Shares::Classic)));
    assert_eq!(hello.sni.as_deref(), Some("shop.example.com"));
    assert_eq!(hello.alpn, ["h2", "http/1.1"]);
    assert_eq!(hello.version, 0x0304);
    assert!(!hello.ech);
    let ja4 = hello.ja4.expect("a whole hello has a fingerprint");
    assert!(ja4.starts_with("t13d") && ja4.contains("h2_"), "{ja4}");
}

#[test]
fn a_post_quantum_hello_of_1_8_kb_is_read_over_its_segments() {
    // As long as a browser's, which has more extensions than rustls.
    let protocols: Vec<String> = (0..24).map(|n| format!("vendor-proto/{n}")).collect();
    let offered: Vec<&str> = protocols.iter().map(String::as_str).chain(["h2"]).collect();
    let sent = first_flight(config(Shares::PostQuantum, &offered), "shop.example.com");
    assert!((1800..2 * 1460).contains(&sent.len()), "{} bytes", sent.len());
    let mut records = Records::default();
    let hello = only_hello(drive(|bytes| records.step(bytes), sent.chunks(1460)));
    assert_eq!(hello.sni.as_deref(), Some("shop.example.com"));
    assert!(hello.alpn.iter().any(|name| name == "h2"), "{:?}", hello.alpn);
    assert!(hello.ja4.is_some(), "whole");
}

#[test]
fn a_hello_in_segments_of_one_byte() {
    let mut records = Records::default();
    let hello = only_hello(drive(|bytes| records.step(bytes), shop(Shares::PostQuantum).chunks(1)));
    assert_eq!(hello.sni.as_deref(), Some("shop.example.com"));
}

#[test]
fn a_hello_in_several_records() {
    let mut small = config(Shares::PostQuantum, &["h2", "http/1.1"]);
    small.max_fragment_size = Some(64);
    let sent = first_flight(small, "shop.example.com");
    let mut records = Records::default();
    let hello = only_hello(whole(|bytes| records.step(bytes), &sent));
    assert_eq!(hello.sni.as_deref(), Some("shop.example.com"));
}

#[test]
fn a_client_that_goes_to_an_address_names_nobody() {
    let sent = first_flight(config(Shares::Classic, &[]), "192.0.2.1");
    let mut records = Records::default();
    let hello = only_hello(whole(|bytes| records.step(bytes), &sent));
    assert_eq!(hello.sni, None);
    assert!(hello.ja4.is_some_and(|ja4| ja4.starts_with("t13i") && ja4.contains("00_")));
}

#[test]
fn several_messages_in_one_record() {
    let hello = message(&server_name(b"a.example"));
    // HelloRequest, hello, hello.
    let both = [&[0, 0, 0, 0][..], &hello, &message(&server_name(b"b.example"))].concat();
    assert_eq!(names(&read(&record(22, &both))), [Some("a.example"), Some("b.example")]);
}

#[test]
fn a_second_hello_after_hello_retry_request_is_found() {
    let first = record(22, &message(&server_name(b"a.example")));
    // In TLS 1.3 ChangeCipherSpec is for show, and early data may lie between.
    let show = [record(20, &[1]), record(23, &[9; 100])].concat();
    let second = record(22, &message(&server_name(b"b.example")));
    let facts = read(&[first, show, second].concat());
    assert_eq!(names(&facts), [Some("a.example"), Some("b.example")]);
}

#[test]
fn an_encrypted_handshake_record_is_no_hello() {
    let hello = record(22, &message(&server_name(b"a.example")));
    // After ChangeCipherSpec: ciphertext that happens to begin like a hello of another length.
    let mut finished = vec![1, 0, 0, 90, 3, 3];
    finished.extend([5; 34]);
    let sent = [hello.clone(), record(20, &[1]), record(22, &finished), hello.clone()].concat();
    assert_eq!(names(&read(&sent)), [Some("a.example"); 2]);
    // Without it, as in a stream whose beginning was not seen: a nonce that counts from zero.
    let counted = record(22, &[0; 40]);
    let no_kind = record(22, &[0xee; 40]);
    assert_eq!(names(&read(&[counted, no_kind, hello].concat())), [Some("a.example")]);
}

#[test]
fn a_record_that_is_skipped_may_end_beyond_the_bytes() {
    let data = record(23, &[0; 1000]);
    let hello = record(22, &message(&server_name(b"a.example")));
    let stream = [data, hello].concat();
    let mut records = Records::default();
    let (facts, to_the_end) = drive(|bytes| records.step(bytes), stream.chunks(100));
    assert!(to_the_end);
    assert_eq!(names(&facts), [Some("a.example")]);
}

#[test]
fn what_is_no_record_is_not_tls() {
    for bytes in [&b"GET / HTTP/1.1\r\n"[..], &[22, 2, 0, 0, 1, 1], &[22, 9, 9, 9, 9], &[0; 5]] {
        assert_eq!(Records::default().step(bytes), Step::Not, "{bytes:?}");
    }
    for bytes in [&b"GET /"[..], &[20, 3, 3, 0, 1], &[22, 2], &[22, 3, 3, 0, 0], &[22, 3, 3, 99, 9]]
    {
        assert!(!looks_like(bytes), "{bytes:?}");
    }
    let sent = shop(Shares::Classic);
    for length in 0..sent.len() {
        assert_eq!(looks_like(&sent[..length]), length > 0, "{length} bytes");
    }
}

#[test]
fn a_hello_whose_end_was_not_captured_says_what_is_there() {
    let name = server_name(b"a.example");
    let tail = [extension(0x2a, &[0; 300]), extension(16, &vector16(b"\x02h2"))].concat();
    let sent = record(22, &message(&[name, tail].concat()));
    let mut records = Records::default();
    let (facts, _) = whole(|bytes| records.step(bytes), &sent[..200]);
    assert_eq!(facts, []);
    let Some(Fact::Tls(hello)) = records.cut() else { panic!("nothing of a hello") };
    assert_eq!(hello.sni.as_deref(), Some("a.example"));
    assert_eq!((hello.ja4, hello.alpn), (None, vec![]));
    assert_eq!(records.cut(), None, "said once");
}

#[test]
fn a_hello_counts_once_its_record_has_come() {
    let mut sent = record(22, &message(&server_name(b"a.example")));
    sent[4] += 9; // the record says that more follows
    let mut records = Records::default();
    assert_eq!(whole(|bytes| records.step(bytes), &sent).0, []);
    let rest = [11, 0, 0, 5, 1, 2, 3, 4, 5];
    assert_eq!(names(&whole(|bytes| records.step(bytes), &rest).0), [Some("a.example")]);
    let mut records = Records::default();
    whole(|bytes| records.step(bytes), &sent);
    assert_eq!(names(&records.cut().into_iter().collect::<Vec<_>>()), [Some("a.example")]);
}

#[test]
fn the_version_of_a_hello_does_not_matter() {
    let mut odd = message(&server_name(b"a.example"));
    odd[4] = 0x3f;
    assert_eq!(names(&read(&record(22, &odd))), [Some("a.example")]);
}

#[test]
fn of_a_damaged_hello_counts_what_stands_before_the_damage() {
    let name = server_name(b"a.example");
    let damaged_extension = [&[0, 16][..], &[0xff, 0xff], b"\x00\x03\x02h2"].concat();
    let facts = read(&record(22, &message(&[name.clone(), damaged_extension].concat())));
    let [Fact::Tls(hello)] = &facts[..] else { panic!("one hello expected: {facts:?}") };
    assert_eq!((hello.sni.as_deref(), &hello.alpn), (Some("a.example"), &vec![]));
    assert_eq!(hello.ja4, None);
    // A list of extensions longer than the hello: nothing in it is believed.
    let mut lying = message(&name);
    let at = lying.len() - name.len() - 2;
    lying[at..at + 2].copy_from_slice(&[0xff, 0xff]);
    assert_eq!(names(&read(&record(22, &lying))), [None]);
    // A name longer than its extension.
    let long = extension(0, &vector16(&[&[0, 0, 99][..], b"a.example"].concat()));
    assert_eq!(names(&read(&record(22, &message(&long)))), [None]);
}

#[test]
fn a_hello_longer_than_is_kept_says_what_its_beginning_says() {
    let much = [server_name(b"a.example"), extension(0x15, &vec![0; 40_000])].concat();
    let stream: Vec<u8> =
        message(&much).chunks(1 << 14).flat_map(|body| record(22, body)).collect();
    let behind = record(22, &message(&server_name(b"b.example")));
    assert_eq!(names(&read(&[stream, behind].concat())), [Some("a.example"), Some("b.example")]);
}

#[test]
fn versions_without_grease_and_encrypted_client_hello() {
    let versions = extension(43, &[6, 0xfa, 0xfa, 3, 4, 3, 3]);
    let facts = read(&record(22, &message(&[versions, extension(0xfe0d, &[0; 8])].concat())));
    let [Fact::Tls(hello)] = &facts[..] else { panic!("one hello expected: {facts:?}") };
    assert_eq!((hello.version, hello.ech), (0x0304, true));
}

#[test]
fn a_hello_without_extensions_is_of_its_legacy_version() {
    let mut old = message(&[]);
    old.truncate(old.len() - 2);
    old[3] -= 2;
    let facts = read(&record(22, &old));
    let [Fact::Tls(hello)] = &facts[..] else { panic!("one hello expected: {facts:?}") };
    assert_eq!((hello.version, hello.sni.as_deref()), (0x0303, None));
    assert_eq!(hello.ja4.as_deref(), Some("t12i010000_0f2cb44170f4_000000000000"));
}

proptest! {
    /// Any split into segments and records gives the same facts.
    #[test]
    fn any_split_says_the_same(segments in cuts(), fragments in cuts()) {
        let handshake = [
            message(&server_name(b"a.example")),
            vec![0, 0, 0, 0],
            message(&[server_name(b"b.example"), extension(0x15, &[0; 600])].concat()),
        ]
        .concat();
        let stream: Vec<u8> = split(&handshake, &fragments)
            .into_iter()
            .filter(|body| !body.is_empty())
            .flat_map(|body| [record(22, body), record(21, &[1, 0])].concat())
            .collect();
        let mut records = Records::default();
        let (facts, to_the_end) =
            drive(|bytes| records.step(bytes), split(&stream, &segments));
        prop_assert!(to_the_end);
        prop_assert_eq!(names(&facts), [Some("a.example"), Some("b.example")]);
    }

    /// Whatever comes, reading ends.
    #[test]
    fn hostile_bytes_are_survived(
        mut bytes in prop::collection::vec(any::<u8>(), 0..600),
        header in any::<bool>(),
        segments in cuts(),
    ) {
        if header && bytes.len() > 6 {
            bytes[..6].copy_from_slice(&[22, 3, 1, 1, 0xf4, 1]);
        }
        let mut records = Records::default();
        drive(|bytes| records.step(bytes), split(&bytes, &segments));
        records.cut();
    }

    /// One damaged byte in a hello neither stops reading nor changes what stands before it.
    #[test]
    fn a_damaged_byte_is_survived(at in any::<prop::sample::Index>(), flip in 1u8..) {
        let mut sent = record(22, &message(&server_name(b"a.example")));
        let at = at.index(sent.len());
        sent[at] ^= flip;
        let mut records = Records::default();
        drive(|bytes| records.step(bytes), [&sent[..]]);
        records.cut();
    }
}
