//! Text in which `*` stands for any characters: header values, query values, client ids, JA4.

use schemars::Schema;

use crate::yaml::{Scalar, scalar};

/// Text with stars. Case counts.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wildcard {
    /// What stands between the stars; one part is text without a star.
    parts: Vec<String>,
}
scalar!(Wildcard);

impl Wildcard {
    /// Whether the text is such. Linear in the text for each part.
    pub fn matches(&self, text: &str) -> bool {
        let [first, middle @ .., last] = self.parts.as_slice() else {
            return self.parts.first().is_some_and(|only| only == text);
        };
        let Some(mut rest) = text.strip_prefix(first.as_str()) else { return false };
        for part in middle {
            // The leftmost place leaves the most for what follows.
            match rest.find(part.as_str()) {
                Some(at) => rest = &rest[at + part.len()..],
                None => return false,
            }
        }
        rest.ends_with(last.as_str())
    }

    /// The only text that it matches, if it has no star.
    pub fn exact(&self) -> Option<&str> {
        match self.parts.as_slice() {
            [only] => Some(only),
            _ => None,
        }
    }

    /// Whether all that it matches has one of these characters.
    pub fn contains(&self, any: &[char]) -> bool {
        self.parts.iter().any(|part| part.contains(any))
    }

    /// The text before the first star.
    pub fn start(&self) -> &str {
        self.parts.first().map_or("", String::as_str)
    }

    /// As it is written.
    pub fn text(&self) -> String {
        let escape = |part: &String| part.replace('\\', r"\\").replace('*', r"\*");
        self.parts.iter().map(escape).collect::<Vec<_>>().join("*")
    }
}

impl Scalar for Wildcard {
    const EXPECTED: &'static str = r"text, in which * stands for any characters (\* is a star)";

    fn parse(text: &str) -> Result<Self, String> {
        let mut parts = vec![String::new()];
        let mut characters = text.chars();
        while let Some(character) = characters.next() {
            match character {
                '*' => parts.push(String::new()),
                '\\' => match characters.next() {
                    Some(escaped @ ('*' | '\\')) => push(&mut parts, escaped),
                    Some(_) | None => {
                        return Err(format!(
                            r#""{text}" has a \ before something else than * or \; expected {}"#,
                            Self::EXPECTED
                        ));
                    }
                },
                other => push(&mut parts, other),
            }
        }
        Ok(Self { parts })
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": ["string", "number"],
            "description": "Text, in which * stands for any characters.",
        })
    }
}

fn push(parts: &mut [String], character: char) {
    if let Some(last) = parts.last_mut() {
        last.push(character);
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn stars_stand_for_anything_and_can_be_meant_literally() {
        let matches = |pattern: &str, text: &str| Wildcard::parse(pattern).unwrap().matches(text);
        assert!(matches("application/*", "application/json") && matches("*", ""));
        assert!(matches("t13d*_*_*", "t13d1516h2_8daaf6152771_e5627efa2ab1"));
        assert!(!matches("a*a", "a") && !matches("ab", "abc") && !matches("", "a"));
        assert!(matches(r"\*", "*") && !matches(r"\*", "a"));
        assert!(Wildcard::parse(r"a\b").is_err());
    }

    proptest! {
        #[test]
        fn it_matches_as_the_regex_does(pattern in "[ab*]{0,8}", text in "[ab]{0,12}") {
            let regex = format!("^{}$", pattern.replace('*', ".*"));
            let naive = regex::Regex::new(&regex).unwrap().is_match(&text);
            prop_assert_eq!(Wildcard::parse(&pattern).unwrap().matches(&text), naive);
        }

        #[test]
        fn its_text_reads_as_itself(pattern in "[ab*]{0,8}") {
            let parsed = Wildcard::parse(&pattern).unwrap();
            prop_assert_eq!(Wildcard::parse(&parsed.text()).unwrap(), parsed);
        }
    }
}
