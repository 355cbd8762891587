use loona_hpack::Encoder;
use proptest::prelude::*;

use super::*;
use crate::l7::fact::{HttpRequest, HttpResponse, HttpVersion};
use crate::l7::{Fact, drive};

fn frame(code: u8, flags: u8, stream: u32, payload: &[u8]) -> Vec<u8> {
    let length = (payload.len() as u32).to_be_bytes();
    [&length[1..], &[code, flags], &stream.to_be_bytes(), payload].concat()
}

/// SETTINGS without any, and its acknowledgement.
fn settings() -> Vec<u8> {
    [frame(4, 0, 0, b""), frame(4, 1, 0, b"")].concat()
}

/// Header blocks of one direction.
struct Blocks(Encoder<'static>);

impl Blocks {
    fn block(&mut self, fields: &[(&str, &str)]) -> Vec<u8> {
        self.0.encode(fields.iter().map(|(n, v)| (n.as_bytes(), v.as_bytes())))
    }

    fn get(&mut self, path: &str) -> Vec<u8> {
        self.block(&[
            (":method", "GET"),
            (":path", path),
            (":scheme", "http"),
            (":authority", "a.example"),
            ("x-y", "1"),
        ])
    }
}

fn blocks() -> Blocks {
    Blocks(Encoder::new())
}

fn request(target: &str) -> Fact {
    Fact::HttpRequest(HttpRequest {
        version: HttpVersion::Http2,
        method: "GET".into(),
        target: target.into(),
        host: Some("a.example".into()),
        headers: vec![("x-y".into(), "1".into())],
    })
}

fn read(mut reader: Reader, stream: &[u8]) -> (Vec<Fact>, bool) {
    drive::whole(|bytes| reader.step(bytes), stream)
}

#[test]
fn requests_build_on_the_table_of_those_before() {
    let mut blocks = blocks();
    let (one, two) = (blocks.get("/1"), blocks.get("/2"));
    assert!(two.len() < one.len(), "from the table");
    let stream = [
        PREFACE,
        &settings(),
        &frame(1, 5, 1, &one),
        &frame(0, 1, 1, &[7; 5000]),
        &frame(1, 5, 3, &two),
    ];
    assert_eq!(
        read(Reader::client(), &stream.concat()),
        (vec![request("/1"), request("/2")], true)
    );
}

#[test]
fn a_header_block_goes_on_in_continuations_behind_padding_and_priority() {
    let block = blocks().get("/long");
    let padded = [&[3, 0, 0, 0, 0, 255][..], &block[..4], &[0; 3]].concat();
    let stream = [
        PREFACE,
        &frame(1, 0x28, 1, &padded),
        &frame(9, 0, 1, &block[4..6]),
        &frame(9, 4, 1, &block[6..]),
    ];
    assert_eq!(read(Reader::client(), &stream.concat()), (vec![request("/long")], true));
}

#[test]
fn a_response_has_its_status_and_trailers_have_none() {
    let mut blocks = blocks();
    let head = blocks.block(&[(":status", "404"), ("content-type", "text/plain")]);
    let trailers = blocks.block(&[("x-sum", "1")]);
    let stream =
        [settings(), frame(1, 4, 1, &head), frame(0, 0, 1, b"gone"), frame(1, 5, 1, &trailers)];
    let headers = vec![("content-type".into(), "text/plain".into())];
    let response =
        Fact::HttpResponse(HttpResponse { version: HttpVersion::Http2, status: 404, headers });
    assert_eq!(read(Reader::server(), &stream.concat()), (vec![response], true));
}

#[test]
fn nobody_asked_for_what_a_server_pushes() {
    let mut blocks = blocks();
    let (pushed, head) =
        (blocks.get("/style.css"), blocks.block(&[(":status", "200"), ("x-y", "1")]));
    let promise = frame(5, 4, 1, &[&[0, 0, 0, 2][..], &pushed].concat());
    let (facts, end) =
        read(Reader::server(), &[settings(), promise, frame(1, 4, 1, &head)].concat());
    assert!(
        matches!(&facts[..], [Fact::HttpResponse(r)] if r.status == 200 && r.headers.len() == 1),
        "{facts:?}"
    );
    assert!(end);
}

#[test]
fn a_body_may_be_a_dns_message() {
    let message = b"\0\0\x01\0\0\x01\0\0\0\0\0\0\x01a\0\0\x01\0\x01";
    let mut blocks = blocks();
    let post = |kind| [(":method", "POST"), (":path", "/dns-query"), ("content-type", kind)];
    let (dns, text) =
        (blocks.block(&post("application/dns-message")), blocks.block(&post("text/plain")));
    let trailers = blocks.block(&[("x", "y")]);
    let stream = [
        PREFACE,
        &frame(1, 4, 1, &dns),
        &frame(1, 4, 3, &text),
        &frame(0, 0x08, 1, &[&[2][..], &message[..5], b"\0\0"].concat()),
        &frame(1, 4, 5, &dns),
        &frame(0, 1, 3, message),
        &frame(0, 1, 1, &message[5..]),
        &frame(0, 0, 5, message),
        &frame(1, 5, 5, &trailers),
        &frame(0, 1, 5, message), // of a stream that has ended
    ];
    let (facts, end) = read(Reader::client(), &stream.concat());
    let dns = facts
        .iter()
        .filter(|fact| matches!(fact, Fact::Dns(m) if m.questions[0].name == "a"))
        .count();
    assert_eq!((facts.len(), dns, end), (5, 2, true));
}

#[test]
fn connect_has_its_authority_as_target() {
    let block = blocks().block(&[(":method", "CONNECT"), (":authority", "a.example:443")]);
    let (facts, _) = read(Reader::client(), &[PREFACE, &frame(1, 4, 1, &block)].concat());
    assert!(
        matches!(&facts[..], [Fact::HttpRequest(r)] if r.target == "a.example:443"),
        "{facts:?}"
    );
}

#[test]
fn other_protocols_and_damage_end_the_reading() {
    let block = blocks().get("/");
    for bad in [
        b"GET / HTTP/1.1\r\n".to_vec(),
        [PREFACE, &frame(9, 4, 1, &block)].concat(), // continues nothing
        [PREFACE, &frame(1, 0, 1, &block), &frame(9, 4, 3, b"")].concat(), // another stream's
        [PREFACE, &frame(1, 0, 1, &block), &frame(0, 0, 1, b"")].concat(), // interrupted
        [PREFACE, &frame(1, 0x0c, 1, &[200, 0x82])].concat(), // padding longer than all
        [PREFACE, &frame(1, 4, 1, b"\xff\xff\xff\xff\xff\xff\xff\x7f")].concat(), // index beyond any table
        [PREFACE, &frame(1, 4, 1, b"\x3f\xff\xff\xff\x7f\x82")].concat(), // a table too large
    ] {
        let (facts, end) = read(Reader::client(), &bad);
        assert!(facts.is_empty() && !end, "{bad:x?}");
    }
}

#[test]
fn a_flood_of_continuations_is_given_up() {
    let mut stream = [PREFACE, &frame(1, 0, 1, b"\x82")].concat();
    (0..5).for_each(|_| stream.extend(frame(9, 0, 1, &[0x82; 16_000])));
    assert!(!read(Reader::client(), &stream).1);
}

#[test]
fn a_bomb_of_indexed_fields_is_bounded() {
    // One field of 3 KiB in the table (index 62), then 60,000 times that field: 180 MiB.
    let value = "v".repeat(3000);
    let mut blocks = blocks();
    let first = blocks.block(&[(":method", "GET"), (":path", "/"), ("x", &value)]);
    let bomb = [&[0x82, 0x84][..], &[0xbe; 60_000]].concat();
    let stream = [PREFACE, &frame(1, 4, 1, &first), &frame(1, 4, 3, &bomb)].concat();
    let (facts, _) = read(Reader::client(), &stream);
    let Some(Fact::HttpRequest(request)) = facts.get(1) else { panic!("{}", facts.len()) };
    assert!(request.headers.len() < 30);
}

#[test]
fn a_server_begins_with_settings() {
    assert!(looks_like_server(&settings()));
    assert!(!looks_like_server(b"HTTP/1.1 200 OK\r\n"));
    assert!(!looks_like_server(&frame(4, 0, 1, b"")));
}

/// A client's frames, good and bad.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let piece = prop_oneof![
        (0..10u8, any::<u8>(), 0..3u32, prop::collection::vec(any::<u8>(), 0..30))
            .prop_map(|(c, f, s, p)| frame(c, f, s, &p)),
        prop::collection::vec("[a-z]{0,9}", 1..3).prop_map(|paths| {
            let mut blocks = blocks();
            paths.iter().flat_map(|path| frame(1, 4, 1, &blocks.get(path))).collect()
        }),
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..6).prop_map(|pieces| [PREFACE, &pieces.concat()].concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_facts(stream in hostile(), cuts in drive::cuts()) {
        let mut reader = Reader::client();
        let split = drive::drive(|bytes| reader.step(bytes), drive::split(&stream, &cuts));
        prop_assert_eq!(split.0, read(Reader::client(), &stream).0);
    }

    #[test]
    fn nothing_breaks_the_table(block in prop::collection::vec(any::<u8>(), 0..200)) {
        read(Reader::client(), &[PREFACE, &frame(1, 4, 1, &block)].concat());
    }
}
