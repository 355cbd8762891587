//! What a payload's start is: what rules can ask for in the kernel.

use super::{Notices, Watched};
use crate::{
    counter::Counter,
    event::PayloadKind,
    http::{self, HttpMethod},
    packet::{PacketBytes, Protocol},
    parse::Facts,
    request_gate,
    rule::row,
    state::{SessionState, State, UDP_FLOW_IDLE_NS},
    verifier::forget,
    wire::tcp_flag::{ACK, FIN, RST, SYN},
};

/// What a payload was recognised as.
pub(super) struct Found {
    pub(super) kind: PayloadKind,
    /// The kind as [`row::seen`] counts them.
    pub(super) row_kind: u32,
}

impl Found {
    const NOTHING: Self = Self { kind: PayloadKind::Other, row_kind: 0 };
    const TCP_OPENED: Self = Self { kind: PayloadKind::TcpOpened, row_kind: row::TCP_OPENED };
    const UDP_FIRST: Self = Self { kind: PayloadKind::UdpFirst, row_kind: row::UDP_FIRST };

    /// A request of this kind, see [`request_kind`].
    #[inline(always)]
    pub(super) const fn request(kind: u32) -> Self {
        Self { kind: PayloadKind::HttpRequest, row_kind: kind }
    }

    /// The row of rules that user space decides and that a request of a method without a body may match;
    /// that of all rules for anything else.
    #[inline(always)]
    pub(super) fn gate_row(&self) -> u32 {
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
        if BODILESS >> self.row_kind & 1 != 0 { row::gated(self.row_kind) } else { row::ALL }
    }
}

/// The kind (as [`row::seen`] counts them) of the HTTP request that a segment begins with, 0 for none.
/// Where its target starts goes into the draft.
#[inline(always)]
pub(super) fn request_kind<P: PacketBytes + ?Sized, S: State>(
    packet: &P,
    facts: &Facts,
    state: &mut S,
) -> u32 {
    if !matches!(facts.protocol, Protocol::Tcp) || facts.payload_length == 0 {
        return 0;
    }
    let Some(line) = http::request_line(packet, facts.payload_offset as usize) else { return 0 };
    let Some(draft) = state.draft() else { return 0 };
    draft.request_target = line.target_offset;
    forget(row::http(line.method), &mut draft.opaque)
}

/// What the packet is that rules can ask for; `request` is its [`request_kind`].
#[inline(always)]
pub(super) fn recognise<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    request: u32,
    state: &mut S,
    notices: &mut Notices,
) -> Found {
    let facts = watched.facts;
    match facts.protocol {
        Protocol::Udp => recognise_udp(watched, state),
        Protocol::Tcp => {
            if facts.tcp_flags & (SYN | FIN | RST) != 0
                && let Some(opened) = follow_connection(watched, session, state, notices)
            {
                return opened;
            }
            if request == 0 { Found::NOTHING } else { Found::request(request) }
        }
    }
}

#[inline(always)]
pub(super) fn recognise_udp<S: State>(watched: &Watched<'_>, state: &mut S) -> Found {
    if watched.application.tracks_udp == 0 {
        return Found::NOTHING;
    }
    let now = state.now_coarse();
    match state.mark_flow(now) {
        Some(last) if now.wrapping_sub(last) < UDP_FLOW_IDLE_NS => Found::NOTHING,
        Some(_) | None => Found::UDP_FIRST,
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
) -> Option<Found> {
    let facts = watched.facts;
    if facts.tcp_flags & SYN != 0 {
        if facts.tcp_flags & ACK != 0 {
            return Some(Found::NOTHING);
        }
        let before = state.mark_flow(u64::from(facts.sequence));
        if before == Some(u64::from(facts.sequence)) {
            state.count(Counter::Retransmissions, 1);
            return Some(Found::NOTHING);
        }
        if before.is_none() {
            state.add(&session.open_connections, 1);
        }
        return Some(Found::TCP_OPENED);
    }
    if state.unmark_flow() {
        state.add(&session.open_connections, u64::MAX); // minus one
        notices.quiet = session.open_connections.get() == 0 && session.start_ns.get() != 0;
    }
    None
}
