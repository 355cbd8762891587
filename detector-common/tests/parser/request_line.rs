//! The start of an HTTP/1 request line.

use detector_common::http::{HttpMethod, RequestLine, request_line};
use proptest::{collection::vec, prelude::*, sample::select};

fn look(payload: &str) -> Option<RequestLine> {
    request_line(payload.as_bytes(), 0)
}

proptest! {
    #[test]
    fn every_method_is_found_at_any_offset(
        method in select(HttpMethod::ALL.to_vec()), before in vec(any::<u8>(), 0..80),
    ) {
        let line = format!("{} /x HTTP/1.1\r\n", method.token());
        let packet = [&before[..], line.as_bytes()].concat();
        let target_offset = (before.len() + method.token().len() + 1) as u32;
        let found = request_line(packet.as_slice(), before.len());
        prop_assert_eq!(found, Some(RequestLine { method, target_offset }));
        prop_assert_eq!(&packet[target_offset as usize..][..3], b"/x ");
    }

    #[test]
    fn only_a_method_and_a_space_is_a_request_line(payload in "[A-Zgets ]{8,16}") {
        let expected = HttpMethod::ALL
            .into_iter()
            .find(|method| payload.starts_with(&format!("{} ", method.token())));
        prop_assert_eq!(look(&payload).map(|line| line.method), expected);
    }

    #[test]
    fn a_method_with_one_wrong_byte_is_none(
        method in select(HttpMethod::ALL.to_vec()), at: prop::sample::Index, byte: u8,
    ) {
        let token = format!("{} ", method.token());
        let at = at.index(token.len());
        prop_assume!(token.as_bytes()[at] != byte);
        let mut line = format!("{token}/path HTTP/1.1").into_bytes();
        line[at] = byte;
        prop_assert_eq!(request_line(line.as_slice(), 0), None);
    }
}

#[test]
fn near_misses_are_no_request_lines() {
    for line in [
        "GETX / HTTP/1.1",
        "get / HTTP/1.1",
        "Get / HTTP/1.1",
        "BREW /pot HTTP/1.1",
        "GET\t/ HTTP/1.1",
        " GET / HTTP/1.1",
        "\r\nGET / HTTP/1.1",
        "POSTAL / HTTP/1.1",
        "OPTIONSX / HTTP/1.1",
        "CONNECTION: close",
        "DELETED / HTTP/1.1",
        "PATCHES / HTTP/1.1",
        "HTTP/1.1 200 OK",
        "PRI * HTTP/2.0\r\n\r\n",
    ] {
        assert_eq!(look(line), None, "{line}");
    }
}

#[test]
fn a_payload_too_short_for_any_request_is_none() {
    for length in 0..8 {
        assert_eq!(look(&"GET / HTTP/1.1"[..length]), None);
    }
    assert_eq!(request_line(b"GET / HTTP/1.1".as_slice(), 1_000), None);
}
