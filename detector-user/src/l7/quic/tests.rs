//! What Initials say: the RFCs' own packets.

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

#[test]
fn the_initial_of_rfc_9001() {
    assert_eq!(Initials::default().datagram(&packet(RFC_9001)), example_com(1));
}

#[test]
fn the_initial_of_version_2_in_rfc_9369() {
    assert_eq!(Initials::default().datagram(&packet(RFC_9369)), example_com(0x6b33_43cf));
}
