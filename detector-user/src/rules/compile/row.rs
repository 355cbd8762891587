//! Rows: a bit for each rule that one value of one dimension allows.

use detector_common::{
    http::HttpMethod,
    packet::Direction,
    rule::{Row, row},
};

use super::{Builder, gate::Gate};
use crate::rules::model::{Rule, Signature};

impl Builder<'_> {
    /// The row of the rules for which `wanted` holds.
    pub(super) fn select(&self, wanted: impl Fn(&Rule) -> bool) -> Row {
        let mut row = Row::NONE;
        for (number, rule) in self.set.rules.iter().enumerate() {
            if wanted(rule) {
                row.0[number / 64] |= 1 << (number % 64);
            }
        }
        row
    }

    /// The row of the rules whose signature is such.
    pub(super) fn select_signature(&self, wanted: impl Fn(&Signature) -> bool) -> Row {
        select_some(&self.signatures, wanted)
    }

    /// The row of the rules that user space decides and whose gate is such.
    pub(super) fn select_gate(&self, wanted: impl Fn(&Gate) -> bool) -> Row {
        select_some(&self.gates, wanted)
    }

    /// The number of a row; equal rows share one.
    pub(super) fn row_number(&mut self, row: Row) -> u32 {
        let rows = &mut self.rows;
        *self.row_numbers.entry(row).or_insert_with(|| {
            rows.push(row);
            rows.len() as u32 - 1
        })
    }

    /// The rows that every generation has.
    pub(super) fn fixed_rows(&mut self) {
        let mut rows = vec![Row::NONE; row::FIRST_FREE as usize];
        rows[row::ALL as usize] = Row::ALL;
        for direction in [Direction::Uplink, Direction::Downlink] {
            for in_session in [false, true] {
                let mut seen = |kind, wanted: &dyn Fn(&Signature) -> bool| {
                    let number = row::seen(kind, direction, in_session) as usize;
                    rows[number] = self.select_signature(wanted).and(&self.select(|rule| {
                        rule.direction.is_none_or(|wanted| wanted == direction)
                            && (in_session || !rule.needs_session)
                    }));
                };
                seen(row::TCP_OPENED, &|signature| *signature == Signature::TcpOpened);
                seen(row::UDP_FIRST, &|signature| *signature == Signature::UdpFirstPacket);
                for method in HttpMethod::ALL {
                    seen(row::http(method), &|signature| allows_method(signature, method));
                }
            }
        }
        for method in HttpMethod::ALL {
            rows[row::gated(row::http(method)) as usize] =
                self.select_gate(|gate| gate.allows_method(method));
        }
        rows[row::ANY_PATH as usize] = self.path_row(b"");
        rows[row::ANY_UE as usize] = self.select(|rule| rule.ue.is_empty());
        self.rows = rows;
    }
}

/// The row of the rules that have what is wanted.
fn select_some<T>(of_rules: &[Option<T>], wanted: impl Fn(&T) -> bool) -> Row {
    let mut row = Row::NONE;
    for (number, found) in of_rules.iter().enumerate() {
        if found.as_ref().is_some_and(&wanted) {
            row.0[number / 64] |= 1 << (number % 64);
        }
    }
    row
}

/// Whether a request of this method may match.
fn allows_method(signature: &Signature, method: HttpMethod) -> bool {
    match signature {
        Signature::HttpRequest(http) => http.methods.is_empty() || http.methods.contains(&method),
        Signature::TcpOpened
        | Signature::UdpFirstPacket
        | Signature::SessionStarted
        | Signature::SessionEnded => false,
    }
}

/// The numbers of the words of a row that are not 0.
pub(super) fn words_used(row: &Row) -> impl Iterator<Item = u32> + Clone {
    let used = row.0.into_iter().zip(0..).filter(|(bits, _)| *bits != 0);
    used.map(|(_, word)| word)
}
