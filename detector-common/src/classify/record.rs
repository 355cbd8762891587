//! The record: what the agent is told of a packet.

use super::{Seen, Watched};
use crate::{
    event::{
        FLAG_QFI, FLAG_SESSION_STARTED, FLAG_TUNNEL, MAX_SEGMENT, MAX_VLANS, NOT_YET,
        RECORD_VERSION, RecordHeader,
    },
    packet::PacketBytes,
    parse::Facts,
    state::State,
    wire::VLAN_ID,
};

/// What it takes to find the rules that match. Nearly all requests match none.
#[inline(always)]
pub(super) fn begin_record(record: &mut RecordHeader, watched: &Watched<'_>, seen: &Seen) {
    let notices = seen.notices;
    record.payload_kind = seen.kind as u8;
    let (inspect, late) = notices.inspect.told();
    record.flags = inspect | notices.session;
    record.late = late;
    let started = notices.session & FLAG_SESSION_STARTED != 0;
    record.time_ns = if started { seen.start } else { NOT_YET };
    record.session_start_ns = seen.start;
    record.direction = watched.direction as u8;
    record.rule_count = 0;
    record.application = watched.application.id;
}

/// The rest, of a record that is sent.
#[inline(always)]
pub(super) fn complete_record<P: PacketBytes + ?Sized>(
    record: &mut RecordHeader,
    packet: &P,
    facts: &Facts,
    generation: u32,
    ifindex: u32,
) {
    record.version = RECORD_VERSION;
    record.qfi = facts.tunnel.qfi();
    record.teid = facts.tunnel.teid();
    record.gtpu_message_type = facts.tunnel.message_type();
    if facts.tunnel.is_some() {
        record.flags |= FLAG_TUNNEL;
    }
    if facts.tunnel.has_qfi() {
        record.flags |= FLAG_QFI;
    }
    record.tcp_flags = facts.tcp_flags;
    record.sequence = facts.sequence;
    record.packet_length = packet.size() as u32;
    record.payload_length = facts.payload_length;
    record.vlan = vlans(packet, facts);
    record.ifindex = ifindex;
    record.generation = generation;
    record.captured = 0;
}

/// When the packet came.
#[inline(always)]
pub(super) fn time_of<S: State>(state: &mut S) -> u64 {
    let known = state.draft().map_or(NOT_YET, |draft| draft.record.time_ns);
    if known != NOT_YET {
        return known;
    }
    let now = state.now();
    if let Some(draft) = state.draft() {
        draft.record.time_ns = now;
    }
    now
}

/// The packet's VLANs, outermost first: a tag that was taken off stood before those in the frame.
#[inline(always)]
fn vlans<P: PacketBytes + ?Sized>(packet: &P, facts: &Facts) -> [u16; MAX_VLANS] {
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
