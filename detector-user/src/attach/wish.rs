//! What the operator wants: which devices, which hook, which traffic.

use std::{fmt, str::FromStr};

use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

/// Longest device name: `IFNAMSIZ` (16) without the closing NUL.
const NAME_MAX: usize = 15;

/// One entry of the configuration's device list.
#[derive(Clone, Debug, PartialEq)]
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
#[derive(Clone, Debug, PartialEq, Eq)]
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
    /// The kernel refuses these in names (`dev_valid_name`).
    #[error("`{0}` holds `{1}`, which no device name can; `ip link` lists the names there are")]
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
        // dev_valid_name(): no slash, no colon, no white space.
        if let Some(bad) = text.chars().find(|c| matches!(c, '/' | ':') || c.is_whitespace()) {
            return Err(PatternError::Character(text.into(), bad));
        }
        let pattern = glob::Pattern::new(text)
            .map(Self)
            .map_err(|error| PatternError::Syntax(text.into(), error.msg.into()))?;
        match pattern.as_name() {
            Some(name) if name.len() > NAME_MAX => Err(PatternError::TooLong(text.into())),
            Some(_) | None => Ok(pattern),
        }
    }
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
        assert!(matches!(error("a-name-of-16-cha"), PatternError::TooLong(_)));
        assert!(matches!(error("eth[0"), PatternError::Syntax(..)));
    }
}
