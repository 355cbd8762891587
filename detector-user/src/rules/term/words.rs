//! Protocols' words for numbers.

use schemars::Schema;

use crate::yaml::{did_you_mean, one_of};

/// A standard's names and their numbers.
pub(super) struct Words<N: 'static> {
    /// What they are, e.g. `record type`.
    pub(super) what: &'static str,
    /// Name and number, as the standard writes them.
    pub(super) table: &'static [(&'static str, N)],
}

impl<N: Copy + PartialEq> Words<N> {
    /// The number of a name; the nearest name is offered for any other word.
    pub(super) fn find(&self, word: &str, expected: &str) -> Result<N, String> {
        let found = self.table.iter().find(|(name, _)| *name == word).map(|(_, number)| *number);
        found.ok_or_else(|| {
            let shown: String = word.chars().take(80).collect();
            let nearest = did_you_mean(word, self.table.iter().map(|(name, _)| *name));
            format!("unknown {} \"{shown}\"; expected {expected}{nearest}", self.what)
        })
    }

    /// The first name of a number.
    pub(super) fn name(&self, number: N) -> Option<&'static str> {
        self.table.iter().find(|(_, known)| *known == number).map(|(name, _)| *name)
    }

    /// All names, for messages.
    pub(super) fn all(&self) -> String {
        one_of(&self.table.iter().map(|(name, _)| *name).collect::<Vec<_>>())
    }

    /// A schema that knows the names and also takes numbers.
    pub(super) fn schema(&self) -> Schema {
        let names: Vec<&str> = self.table.iter().map(|(name, _)| *name).collect();
        schemars::json_schema!({
            "anyOf": [{"type": "string", "enum": names}, {"type": ["string", "number"]}],
        })
    }

    /// A schema that knows only the names.
    pub(super) fn names_only(&self) -> Schema {
        let names: Vec<&str> = self.table.iter().map(|(name, _)| *name).collect();
        schemars::json_schema!({"type": "string", "enum": names})
    }
}
