//! Packets, records and capture files.

use std::{io::Cursor, sync::OnceLock};

use detector_common::{
    packet::Layer,
    parse::{self, Facts, ParseFault},
    wire::port,
};
use detector_user::{
    capture::{CaptureFile, Layers},
    decode::Record,
    flow::{Flows, Limits},
    rules::{self, compile::compile, table::TableImage},
    source::software::SoftwareClassifier,
};

use super::input;

/// Rules that look at everything the packet path can look at.
const RULES: &str = include_str!("../rules.yaml");

fn layer(first: u8) -> Layer {
    if first & 1 == 0 { Layer::Ethernet } else { Layer::Ip }
}

/// What is read lies in the packet, and stays the same when the packet is cut behind the headers or
/// something is appended.
pub(crate) fn parse(mut bytes: &[u8]) {
    let layer = layer(input::byte(&mut bytes));
    let Ok(facts) = parse::parse(bytes, layer) else { return };
    let (offset, length) = (facts.payload_offset as usize, facts.payload_length as usize);
    assert!(length == 0 || offset + length <= bytes.len(), "{facts:?} of {}", bytes.len());
    // A TCP header may say that it has options beyond the packet's end: 20 bytes are there.
    assert!(offset <= bytes.len() + 40, "{facts:?} of {}", bytes.len());
    if offset <= bytes.len() {
        says_the_same(parse::parse(&bytes[..offset], layer), &facts, 0);
    }
    if let Ok(again) = parse::parse([bytes, &[0xee; 64]].concat().as_slice(), layer) {
        assert_eq!(again.payload_offset, facts.payload_offset);
        assert!(again.payload_length >= facts.payload_length);
    }
}

/// Whether the payload was looked at, to see whether it is a tunnel's.
fn may_have_been_a_tunnel(facts: &Facts) -> bool {
    facts.tunnel.is_some() || port::is_tunnel(facts.destination_port)
}

/// Without its payload a packet says the same, but for what only the payload tells: what a datagram
/// to a tunnel's port is, and whether a PDU session carries Ethernet.
fn says_the_same(cut: Result<Facts, ParseFault>, whole: &Facts, payload_length: u32) {
    match cut {
        Ok(cut) if cut.payload_offset == whole.payload_offset => {
            assert_eq!(cut, Facts { payload_length, ..*whole });
        }
        Ok(_) | Err(_) => {
            assert!(may_have_been_a_tunnel(whole), "{cut:?} of {whole:?}");
        }
    }
}

fn image() -> TableImage {
    let set = rules::file::parse(&[("rules.yaml", RULES.as_bytes())]).expect("good rules");
    compile(&set, &["10.0.0.0/8".parse().expect("a pool")], 1).expect("compiles")
}

/// Every record that the packet path writes can be decoded.
pub(crate) fn classify(mut bytes: &[u8]) {
    static IMAGE: OnceLock<TableImage> = OnceLock::new();
    let layer = layer(input::byte(&mut bytes));
    let mut software = SoftwareClassifier::new(IMAGE.get_or_init(image).clone());
    for (index, packet) in input::pieces(bytes).into_iter().enumerate() {
        if let Some(record) = software.inspect(packet, layer, 1, 1 + index as u64 * 1_000_000) {
            let record = Record::decode(&record).expect("our own record");
            assert!(record.payload.len() <= record.payload_length as usize);
        }
    }
}

/// Any bytes are a record or are refused.
pub(crate) fn record(bytes: &[u8]) {
    if let Ok(record) = Record::decode(bytes) {
        assert!(record.payload.len() < bytes.len());
    }
}

/// A capture file of any bytes is read to an end, through every layer and every protocol.
pub(crate) fn capture(bytes: &[u8]) {
    let Ok(mut file) = CaptureFile::read(Cursor::new(bytes.to_vec())) else { return };
    let mut layers = Layers::default();
    let mut flows = Flows::new(Limits::CAPTURE);
    let mut facts = Vec::new();
    while let Ok(Some(frame)) = file.next_frame() {
        layers.frame(&frame, &mut |segment| flows.packet(segment, &mut facts));
    }
    flows.finish(&mut facts);
}
