//! Readers of protocols over streams: however a stream is cut, it says the same.

use detector_common::{packet::Address, wire::tcp_flag};
use detector_user::{
    flow::{Endpoint, Flows, Limits, Segment, Stamp, Transport, Wanted},
    l7::{Fact, Step, Way, h2, http1, mqtt, proxy, tls},
};

use super::input;

/// The facts of a stream that comes in these segments.
fn read<'s>(
    mut step: impl FnMut(&[u8]) -> Step,
    segments: impl IntoIterator<Item = &'s [u8]>,
) -> Vec<Fact> {
    let mut facts = Vec::new();
    let mut buffer = Vec::new();
    let mut skip = 0u64;
    for segment in segments {
        let skipped = skip.min(segment.len() as u64);
        skip -= skipped;
        buffer.extend_from_slice(&segment[skipped as usize..]);
        while !buffer.is_empty() {
            match step(&buffer) {
                Step::More => break,
                Step::Took { consumed, facts: more } => {
                    assert!(consumed > 0, "a step that takes nothing never ends");
                    facts.extend(more);
                    let drained = consumed.min(buffer.len() as u64);
                    skip = consumed - drained;
                    buffer.drain(..drained as usize);
                }
                Step::Not => return facts,
            }
        }
    }
    facts
}

/// The stream in one piece and in several says the same.
pub(crate) fn any_split<S: FnMut(&[u8]) -> Step>(bytes: &[u8], reader: impl Fn() -> S) {
    let (stream, segments) = input::stream(bytes);
    assert_eq!(read(reader(), [stream]), read(reader(), segments));
}

/// One direction of HTTP/1.
pub(crate) fn http1(bytes: &[u8]) {
    any_split(bytes, || {
        let (mut connection, mut reader) = (http1::Connection::default(), http1::Reader::default());
        move |bytes: &[u8]| reader.step(&mut connection, bytes)
    });
}

/// Both directions of HTTP/2, each on its own.
pub(crate) fn h2(bytes: &[u8]) {
    for reader in [h2::Reader::client, h2::Reader::server] {
        any_split(bytes, || {
            let mut reader = reader();
            move |bytes: &[u8]| reader.step(bytes)
        });
    }
}

/// TLS records.
pub(crate) fn tls(bytes: &[u8]) {
    let _ = tls::looks_like(bytes);
    any_split(bytes, || {
        let mut records = tls::Records::default();
        move |bytes: &[u8]| records.step(bytes)
    });
}

/// One direction of MQTT.
pub(crate) fn mqtt(bytes: &[u8]) {
    let _ = mqtt::looks_like(bytes);
    any_split(bytes, || {
        let mut connection = mqtt::Connection::default();
        move |bytes: &[u8]| connection.step(Way::Forth, bytes)
    });
}

/// A PROXY header, and what follows it.
pub(crate) fn proxy(bytes: &[u8]) {
    assert!(!(proxy::looks_like(bytes) && proxy::may_become(bytes)));
    any_split(bytes, || {
        let mut header = proxy::Header::default();
        move |bytes: &[u8]| if header.is_read() { Step::Not } else { header.step(bytes) }
    });
}

/// A TCP connection whose segments come in any order, some twice: the flow says the same as in
/// order. The first byte says where to, the second how the segments are shuffled.
pub(crate) fn reassembly(mut bytes: &[u8]) {
    const PORTS: [u16; 8] = [80, 443, 1883, 53, 5683, 8080, 8443, 4_000];
    let port = PORTS[usize::from(input::byte(&mut bytes)) % PORTS.len()];
    let order = input::byte(&mut bytes);
    let (_, segments) = input::stream(bytes);
    let mut placed = Vec::new();
    let mut sequence = 1u32;
    for segment in segments {
        placed.push((sequence, segment));
        sequence = sequence.wrapping_add(segment.len() as u32);
    }
    let expected = facts(port, &placed);
    shuffle(&mut placed, order);
    assert_eq!(expected, facts(port, &placed));
}

/// Deterministic: the fuzzer must see the same with the same bytes.
fn shuffle<T: Copy>(placed: &mut Vec<T>, order: u8) {
    let count = placed.len();
    for index in 0..count {
        let other = (index * 7 + usize::from(order) * 13) % count;
        placed.swap(index, other);
    }
    if order & 1 != 0
        && let Some(first) = placed.first().copied()
    {
        placed.push(first);
    }
}

fn facts(port: u16, segments: &[(u32, &[u8])]) -> Vec<Fact> {
    let source = Endpoint { address: Address::v4([10, 60, 0, 2]), port: 40_000 };
    let destination = Endpoint { address: Address::v4([10, 45, 0, 10]), port };
    let mut flows = Flows::new(Limits::CAPTURE);
    let mut found = Vec::new();
    let mut frame = 0;
    let mut send = |sequence: u32, flags: u8, payload: &[u8]| {
        frame += 1;
        let segment = Segment {
            source,
            destination,
            transport: Transport::Tcp { sequence, acknowledgement: 1, flags },
            payload,
            length: payload.len() as u32,
            quoted: false,
            stamp: Stamp { time_ns: frame, frame },
            wanted: Wanted::default(),
        };
        flows.packet(&segment, &mut found);
    };
    send(0, tcp_flag::SYN, &[]);
    for (sequence, payload) in segments {
        send(*sequence, tcp_flag::ACK, payload);
    }
    flows.finish(&mut found);
    found.into_iter().map(|found| found.fact).collect()
}
