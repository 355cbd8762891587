//! Which rules match: rows of bits, ANDed.

use core::hint::black_box;

use super::{Seen, Watched};
use crate::{
    event::{MAX_MATCHES, PayloadKind},
    rule::{ROW_WORDS, Row, Tables, row},
    state::Draft,
};

/// ANDs the rows and writes the rules that are left into the record; gives how many more there
/// were than it has room for.
#[inline(always)]
pub(super) fn collect_rules<T: Tables>(draft: &mut Draft, tables: &T) -> u32 {
    let Some([a, b, c, d]) = load_rows(draft, tables) else { return 0 };
    draft.over = 0;
    let (mut word, last) = (draft.first_word as usize, draft.last_word as usize);
    for _ in 0..ROW_WORDS {
        if word > last {
            break;
        }
        let at = word % ROW_WORDS;
        let mut bits = a.0[at] & b.0[at] & c.0[at] & d.0[at];
        for _ in 0..MAX_MATCHES {
            if bits == 0 {
                break;
            }
            push_rule(black_box(&mut *draft), (at as u16) * 64 + bits.trailing_zeros() as u16);
            bits &= bits - 1;
        }
        if bits != 0 {
            black_box(&mut *draft).over += bits.count_ones();
        }
        word += 1;
    }
    draft.over
}

/// Adds a rule to the record. The count stays in memory: the verifier would walk the rest of the
/// words once for each count that it knew.
#[inline(always)]
pub(super) fn push_rule(draft: &mut Draft, rule: u16) {
    let count = usize::from(draft.record.rule_count);
    match draft.record.rules.get_mut(count) {
        Some(place) => {
            *place = rule;
            draft.record.rule_count += 1;
        }
        None => draft.over += 1,
    }
}

/// Place of the path's row among [`Draft::rows`].
pub(super) const PATH_ROW: usize = 2;

/// Numbers of the rows whose AND are the rules that match; [`PATH_ROW`] is looked up later.
#[inline(always)]
pub(super) fn rows(watched: &Watched<'_>, seen: &Seen, request_kind: u32) -> [u32; 4] {
    let kind = match seen.kind {
        PayloadKind::HttpRequest => request_kind,
        PayloadKind::UdpFirst => row::UDP_FIRST,
        // Of what is nothing, no row is looked at.
        PayloadKind::TcpOpened | PayloadKind::Other => row::TCP_OPENED,
    };
    let kind = row::seen(kind, watched.direction, seen.start != 0);
    [watched.application.row, kind, row::ALL, seen.ue_row]
}

#[inline(always)]
pub(super) fn load_rows<'t, T: Tables>(draft: &Draft, tables: &'t T) -> Option<[&'t Row; 4]> {
    Some([
        tables.row(draft.rows[0])?,
        tables.row(draft.rows[1])?,
        tables.row(draft.rows[2])?,
        tables.row(draft.rows[3])?,
    ])
}
