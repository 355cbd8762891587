//! What the operator wants: which devices, which hook, which traffic.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest device name: `IFNAMSIZ` (16) without the closing NUL.
const NAME_MAX: usize = 15;

/// One entry of the configuration's device list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceWish {
    /// Which devices.
    pub pattern: DevicePattern,
    /// Where received packets are taken.
    pub hook: Hook,
    /// Received packets, sent packets, or both.
    pub directions: Directions,
}

impl DeviceWish {
    /// Everything these devices receive and send, at the best hook there is.
    pub fn new(pattern: DevicePattern) -> Self {
        Self { pattern, hook: Hook::Auto, directions: Directions::Both }
    }
}

/// Where *received* packets are taken. Sent packets have one hook only, TC egress, whatever
/// stands here.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Hook {
    /// The best that works: native XDP, then generic XDP, then TC ingress.
    #[default]
    Auto,
    /// Native XDP (in the driver) or nothing.
    Xdp,
    /// Generic XDP (in the network stack, any driver) or nothing.
    XdpGeneric,
    /// TC ingress.
    Tc,
}

/// Which of a device's packets are looked at.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    Hash,
    Serialize,
    Deserialize,
    JsonSchema,
    clap::ValueEnum,
)]
#[serde(rename_all = "kebab-case")]
pub enum Directions {
    /// What the device receives and what it sends.
    #[default]
    Both,
    /// Only what it receives.
    Receive,
    /// Only what it sends.
    Send,
}

/// A device name, or a pattern over names with `*`, `?` and `[...]`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DevicePattern(glob::Pattern);

impl DevicePattern {
    /// Does it name this device?
    pub fn matches(&self, name: &str) -> bool {
        self.0.matches(name)
    }

    /// The device it names, if it is a plain name: such a device is missed when it is not there.
    pub fn as_name(&self) -> Option<&str> {
        let text = self.0.as_str();
        (!text.contains(['*', '?', '['])).then_some(text)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        self.0.as_str()
    }
}

impl fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

/// Why a device name or pattern cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum PatternError {
    /// Nothing there.
    #[error("a device name is empty; write a name such as `n6` or a pattern such as `n6*`")]
    Empty,
    /// The kernel could never have such a device.
    #[error("`{0}` is longer than {NAME_MAX} characters, the longest name Linux gives a device")]
    TooLong(String),
    /// Directories, and so refused by the kernel.
    #[error("`{0}` is no device name; `ip link` lists the names there are")]
    Dots(String),
    /// The kernel refuses these in names (`dev_valid_name`).
    #[error("`{0}` holds {1:?}, which no device name can; `ip link` lists the names there are")]
    Character(String, char),
    /// An unclosed `[` or the like.
    #[error("`{0}` is not a pattern: {1}; use `*`, `?` and `[a-z]`")]
    Syntax(String, String),
}

impl FromStr for DevicePattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        if text.is_empty() {
            return Err(PatternError::Empty);
        }
        if matches!(text, "." | "..") {
            return Err(PatternError::Dots(text.into()));
        }
        // dev_valid_name(): no slash, no colon, no white space. Nobody means a control character.
        let bad = |c: &char| matches!(c, '/' | ':') || c.is_whitespace() || c.is_control();
        if let Some(bad) = text.chars().find(bad) {
            return Err(PatternError::Character(text.into(), bad));
        }
        let pattern = glob::Pattern::new(text)
            .map(Self)
            .map_err(|error| PatternError::Syntax(text.into(), error.msg.into()))?;
        match least_length(text) > NAME_MAX {
            true => Err(PatternError::TooLong(text.into())),
            false => Ok(pattern),
        }
    }
}

/// Bytes of the shortest name that fits: a `[...]` stands for at least one, a `*` for none.
fn least_length(pattern: &str) -> usize {
    let mut length = 0;
    let mut rest = pattern;
    while let Some(first) = rest.chars().next() {
        rest = &rest[first.len_utf8()..];
        length += match first {
            '*' => 0,
            '?' => 1,
            '[' => {
                // `]` right after `[` or `[!` is one of the letters.
                let inside = rest.strip_prefix('!').unwrap_or(rest);
                let end = inside.char_indices().skip(1).find(|(_, c)| *c == ']');
                rest = end.map_or("", |(at, _)| &inside[at + 1..]);
                1
            }
            other => other.len_utf8(),
        };
    }
    length
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plain_name_matches_only_itself() {
        let n6: DevicePattern = "n6".parse().unwrap();
        assert!(n6.matches("n6"));
        assert!(!n6.matches("n60"));
        assert_eq!(n6.as_name(), Some("n6"));
    }

    #[test]
    fn a_pattern_matches_many_and_names_none() {
        let pattern: DevicePattern = "ogstun[0-9]*".parse().unwrap();
        assert!(pattern.matches("ogstun2"));
        assert!(pattern.matches("ogstun10"));
        assert!(!pattern.matches("ogstun"));
        assert_eq!(pattern.as_name(), None);
    }

    #[test]
    fn names_the_kernel_refuses_are_refused_with_the_reason() {
        let error = |text: &str| text.parse::<DevicePattern>().unwrap_err();
        assert_eq!(error(""), PatternError::Empty);
        assert_eq!(error("a/b"), PatternError::Character("a/b".into(), '/'));
        assert_eq!(error("a b"), PatternError::Character("a b".into(), ' '));
        assert_eq!(error(".."), PatternError::Dots("..".into()));
        assert!(matches!(error("a-name-of-16-cha"), PatternError::TooLong(_)));
        assert!(matches!(error("eth[0"), PatternError::Syntax(..)));
    }

    #[test]
    fn a_pattern_that_no_name_is_short_enough_for_is_refused() {
        let parse = |text: &str| text.parse::<DevicePattern>();
        assert!(parse("fifteen-letters*").is_ok_and(|it| it.matches("fifteen-letters")));
        assert!(matches!(parse("sixteen-letters-*"), Err(PatternError::TooLong(_))));
        assert!(parse("14-letters-yes[]a-z]").is_ok_and(|it| it.matches("14-letters-yes]")));
        assert!(matches!(parse("fifteen-letters[!0-9]"), Err(PatternError::TooLong(_))));
    }

    #[test]
    fn a_star_stands_for_any_letters_also_none() {
        let matches = |pattern: &str, name| pattern.parse::<DevicePattern>().unwrap().matches(name);
        assert!(matches("upf*", "upf") && matches("upf*", "upf12") && !matches("upf*", "up"));
        assert!(matches("*", "eth0") && matches("*.100", "eth0.100") && !matches("*.100", "eth0"));
        assert!(matches("e*0*1", "eth0v1") && !matches("e*0*1", "eth1v0"));
        assert!(!matches("ab*ba", "aba"), "ends must not overlap");
    }
}
