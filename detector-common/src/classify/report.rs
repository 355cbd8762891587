//! What becomes of rules that match: sent again, held back, or on their way to the agent.

use core::hint::black_box;

use super::{
    matching::{PATH_ROW, collect_rules},
    record::{complete_record, time_of},
};
use crate::{
    counter::{Counter, RuleCounter},
    event::{
        FLAG_BEHIND_GAP, FLAG_IMPORTANT, FLAG_INSPECT, FLAG_SESSION_QUIET, FLAG_SESSION_STARTED,
        MAX_MATCHES, MAX_SEGMENT, PayloadKind,
    },
    inspect, lookup,
    packet::{PacketBytes, Protocol},
    parse::Facts,
    request_gate,
    rule::{Generation, Tables, row},
    state::{Draft, State},
    wire::tcp_flag::SYN,
};

/// Finds the rules that match and sends the record if it says anything. All it knows of the packet
/// it reads from the draft, see [`crate::verifier`].
#[inline(always)]
pub(super) fn report<P: PacketBytes + ?Sized, T: Tables, S: State>(
    packet: &P,
    facts: &Facts,
    (head, ifindex): (&Generation, u32),
    tables: &T,
    state: &mut S,
) {
    let Some(draft) = state.draft() else { return };
    let draft = black_box(draft);
    if draft.record.payload_kind == PayloadKind::HttpRequest as u8 {
        draft.rows[PATH_ROW] = lookup::path(tables, head, packet, draft.request_target as usize);
    }
    let mut inspect = draft.record.flags & FLAG_INSPECT != 0;
    if draft.gate_row != row::ALL && request_gate::keeps_out(packet, facts, draft, tables) {
        inspect = false;
        draft.record.flags &= !(FLAG_INSPECT | FLAG_BEHIND_GAP);
        let direction = draft.record.direction;
        inspect::hide(facts, direction, state);
    }
    let Some(draft) = state.draft() else { return };
    let notices = draft.record.flags & (FLAG_SESSION_STARTED | FLAG_SESSION_QUIET) != 0;
    let mut capture = 0;
    if draft.record.payload_kind != PayloadKind::Other as u8 {
        let over = collect_rules(draft, tables);
        let any = draft.record.rule_count != 0;
        if over != 0 {
            state.count(Counter::MatchesOverLimit, u64::from(over));
        }
        if any {
            capture = admit(facts, tables, state);
        }
    }
    let Some(Draft { record, .. }) = state.draft() else { return };
    if record.rule_count == 0 && !notices && !inspect {
        return;
    }
    if inspect {
        capture = MAX_SEGMENT;
    }
    complete_record(record, packet, facts, head.generation, ifindex);
    let sent = state.send(facts, capture);
    if inspect {
        state.count(if sent { Counter::Inspected } else { Counter::InspectRingFull }, 1);
    }
    if !sent {
        count_lost(notices, state);
    }
}

/// Counts the record's rules and leaves those in it that may become events now: none if the
/// segment was sent again, and not those whose window is open. Gives the bytes to capture.
#[inline(always)]
pub(super) fn admit<T: Tables, S: State>(facts: &Facts, tables: &T, state: &mut S) -> usize {
    let again = is_retransmission(facts, state);
    if again {
        state.count(Counter::Retransmissions, 1);
    }
    let mut capture = 0;
    let mut kept = 0;
    for index in 0..MAX_MATCHES {
        let Some(Draft { record, .. }) = state.draft() else { return 0 };
        if again || index >= usize::from(record.rule_count) {
            break;
        }
        let rule = record.rules[index];
        let Some(entry) = tables.rule(u32::from(rule)) else { continue };
        state.count_rule(u32::from(rule), RuleCounter::Matched);
        if entry.window_ns != 0 {
            let now = time_of(state);
            if state.suppress(entry.id, now, entry.window_ns) {
                state.count_rule(u32::from(rule), RuleCounter::Suppressed);
                continue;
            }
        }
        let Some(Draft { record, .. }) = state.draft() else { return 0 };
        record.rules[kept % MAX_MATCHES] = rule;
        if entry.important != 0 {
            record.flags |= FLAG_IMPORTANT;
        }
        kept += 1;
        capture = capture.max(entry.capture as usize);
    }
    if let Some(Draft { record, .. }) = state.draft() {
        record.rule_count = kept as u8;
    }
    capture
}

/// Whether this segment matched before. UDP has no retransmissions that can be told from new
/// packets, and a SYN sent again was sorted out by its flow.
#[inline(always)]
pub(super) fn is_retransmission<S: State>(facts: &Facts, state: &mut S) -> bool {
    if !matches!(facts.protocol, Protocol::Tcp) || facts.tcp_flags & SYN != 0 {
        return false;
    }
    let Some(Draft { record, .. }) = state.draft() else { return false };
    let direction = u64::from(record.direction);
    let flow = state.flow();
    let ports = (u64::from(flow.ue_port) << 48)
        | (u64::from(flow.application_port) << 32)
        | u64::from(facts.sequence);
    let application = flow.application_address.0[0] ^ flow.application_address.0[1];
    let ue = flow.ue.0[0] ^ flow.ue.0[1];
    let addresses =
        application.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ ue.wrapping_mul(0xd6e8_feb8_6659_fd93);
    // Never 0, which marks a free place; the direction, because both ends count on their own.
    state.seen_before((ports ^ addresses ^ direction) | (1 << 63))
}

/// Counts what a full ring buffer lost.
#[inline(always)]
pub(super) fn count_lost<S: State>(notices: bool, state: &mut S) {
    if notices {
        state.count(Counter::NoticeRingFull, 1);
    }
    for index in 0..MAX_MATCHES {
        let Some(Draft { record, .. }) = state.draft() else { return };
        if index >= usize::from(record.rule_count) {
            return;
        }
        let rule = u32::from(record.rules[index]);
        state.count_rule(rule, RuleCounter::RingFull);
    }
}
