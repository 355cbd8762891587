//! What the rules of an application need user space to see: see [`detector_common::inspect`].

use detector_common::{
    inspect::want,
    packet::Direction,
    rule::{ApplicationEntry, MAX_PATTERNS, Pattern},
};

use super::{
    model::{Rule, Signature},
    term::{MessageKind, PayloadTerm, PiecePlace},
};

/// The application's bits and patterns; everything else of the entry is left at zero.
pub(super) fn inspection<'a>(rules: impl Iterator<Item = &'a Rule>) -> ApplicationEntry {
    let mut bits = 0;
    let mut patterns = Some(Vec::new());
    for rule in rules {
        bits |= match rule.signature() {
            Some(Signature::HttpRequest(_)) => want::CUT_REQUESTS,
            Some(
                Signature::TcpOpened
                | Signature::UdpFirstPacket
                | Signature::SessionStarted
                | Signature::SessionEnded,
            ) => 0,
            None if rule.priority > 0 && !rule.needs().sums => shown_for(rule) | want::IMPORTANT,
            None => shown_for(rule),
        };
        if rule.needs().payload_start {
            collect(rule.terms.payload.as_ref(), &mut patterns);
        }
    }
    // One rule without fixed bytes, or too many of them: every payload is shown.
    let patterns = patterns.filter(|found| found.len() <= MAX_PATTERNS).unwrap_or_default();
    let mut entry = ApplicationEntry {
        inspect: bits,
        pattern_count: patterns.len() as u16,
        ..ApplicationEntry::default()
    };
    for (place, pattern) in entry.patterns.iter_mut().zip(patterns) {
        *place = pattern;
    }
    entry
}

/// What a rule that user space decides must be shown.
fn shown_for(rule: &Rule) -> u32 {
    let needs = rule.needs();
    if needs.sums {
        return 0;
    }
    let mut bits = match rule.direction {
        Some(Direction::Uplink) => want::UPLINK,
        Some(Direction::Downlink) if !answers(rule) => want::DOWNLINK,
        Some(Direction::Downlink) => want::UPLINK | want::DOWNLINK,
        None => want::UPLINK | want::DOWNLINK,
    };
    let all = [
        (needs.opened || needs.closed || needs.idle.is_some(), want::FLOW_ENDS),
        (needs.udp_first, want::UDP_FIRST),
        (needs.tcp_flags, want::TCP_FLAGS),
        (needs.payload_start, want::PAYLOAD),
        (needs.streams, want::STREAMS),
        (needs.gtpu_control, want::GTPU_CONTROL),
    ];
    bits |= all.iter().filter(|(is_needed, _)| *is_needed).fold(0, |bits, (_, bit)| bits | bit);
    let Some(message) = &rule.terms.message else { return bits };
    bits | match message.kind() {
        MessageKind::Dns => want::DNS,
        MessageKind::Http => want::HTTP,
        MessageKind::Tls => want::TLS,
        MessageKind::Quic => want::QUIC,
        MessageKind::Mqtt => want::MQTT,
        MessageKind::Coap => want::COAP,
    }
}

/// Whether what an application says is understood only with what the user said before: a response by
/// its request, an MQTT packet by the client id in CONNECT.
fn answers(rule: &Rule) -> bool {
    let Some(message) = &rule.terms.message else { return false };
    match message.kind() {
        MessageKind::Http | MessageKind::Mqtt | MessageKind::Coap => true,
        MessageKind::Dns | MessageKind::Tls | MessageKind::Quic => false,
    }
}

/// Adds the bytes with which payloads must begin for the term; without any, all are to be shown.
fn collect(term: Option<&PayloadTerm>, patterns: &mut Option<Vec<Pattern>>) {
    let found: Option<Vec<Pattern>> =
        term.and_then(|term| term.any.iter().map(|any| any.all.iter().find_map(fixed)).collect());
    match (patterns.as_mut(), found) {
        (Some(patterns), Some(found)) => {
            for pattern in found {
                if !patterns.contains(&pattern) {
                    patterns.push(pattern);
                }
            }
        }
        (Some(_), None) => *patterns = None,
        (None, _) => {}
    }
}

/// The first eight bytes of a piece that stands at a fixed place.
fn fixed(piece: &super::term::PayloadPiece) -> Option<Pattern> {
    let PiecePlace::At(offset) = piece.place else { return None };
    let (mut value, mut mask) = ([0; 8], [0; 8]);
    for (index, (byte, bits)) in piece.bytes.iter().zip(&piece.mask).take(8).enumerate() {
        (value[index], mask[index]) = (*byte, *bits);
    }
    Some(Pattern {
        mask: u64::from_ne_bytes(mask),
        value: u64::from_ne_bytes(value),
        offset: offset.into(),
        reserved: 0,
    })
}
