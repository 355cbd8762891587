//! Host and DNS names: one, or all below a suffix.

use schemars::Schema;

use crate::yaml::{Scalar, scalar};

/// The longest name in text (RFC 1035 section 2.3.4: 255 octets on the wire).
const LONGEST: usize = 253;
/// The longest label (RFC 1035 section 2.3.4).
const LONGEST_LABEL: usize = 63;

/// Which names. Compared without regard to ASCII case (RFC 4343) and to a final dot.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum NamePattern {
    /// `*`: every name.
    Any,
    /// This name, in lower case.
    Exact(String),
    /// `*.shop.example`: every name below this one, which itself is not meant.
    Below(String),
}
scalar!(NamePattern);

impl NamePattern {
    /// Whether it is one of these names.
    pub fn matches(&self, name: &str) -> bool {
        let name = name.strip_suffix('.').unwrap_or(name).as_bytes();
        match self {
            Self::Any => true,
            Self::Exact(exact) => name.eq_ignore_ascii_case(exact.as_bytes()),
            Self::Below(parent) => {
                let Some(cut) = name.len().checked_sub(parent.len()) else { return false };
                let (below, above) = name.split_at(cut);
                // At least one character and the dot.
                below.len() > 1
                    && below.ends_with(b".")
                    && above.eq_ignore_ascii_case(parent.as_bytes())
            }
        }
    }

    /// As it is written.
    pub fn text(&self) -> String {
        match self {
            Self::Any => "*".to_owned(),
            Self::Exact(name) => name.clone(),
            Self::Below(parent) => format!("*.{parent}"),
        }
    }
}

impl Scalar for NamePattern {
    const EXPECTED: &'static str =
        "a name such as shop.example, or *.shop.example for all names below it";

    fn parse(text: &str) -> Result<Self, String> {
        let refuse = |why: &str, instead: Option<String>| {
            let shown: String = text.chars().take(80).collect();
            let instead =
                instead.map_or_else(String::new, |word| format!("; did you mean \"{word}\"?"));
            Err(format!("\"{shown}\" {why}; expected {}{instead}", Self::EXPECTED))
        };
        if text == "*" {
            return Ok(Self::Any);
        }
        let (below, name) = match text.strip_prefix("*.") {
            Some(parent) => (true, parent),
            None => (false, text),
        };
        let name = name.strip_suffix('.').unwrap_or(name);
        if name.is_empty() {
            return refuse("is no name", None);
        }
        if !name.is_ascii() {
            let ascii = url::Host::parse(name).ok().map(|host| host.to_string());
            let ascii = ascii.map(|host| if below { format!("*.{host}") } else { host });
            return refuse("is not as names are sent (RFC 5890)", ascii);
        }
        if name.contains('*') {
            return refuse("has a * that does not stand for whole labels in front", None);
        }
        if name.contains(['/', ':', '?', ' ']) || name.bytes().any(|b| !b.is_ascii_graphic()) {
            return refuse("is no name (a URL, a port or a space?)", None);
        }
        if name.starts_with('.') {
            return refuse("begins with a dot", Some(format!("*{name}")));
        }
        if name.len() > LONGEST || name.split('.').any(|label| label.len() > LONGEST_LABEL) {
            return refuse(
                "can never be seen: a name has at most 253 characters, and 63 between dots",
                None,
            );
        }
        if name.split('.').any(str::is_empty) {
            return refuse("has nothing between two dots", None);
        }
        let name = name.to_ascii_lowercase();
        Ok(if below { Self::Below(name) } else { Self::Exact(name) })
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A name, or *. and a name for all names below it.",
            "pattern": r"^(\*|(\*\.)?[^*/:? ]+)$",
            "examples": ["shop.example", "*.shop.example"],
        })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn pattern(text: &str) -> NamePattern {
        NamePattern::parse(text).unwrap_or_else(|e| panic!("{e}"))
    }

    #[test]
    fn a_suffix_is_all_names_below_and_not_the_name_itself() {
        let below = pattern("*.Shop.example");
        assert!(below.matches("api.shop.example") && below.matches("A.B.SHOP.EXAMPLE."));
        for other in ["shop.example", ".shop.example", "ashop.example", "shop.example.evil", ""] {
            assert!(!below.matches(other), "{other}");
        }
        assert!(pattern("shop.example").matches("SHOP.example."));
        assert!(!pattern("shop.example").matches("api.shop.example"));
        assert!(pattern("*").matches("") && pattern("*").matches("a.b"));
    }

    #[test]
    fn what_can_be_no_name_is_refused_with_advice() {
        let refused = |text: &str| NamePattern::parse(text).unwrap_err();
        assert!(refused("bücher.example").ends_with("did you mean \"xn--bcher-kva.example\"?"));
        assert!(refused(".shop.example").ends_with("did you mean \"*.shop.example\"?"));
        for bad in ["", "*.", "a*.b", "http://a/", "a..b", "a:80", &"a".repeat(64), "*.*.a"] {
            assert!(NamePattern::parse(bad).is_err(), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn a_suffix_matches_as_labels_do(
            name in "[aB]{1,2}(\\.[aB]{1,2}){0,4}", parent in "[ab]{1,2}(\\.[ab]{1,2}){0,2}"
        ) {
            let name_labels: Vec<String> = name.to_lowercase().split('.').map(str::to_owned).collect();
            let labels: Vec<String> = parent.split('.').map(str::to_owned).collect();
            let naive = name_labels.len() > labels.len() && name_labels.ends_with(&labels);
            prop_assert_eq!(pattern(&format!("*.{parent}")).matches(&name), naive);
        }
    }
}
