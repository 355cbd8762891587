//! Heads as they are sent, by good clients and bad ones.

use super::*;
use crate::l7::{
    drive,
    fact::{HttpRequest, HttpVersion},
};

/// The requests of a stream; how it ended.
fn requests(bytes: &[u8]) -> (Vec<HttpRequest>, Step) {
    let mut connection = Connection::expected();
    let (facts, end) = read(&mut Reader::default(), &mut connection, bytes);
    let requests = facts.into_iter().filter_map(|fact| match fact {
        Fact::HttpRequest(request) => Some(request),
        _ => None,
    });
    (requests.collect(), end)
}

fn read(reader: &mut Reader, connection: &mut Connection, bytes: &[u8]) -> (Vec<Fact>, Step) {
    let mut facts = Vec::new();
    let mut at = 0;
    loop {
        match reader.step(connection, bytes.get(at..).unwrap_or_default()) {
            Step::Took { consumed, facts: found } if at < bytes.len() => {
                assert!(consumed > 0);
                facts.extend(found);
                at += consumed as usize;
            }
            end => return (facts, end),
        }
    }
}

fn one(bytes: &[u8]) -> HttpRequest {
    let (mut requests, _) = requests(bytes);
    assert_eq!(requests.len(), 1, "{requests:?}");
    requests.remove(0)
}

#[test]
fn method_target_host_and_fields_are_as_sent() {
    let request = one(b"POST /a?b=1 HTTP/1.1\r\nhost: shop\r\nUser-Agent:  ue \r\n\r\n");
    assert_eq!((request.method.as_str(), request.target.as_str()), ("POST", "/a?b=1"));
    assert_eq!(request.version, HttpVersion::Http11);
    assert_eq!(request.host.as_deref(), Some("shop"));
    assert_eq!(request.headers[1], ("User-Agent".into(), "ue ".into()));
}

#[test]
fn lines_may_end_with_lf_or_cr_alone() {
    assert_eq!(one(b"GET /a HTTP/1.0\nHost: x\n\n").host.as_deref(), Some("x"));
    assert_eq!(one(b"GET /a HTTP/1.0\rHost: x\r\r\n").host.as_deref(), Some("x"));
}

/// Where no rule may match the next request, it is not shown.
#[test]
fn a_head_of_lines_that_end_with_cr_alone_waits_for_no_byte_behind_it() {
    assert_eq!(one(b"GET /a HTTP/1.0\rHost: x\r\r").host.as_deref(), Some("x"));
    assert!(
        matches!(requests(b"GET /a HTTP/1.0\r\nHost: x\r\n\r"), (none, Step::More) if none.is_empty())
    );
}

/// The first head's LF comes later than its CR, and belongs to it, not to the body.
#[test]
fn however_a_head_is_cut_behind_its_last_cr_its_body_is_passed_over() {
    let streams: [&[u8]; 4] = [
        b"POST /a HTTP/1.1\rContent-Length: 2\r\r\n{}GET /b HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\rContent-Length: 2\r\r{}GET /b HTTP/1.1\r\n\r\n",
        b"POST /a HTTP/1.1\rTransfer-Encoding: chunked\r\r\n0\r\n\r\nGET /b HTTP/1.1\r\n\r\n",
        b"GET /a HTTP/1.1\r\rGET /b HTTP/1.1\r\n\r\n",
    ];
    for stream in streams {
        for cut in 0..stream.len() {
            let (mut reader, mut connection) = (Reader::default(), Connection::default());
            let segments = [&stream[..cut], &stream[cut..]];
            let (facts, _) = drive::drive(|bytes| reader.step(&mut connection, bytes), segments);
            assert_eq!(facts.len(), 2, "{} cut at {cut}: {facts:?}", stream.escape_ascii());
        }
    }
}

#[test]
fn empty_lines_before_a_request_are_passed_over() {
    assert_eq!(one(b"\r\n\r\nGET /a HTTP/1.1\r\n\r\n").target, "/a");
}

#[test]
fn webdav_and_upnp_methods_are_methods() {
    for method in ["PROPFIND", "M-SEARCH", "SUBSCRIBE", "VERSION-CONTROL", "RPC_IN_DATA"] {
        let head = format!("{method} /a HTTP/1.1\r\n\r\n");
        assert_eq!(one(head.as_bytes()).method, method);
    }
    assert!(requests(b"FETCH /a HTTP/1.1\r\n\r\n").0.is_empty());
}

