//! Frames of a conversation between UEs and applications, in every encapsulation that is parsed.

use etherparse::{PacketBuilder, TcpHeader};

const UE: [u8; 4] = [10, 60, 0, 2];
const APP: [u8; 4] = [10, 45, 0, 10];
pub(crate) const UE6: [u8; 16] = [0xfd, 0, 0, 0x60, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 2];
pub(crate) const APP6: [u8; 16] = [0xfd, 0, 0, 0x45, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0x10];
const BUY: &[u8] =
    b"POST /api/buttons/buy?item=7 HTTP/1.1\r\nHost: shop.example\r\nContent-Length: 0\r\n\r\n";

/// An IPv4 TCP segment.
pub(crate) fn tcp4(
    from: ([u8; 4], u16),
    to: ([u8; 4], u16),
    sequence: u32,
    flags: fn(&mut TcpHeader),
    payload: &[u8],
) -> Vec<u8> {
    let mut header = TcpHeader::new(from.1, to.1, sequence, 65000);
    header.ack = true;
    flags(&mut header);
    let builder =
        PacketBuilder::ethernet2([2; 6], [4; 6]).ipv4(from.0, to.0, 64).tcp_header(header);
    let mut frame = Vec::new();
    builder.write(&mut frame, payload).expect("fits");
    frame
}

/// An IPv6 TCP segment.
pub(crate) fn tcp6(from: u16, to: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv6(UE6, APP6, 64)
        .tcp(from, to, sequence, 65000)
        .write(&mut frame, payload)
        .expect("fits");
    frame
}

/// An IPv4 UDP datagram.
pub(crate) fn udp4(from: ([u8; 4], u16), to: ([u8; 4], u16), payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::new();
    PacketBuilder::ethernet2([2; 6], [4; 6])
        .ipv4(from.0, to.0, 64)
        .udp(from.1, to.1)
        .write(&mut frame, payload)
        .expect("fits");
    frame
}

/// The buy request of UE 10.60.0.2.
pub(crate) fn buy(sequence: u32) -> Vec<u8> {
    tcp4((UE, 40000), (APP, 80), sequence, |h| h.psh = true, BUY)
}

/// Puts VLAN tags behind the MAC addresses.
pub(crate) fn tagged(frame: &[u8], tags: &[[u8; 4]]) -> Vec<u8> {
    let mut tagged = frame[..12].to_vec();
    tagged.extend(tags.iter().flatten());
    tagged.extend(&frame[12..]);
    tagged
}

/// The frame's IP packet as a T-PDU between gNB and UPF, after `header` (from the flags on).
pub(crate) fn in_gtpu(frame: &[u8], header: &[u8]) -> Vec<u8> {
    let inner = [header, &frame[14..]].concat();
    udp4(([172, 16, 0, 1], 2152), ([172, 16, 0, 2], 2152), &inner)
}

/// GTP-U: no options; with a sequence number; with a PDU Session Container of QFI 9.
pub(crate) const GTPU_PLAIN: &[u8] = &[0x30, 255, 0, 0, 0, 0, 0, 7];
pub(crate) const GTPU_SEQUENCE: &[u8] = &[0x32, 255, 0, 0, 0, 0, 0, 7, 0, 1, 0, 0];
pub(crate) const GTPU_QFI: &[u8] = &[0x34, 255, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x85, 1, 0x10, 9, 0];
const GTPU_ECHO: &[u8] = &[0x32, 1, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0];
const GTPU_ENDLESS: &[u8] = &[0x34, 255, 0, 0, 0, 0, 0, 7, 0, 0, 0, 0x85, 0, 0, 0, 0x85];

/// A conversation: everything a hook may see, some of it twice.
pub(crate) fn conversation() -> Vec<Vec<u8>> {
    let syn = |h: &mut TcpHeader| (h.syn, h.ack) = (true, false);
    let up = |sequence, payload: &[u8]| tcp4((UE, 40000), (APP, 80), sequence, |_| (), payload);
    let down = |sequence, payload: &[u8]| tcp4((APP, 80), (UE, 40000), sequence, |_| (), payload);
    let mut fragment = up(900, BUY);
    fragment[20] = 0x20; // more fragments
    let mut later_fragment = fragment.clone();
    later_fragment[21] = 5;
    let with_options =
        [&up(950, BUY)[..14], &[0x46], &up(950, BUY)[15..34], &[1, 1, 1, 0], &up(950, BUY)[34..]]
            .concat();
    let mut extension = tcp6(40006, 80, 1, BUY);
    extension[20] = 60; // destination options before TCP
    extension.splice(54..54, [6, 0, 1, 4, 0, 0, 0, 0]);
    vec![
        down(1, b"hello, from before the UE spoke"),
        tcp4((UE, 40000), (APP, 80), 99, syn, b""),
        tcp4((UE, 40000), (APP, 80), 99, syn, b""),
        up(100, b""),
        buy(100),
        buy(100),
        down(32, b"HTTP/1.1 200 OK\r\n\r\n"),
        buy(200),
        up(300, b"GET / HTTP/1.1\r\n\r\n"),
        up(320, b"GET /api/x HTTP/1.1\r\n\r\n"),
        up(340, b"PUT http://shop/api/buttons/buy HTTP/1.1\r\n\r\n"),
        up(360, b"OPTIONS * HTTP/1.1\r\n\r\n"),
        up(380, b"BREW /pot HTTP/1.1\r\n\r\n"),
        up(400, b"\x16\x03\x01\x02\x00\x01"),
        up(500, &[b'x'; 1400]),
        up(600, b"GET "),
        fragment,
        later_fragment,
        with_options,
        tcp4(([10, 60, 0, 3], 40001), ([10, 45, 0, 77], 8085), 5, |_| (), BUY),
        tcp4(([10, 60, 0, 3], 40001), ([10, 45, 0, 77], 8091), 5, |_| (), BUY),
        tcp4(([10, 99, 0, 3], 40001), (APP, 80), 5, |_| (), BUY),
        tcp4((UE, 40002), ([10, 46, 0, 10], 80), 5, |_| (), BUY),
        tcp6(40003, 1234, 7, BUY),
        extension,
        udp4((UE, 6000), (APP, 5000), b"first"),
        udp4((UE, 6000), (APP, 5000), b"second"),
        udp4((APP, 5000), (UE, 6000), b"answer"),
        udp4(([10, 45, 1, 9], 7000), ([10, 60, 0, 4], 7001), b"the game speaks first"),
        udp4(
            ([10, 60, 0, 4], 7001),
            ([10, 45, 1, 9], 7000),
            b"no new flow, but the session begins",
        ),
        tagged(&buy(700), &[[0x81, 0, 0, 5]]),
        tagged(&buy(720), &[[0x88, 0xa8, 0, 5], [0x81, 0, 0, 6]]),
        tagged(&buy(740), &[[0x81, 0, 0, 5]; 3]),
        in_gtpu(&buy(800), GTPU_PLAIN),
        in_gtpu(&buy(820), GTPU_SEQUENCE),
        in_gtpu(&buy(840), GTPU_QFI),
        in_gtpu(&tcp6(40005, 80, 9, BUY), GTPU_QFI),
        in_gtpu(&buy(860), GTPU_ECHO),
        in_gtpu(&buy(880), GTPU_ENDLESS),
        in_gtpu(b"..............no IP packet", GTPU_PLAIN),
        [&[2; 12][..], &[8, 6], &[0; 28]].concat(),
        tcp4((UE, 40000), (APP, 80), 1000, |h| h.fin = true, b""),
        down(2000, b"late"),
    ]
}
