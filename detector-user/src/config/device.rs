//! Which devices are watched, and how.

use schemars::Schema;

pub use crate::attach::wish::{Directions, Hook};
use crate::yaml::{Scalar, scalar};

/// Devices to watch, now and when they appear.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeviceSelector {
    /// Which.
    pub pattern: DevicePattern,
    /// How.
    pub hook: Hook,
    /// Which way.
    pub directions: Directions,
}

/// A device name; `*` stands for any letters, also none.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct DevicePattern(String);
scalar!(DevicePattern);

/// `IFNAMSIZ` without the ending zero.
const NAME_MAX: usize = 15;

impl DevicePattern {
    /// Whether the device of this name is meant.
    pub fn matches(&self, device: &str) -> bool {
        let mut pieces = self.0.split('*');
        let first = pieces.next().unwrap_or_default();
        let Some(mut rest) = device.strip_prefix(first) else { return false };
        let mut pieces: Vec<&str> = pieces.collect();
        let Some(last) = pieces.pop() else { return rest.is_empty() };
        // The leftmost place for each piece leaves the most for those after it.
        for piece in pieces {
            match rest.find(piece) {
                Some(i) => rest = &rest[i + piece.len()..],
                None => return false,
            }
        }
        rest.ends_with(last)
    }

    /// As it was written.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::fmt::Display for DevicePattern {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl Scalar for DevicePattern {
    const EXPECTED: &'static str = "a network device's name such as n6, or a pattern such as upf*";

    fn parse(text: &str) -> Result<Self, String> {
        // dev_valid_name() in the kernel: no slash, colon or white space, not "." or "..".
        let letter = |c: char| !c.is_whitespace() && !c.is_control() && !matches!(c, '/' | ':');
        let length = text.bytes().filter(|&b| b != b'*').count();
        let good = !text.is_empty()
            && length <= NAME_MAX
            && text.chars().all(letter)
            && !matches!(text, "." | "..");
        match good {
            true => Ok(Self(text.to_owned())),
            false => Err(format!(
                "\"{text}\" is no device name (at most {NAME_MAX} letters, no slash, colon or \
                 space); expected {}",
                Self::EXPECTED
            )),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A device name; * stands for any letters.",
            "pattern": "^[^/:\\s]+$",
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn matches(pattern: &str, device: &str) -> bool {
        DevicePattern::parse(pattern).unwrap().matches(device)
    }

    #[test]
    fn a_star_stands_for_any_letters() {
        assert!(matches("n6", "n6") && !matches("n6", "n60") && !matches("n6", "xn6"));
        assert!(matches("upf*", "upf") && matches("upf*", "upf12") && !matches("upf*", "up"));
        assert!(matches("*", "eth0") && matches("*.100", "eth0.100") && !matches("*.100", "eth0"));
        assert!(matches("e*0*1", "eth0v1") && !matches("e*0*1", "eth1v0"));
        assert!(!matches("ab*ba", "aba"), "ends must not overlap");
    }

    proptest! {
        #[test]
        fn replacing_a_part_by_a_star_still_matches(a in "[a-c]{0,4}", b in "[a-c]{0,4}", c in "[a-c]{1,4}") {
            let device = format!("{a}{b}{c}");
            let pattern = format!("{a}*{c}");
            prop_assert!(matches(&pattern, &device));
        }
    }
}
