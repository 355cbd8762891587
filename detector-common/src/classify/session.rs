//! The session of a packet: found or begun, and counted.

use super::{Notices, Watched};
use crate::{
    counter::Counter,
    event::FLAG_SESSION_STARTED,
    lookup,
    packet::Direction,
    rule::{Generation, IN_UE_POOL, Tables},
    state::{SessionState, State},
};

/// When the session began: now, if this is the UE's first packet; 0 while the UE has not spoken.
#[inline(always)]
pub(super) fn start_of<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    state: &S,
    notices: &mut Notices,
) -> u64 {
    let start = session.start_ns.get();
    if start != 0 || matches!(watched.direction, Direction::Downlink) {
        return start;
    }
    let now = state.now();
    session.start_ns.set(now);
    state.count(Counter::SessionsStarted, 1);
    notices.session |= FLAG_SESSION_STARTED;
    now
}

#[inline(always)]
pub(super) fn count_packet<S: State>(
    watched: &Watched<'_>,
    session: &SessionState,
    state: &S,
) -> u64 {
    state.count(Counter::Watched, 1);
    let at = watched.direction as usize;
    state.add(&session.packets[at], 1);
    state.add(&session.bytes[at], u64::from(watched.packet_length));
    let now = state.now_coarse();
    session.last_ns.set(now);
    now
}

/// The session, made if need be. The UE is looked up once per session and generation of rules.
#[inline(always)]
pub(super) fn find_session<T: Tables, S: State>(
    tables: &T,
    head: &Generation,
    state: &mut S,
) -> Result<S::Session, Counter> {
    let known = state.session();
    if let Some(session) = known.as_ref()
        && session.judged_under(head.generation).is_some()
    {
        return known.ok_or(Counter::SessionTableFull);
    }
    let ue = lookup::ue(tables, head, state.flow().ue);
    if head.has_ue_pools != 0 && ue & IN_UE_POOL == 0 {
        return Err(Counter::NotUe);
    }
    let word = SessionState::ue_word(head.generation, ue & !IN_UE_POOL);
    match known {
        Some(session) => {
            session.ue.set(word);
            Ok(session)
        }
        None => state.create_session(word).ok_or(Counter::SessionTableFull),
    }
}
