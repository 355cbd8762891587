//! What a rule that user space decides says about method and path: requests of an application that none
//! of its rules can match stay out of the ring, see [`detector_common::request_gate`].

use std::collections::BTreeSet;

use detector_common::{
    http::{HttpMethod, PATH_PREFIX_LENGTHS},
    inspect::want,
};

use crate::rules::model::Rule;

/// A rule with more different beginnings of paths is looked up by its methods only: a thousand rules of
/// many paths each would fill the table.
const MAX_STARTS: usize = 4;

/// The requests that a rule may match.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Gate {
    /// One of these methods; empty is any.
    methods: Vec<HttpMethod>,
    /// The path begins with one of these, cut to what the packet path looks up; empty is any.
    starts: BTreeSet<Vec<u8>>,
}

impl Gate {
    /// Of a rule that is on requests and decided in user space.
    pub(super) fn of(rule: &Rule) -> Option<Self> {
        let http = rule.terms.http().filter(|http| !http.is_response())?;
        if rule.signature().is_some() {
            return None;
        }
        let starts: Option<BTreeSet<Vec<u8>>> = http
            .paths
            .iter()
            .map(|path| path.starts().and_then(cut))
            .collect::<Option<Vec<_>>>()
            .map(|all| all.into_iter().flatten().collect());
        let starts = starts.filter(|starts| starts.len() <= MAX_STARTS).unwrap_or_default();
        Some(Self { methods: http.methods.clone(), starts })
    }

    /// Whether it lets everything pass.
    fn is_open(&self) -> bool {
        self.methods.is_empty() && self.starts.is_empty()
    }

    /// The beginnings of paths that are looked up for it.
    pub(super) fn starts(&self) -> impl Iterator<Item = &[u8]> {
        self.starts.iter().map(Vec::as_slice)
    }

    /// Whether a request whose path begins with `start` (a table prefix, or nothing) may match.
    pub(super) fn allows_path(&self, start: &[u8]) -> bool {
        self.starts.is_empty() || self.starts().any(|wanted| start.starts_with(wanted))
    }

    /// Whether a request of this method may match.
    pub(super) fn allows_method(&self, method: HttpMethod) -> bool {
        self.methods.is_empty() || self.methods.contains(&method)
    }
}

/// Beginnings of paths, cut to lengths that the packet path looks up; `None` if one is too short.
fn cut(starts: Vec<String>) -> Option<Vec<Vec<u8>>> {
    let cut = |start: String| {
        let length = PATH_PREFIX_LENGTHS.into_iter().find(|length| *length <= start.len())?;
        Some(start.as_bytes()[..length].to_vec())
    };
    starts.into_iter().map(cut).collect()
}

/// Whether requests of an application are kept out: where user space follows its streams for rules on
/// requests only, none of which is on every request. `inspect` is what all its rules want to be shown.
pub(super) fn closed<'a, 'g>(
    inspect: u32,
    rules: impl Iterator<Item = (&'a Rule, Option<&'g Gate>)>,
) -> bool {
    let mut of_streams = rules.filter(|(rule, _)| rule.needs().streams);
    let closed = of_streams.all(|(_, gate)| gate.is_some_and(|gate| !gate.is_open()));
    // For their flags all segments are shown.
    closed && inspect & (want::HTTP | want::TCP_FLAGS) == want::HTTP
}

#[cfg(test)]
mod tests;
