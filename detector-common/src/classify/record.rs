//! The record: what the agent is told of a packet.

use super::{Seen, Watched};
use crate::{
    event::{
        FLAG_QFI, FLAG_SESSION_QUIET, FLAG_SESSION_STARTED, FLAG_TUNNEL, MAX_SEGMENT, MAX_VLANS,
        RECORD_VERSION, RecordHeader,
    },
    packet::PacketBytes,
    parse::Facts,
    wire::VLAN_ID,
};

#[inline(always)]
pub(super) fn fill_record(record: &mut RecordHeader, watched: &Watched<'_>, seen: &Seen, now: u64) {
    let facts = watched.facts;
    let notices = seen.notices;
    record.version = RECORD_VERSION;
    record.payload_kind = seen.found.kind as u8;
    record.flags = 0;
    record.qfi = facts.tunnel.qfi();
    record.teid = facts.tunnel.teid();
    record.gtpu_message_type = facts.tunnel.message_type();
    if facts.tunnel.is_some() {
        record.flags |= FLAG_TUNNEL;
    }
    if facts.tunnel.has_qfi() {
        record.flags |= FLAG_QFI;
    }
    if notices.started {
        record.flags |= FLAG_SESSION_STARTED;
    }
    if notices.quiet {
        record.flags |= FLAG_SESSION_QUIET;
    }
    let (flags, late) = notices.inspect.told();
    record.flags |= flags;
    record.late = late;
    record.tcp_flags = facts.tcp_flags;
    record.time_ns = now;
    record.session_start_ns = seen.start;
    record.direction = watched.direction as u8;
    record.rule_count = 0;
    record.application = watched.application.id;
    record.sequence = facts.sequence;
    record.packet_length = watched.packet_length;
    record.payload_length = facts.payload_length;
    record.captured = 0;
}

/// The packet's VLANs, outermost first: a tag that was taken off stood before those in the frame.
#[inline(always)]
pub(super) fn vlans<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> [u16; MAX_VLANS] {
    let [outer, inner] = facts.vlan;
    match packet.vlan_metadata() {
        Some(control) => [control & VLAN_ID, outer, inner],
        None => [outer, inner, 0],
    }
}

/// How many payload bytes a record carries: what the rules ask for, as far as it is there.
#[inline(always)]
pub fn capture_length(facts: &Facts, capture: usize) -> usize {
    capture.min(facts.payload_length as usize).min(MAX_SEGMENT)
}
