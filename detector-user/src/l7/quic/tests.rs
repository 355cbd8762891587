//! What Initials say: the RFCs' own packets, a real client's (quinn), and hand-made ones.

mod crafted;
mod real;

use super::{super::fact::ClientHello, *};

/// The client's first packet in RFC 9001 appendix A.2, and in RFC 9369 appendix A.2.
const RFC_9001: &str = include_str!("rfc9001_a2.hex");
const RFC_9369: &str = include_str!("rfc9369_a2.hex");

fn packet(hex: &str) -> Vec<u8> {
    let digits: Vec<_> = hex.chars().filter_map(|digit| digit.to_digit(16)).collect();
    digits.chunks(2).map(|pair| (pair[0] << 4 | pair[1]) as u8).collect()
}

fn example_com(version: u32) -> Vec<Fact> {
    let hello = ClientHello {
        sni: Some("example.com".into()),
        alpn: vec!["alpn".into()],
        version: 0x0304,
        ja4: Some("q13d0211an_62ed6f6ca7ad_4d634acda6c0".into()),
        ech: false,
    };
    vec![Fact::Quic(QuicHello { version, hello })]
}

/// Version and name of each hello.
fn names(facts: &[Fact]) -> Vec<(u32, &str)> {
    facts
        .iter()
        .map(|fact| match fact {
            Fact::Quic(QuicHello { version, hello }) => {
                (*version, hello.sni.as_deref().unwrap_or_default())
            }
            other => panic!("not from a QUIC reader: {other:?}"),
        })
        .collect()
}

#[test]
fn the_initial_of_rfc_9001() {
    assert_eq!(Initials::default().datagram(&packet(RFC_9001)), example_com(1));
}

#[test]
fn the_initial_of_version_2_in_rfc_9369() {
    assert_eq!(Initials::default().datagram(&packet(RFC_9369)), example_com(0x6b33_43cf));
}

#[test]
fn an_initial_that_is_damaged_or_cut_says_nothing_and_is_counted() {
    let mut damaged = packet(RFC_9001);
    damaged[600] ^= 1;
    let mut initials = Initials::default();
    assert_eq!(initials.datagram(&damaged), []);
    assert_eq!(initials.take_unread(), Unread { keys: 1, ..Unread::default() });
    assert_eq!(initials.datagram(&packet(RFC_9001)[..1100]), []);
    assert_eq!(initials.take_unread(), Unread { cut: 1, ..Unread::default() });
    let mut unknown = packet(RFC_9001);
    unknown[4] = 99;
    assert_eq!(initials.datagram(&unknown), []);
    assert_eq!(initials.take_unread(), Unread { version: 1, ..Unread::default() });
    assert_eq!(initials.datagram(&packet(RFC_9001)), example_com(1));
    assert_eq!(initials.take_unread(), Unread::default());
}

#[test]
fn an_initial_sent_again_is_said_once() {
    let mut initials = Initials::default();
    assert_eq!(initials.datagram(&packet(RFC_9001)), example_com(1));
    assert_eq!(initials.datagram(&packet(RFC_9001)), []);
}

#[test]
fn looks_like_quic() {
    assert!(looks_like(&packet(RFC_9001)) && looks_like(&packet(RFC_9369)));
    // A short header, Version Negotiation, an unknown version, an id too long, too few bytes.
    for bytes in [
        &[0x40, 0, 0, 0, 1, 0, 0, 0][..],
        &[0xc0, 0, 0, 0, 0, 0, 0, 0],
        &[0xc0, 0, 0, 9, 9, 0, 0, 0],
        &[0xc0, 0, 0, 0, 1, 21, 0, 0],
        &[0xc0, 0, 0, 0, 1],
        b"",
    ] {
        assert!(!looks_like(bytes), "{bytes:x?}");
    }
}
