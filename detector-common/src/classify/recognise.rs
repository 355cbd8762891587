//! What a payload's start is: what rules can ask for in the kernel.

use super::{Notices, Watched};
use crate::{
    counter::Counter,
    event::{FLAG_SESSION_QUIET, PayloadKind},
    http::{self, HttpMethod},
    packet::{PacketBytes, Protocol},
    parse::Facts,
    request_gate,
    rule::row,
    state::{SessionState, State, UDP_FLOW_IDLE_NS},
    wire::tcp_flag::{ACK, FIN, RST, SYN},
};

/// The row of rules that user space decides and that a request of a method without a body may match;
/// that of all rules for anything else.
#[inline(always)]
pub(super) fn gate_row(kind: PayloadKind, request_kind: u32) -> u32 {
    const BODILESS: u32 = {
        let (mut kinds, mut at) = (0, 0);
        while at < HttpMethod::ALL.len() {
            if request_gate::is_bodiless(HttpMethod::ALL[at]) {
                kinds |= 1 << row::http(HttpMethod::ALL[at]);
            }
            at += 1;
        }
        kinds
    };
    let bodiless = matches!(kind, PayloadKind::HttpRequest) && BODILESS >> request_kind & 1 != 0;
    if bodiless { row::gated(request_kind) } else { row::ALL }
}

/// Whether a segment begins with an HTTP request. Its method, and where its target starts, go into the draft:
/// nobody needs them at once, and by then the verifier does not know which of the methods it was.
#[inline(always)]
pub(super) fn begins_request<P: PacketBytes + ?Sized, S: State>(
    packet: &P,
    facts: &Facts,
    state: &mut S,
) -> bool {
    if !matches!(facts.protocol, Protocol::Tcp) || facts.payload_length == 0 {
        return false;
    }
    let line = http::request_line(packet, facts.payload_offset as usize);
    let (Some(line), Some(draft)) = (line, state.draft()) else { return false };
    draft.request_target = line.target_offset;
    draft.request_kind = row::http(line.method);
    true
}

/// What the packet is that rules can ask for; `request` says whether it begins with one.
#[inline(always)]
pub(super) fn recognise<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    request: bool,
    state: &mut S,
    notices: &mut Notices,
) -> PayloadKind {
    let facts = watched.facts;
    match facts.protocol {
        Protocol::Udp => recognise_udp(watched, state),
        Protocol::Tcp => {
            if facts.tcp_flags & (SYN | FIN | RST) != 0
                && let Some(opened) = follow_connection(watched, session, state, notices)
            {
                return opened;
            }
            if request { PayloadKind::HttpRequest } else { PayloadKind::Other }
        }
    }
}

#[inline(always)]
pub(super) fn recognise_udp<S: State>(watched: &Watched<'_>, state: &mut S) -> PayloadKind {
    if watched.application.tracks_udp == 0 {
        return PayloadKind::Other;
    }
    let now = state.now_coarse();
    match state.mark_flow(now) {
        Some(last) if now.wrapping_sub(last) < UDP_FLOW_IDLE_NS => PayloadKind::Other,
        Some(_) | None => PayloadKind::UdpFirst,
    }
}

/// Keeps count of a session's TCP connections. For a SYN, what it is: one that is sent again is
/// known by its sequence number.
#[inline(always)]
pub(super) fn follow_connection<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    state: &mut S,
    notices: &mut Notices,
) -> Option<PayloadKind> {
    let facts = watched.facts;
    if facts.tcp_flags & SYN != 0 {
        if facts.tcp_flags & ACK != 0 {
            return Some(PayloadKind::Other);
        }
        let before = state.mark_flow(u64::from(facts.sequence));
        if before == Some(u64::from(facts.sequence)) {
            state.count(Counter::Retransmissions, 1);
            return Some(PayloadKind::Other);
        }
        if before.is_none() {
            state.add(&session.open_connections, 1);
        }
        return Some(PayloadKind::TcpOpened);
    }
    if state.unmark_flow() {
        state.add(&session.open_connections, u64::MAX); // minus one
        if session.open_connections.get() == 0 && session.start_ns.get() != 0 {
            notices.session |= FLAG_SESSION_QUIET;
        }
    }
    None
}