#[test]
fn chunked_bodies_and_trailers_are_passed_over() {
    let stream = b"POST /a HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n5;x=y\r\nhello\r\n0\r\nT: 1\r\n\r\nGET /b HTTP/1.1\r\n\r\n";
    let (found, _) = requests(stream);
    assert_eq!(
        found.iter().map(|request| request.target.as_str()).collect::<Vec<_>>(),
        ["/a", "/b"]
    );
}

#[test]
fn after_connect_another_protocol_follows() {
    let mut reader = Reader::default();
    read(&mut reader, &mut Connection::default(), b"CONNECT shop:443 HTTP/1.1\r\n\r\n");
    assert!(reader.switched());
}

#[test]
fn a_response_without_length_goes_on_until_the_end() {
    let mut connection = Connection::default();
    let mut server = Reader::default();
    read(&mut Reader::default(), &mut connection, b"GET /a HTTP/1.1\r\n\r\n");
    let (facts, _) =
        read(&mut server, &mut connection, b"HTTP/1.1 200 OK\r\n\r\nGET /b HTTP/1.1\r\n\r\n");
    assert!(matches!(&facts[..], [Fact::HttpResponse(response)] if response.status == 200));
}

#[test]
fn a_response_to_head_has_no_body() {
    let mut connection = Connection::default();
    let mut server = Reader::default();
    read(&mut Reader::default(), &mut connection, b"HEAD /a HTTP/1.1\r\n\r\n");
    let answer = b"HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nHTTP/1.1 404 No\r\nContent-Length: 0\r\n\r\n";
    assert_eq!(read(&mut server, &mut connection, answer).0.len(), 2);
}

#[test]
fn on_other_ports_the_first_line_must_say_its_version() {
    assert_eq!(looks_like(b"GET /a HTTP/1.1\r\n"), Likeness::Yes);
    assert_eq!(looks_like(b"GET /a\r\n"), Likeness::No);
    assert_eq!(looks_like(b"GE"), Likeness::Perhaps);
    assert_eq!(looks_like(b"HELO mail\r\n"), Likeness::No);
    assert_eq!(looks_like(b"\x16\x03\x01"), Likeness::No);
}

#[test]
fn a_head_without_end_is_given_up() {
    let mut head = b"GET /a HTTP/1.1\r\n".to_vec();
    head.resize(MAX_HEAD, b'a');
    assert_eq!(requests(&head).1, Step::Not);
}

#[test]
fn a_cut_head_says_what_is_there() {
    let reader = Reader::default();
    let fact = reader.cut(&mut Connection::default(), b"GET /a HTTP/1.1\r\nHost: sh");
    assert!(
        matches!(fact, Some(Fact::HttpRequest(request)) if request.host.as_deref() == Some("sh"))
    );
}

#[test]
fn a_channel_of_rpc_has_no_body_to_wait_for() {
    let mut reader = Reader::default();
    let head = b"RPC_IN_DATA /rpc HTTP/1.1\r\nContent-Length: 1073741824\r\n\r\n";
    let (facts, _) = read(&mut reader, &mut Connection::default(), head);
    assert_eq!(facts.len(), 1);
    assert!(reader.switched());
}

#[test]
fn a_method_alone_asks_for_nothing() {
    let request = one(b"OPTIONS\nHost: shop\n\n");
    assert_eq!((request.method.as_str(), request.target.as_str()), ("OPTIONS", ""));
    assert_eq!(looks_like(b"OPTIONS\n"), Likeness::No);
}

#[test]
fn every_method_is_known_however_little_of_it_is_there() {
    for method in head::METHODS.iter().chain(head::LONG_METHODS) {
        let line = format!("{method} / HTTP/1.1\r\n\r\n");
        for there in 1..line.len() - 4 {
            assert_eq!(
                looks_like(&line.as_bytes()[..there]),
                Likeness::Perhaps,
                "{method} {there}"
            );
        }
        assert_eq!(looks_like(line.as_bytes()), Likeness::Yes, "{method}");
        assert_eq!(looks_like(format!("M-{line}").as_bytes()), Likeness::Yes, "M-{method}");
    }
}
