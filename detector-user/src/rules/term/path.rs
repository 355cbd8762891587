//! Paths of requests: exact, by prefix, by glob, by regular expression.

use globset::{GlobBuilder, GlobMatcher};
use regex::{Regex, RegexBuilder};
use regex_syntax::hir::{
    Hir, Look,
    literal::{Extractor, Literal},
};
use schemars::Schema;

use crate::yaml::{Scalar, scalar};

/// Compiled size at which a pattern is refused: no rules file may take the agent's memory.
const SIZE_LIMIT: usize = 64 << 10;

/// Which paths. Compared as sent (percent-encoding kept), case-sensitively, without the query.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PathPattern {
    /// Exactly this path.
    Exact(String),
    /// Paths that begin with this.
    Prefix(String),
    /// `*` within a segment, `**` over segments.
    Glob(PathGlob),
    /// A regular expression that is found anywhere in the path.
    Regex(PathRegex),
}

impl PathPattern {
    /// Whether it is one of these paths.
    pub fn matches(&self, path: &str) -> bool {
        match self {
            Self::Exact(exact) => path == exact,
            Self::Prefix(prefix) => path.starts_with(prefix.as_str()),
            Self::Glob(glob) => glob.0.is_match(path),
            Self::Regex(regex) => regex.0.is_match(path),
        }
    }

    /// Every such path begins with one of these; `None` if nothing is known of how it begins. Only
    /// characters that stand in a request as they do here.
    pub fn starts(&self) -> Option<Vec<String>> {
        let literals = match self {
            Self::Exact(path) | Self::Prefix(path) => vec![path.clone()],
            Self::Glob(glob) => vec![glob.start()],
            Self::Regex(regex) => regex.starts()?,
        };
        let plain = |literal: String| literal.chars().take_while(char::is_ascii_graphic).collect();
        Some(literals.into_iter().map(plain).collect())
    }

    /// In words, for tables.
    pub fn text(&self) -> String {
        match self {
            Self::Exact(path) => path.clone(),
            Self::Prefix(prefix) => format!("{prefix}..."),
            Self::Glob(glob) => glob.0.glob().glob().to_owned(),
            Self::Regex(regex) => format!("~{}", regex.0.as_str()),
        }
    }
}

/// A glob over a whole path.
#[derive(Clone, Debug)]
pub struct PathGlob(GlobMatcher);
scalar!(PathGlob);

impl PartialEq for PathGlob {
    fn eq(&self, other: &Self) -> bool {
        self.0.glob() == other.0.glob()
    }
}
impl Eq for PathGlob {}

impl Scalar for PathGlob {
    const EXPECTED: &'static str =
        "a path with * (within a segment) or ** (over segments), e.g. /api/*/buy";

    fn parse(text: &str) -> Result<Self, String> {
        if let Some((path, _)) = text.split_once('#') {
            return Err(format!(
                "\"{text}\" has a fragment, which is never sent; expected {}; did you mean \"{path}\"?",
                Self::EXPECTED
            ));
        }
        if !text.starts_with(['/', '*', '{', '[', '?']) {
            return Err(format!(
                "\"{text}\" is never a path, which begins with \"/\"; expected {}; did you mean \"/{text}\"?",
                Self::EXPECTED
            ));
        }
        let glob = GlobBuilder::new(text).literal_separator(true).backslash_escape(true).build();
        let glob = glob.map_err(|e| {
            format!("\"{text}\" is no glob ({}); expected {}", e.kind(), Self::EXPECTED)
        })?;
        // What it becomes; the library's own limit is a thousand times as much.
        let compiled = regex::bytes::RegexBuilder::new(glob.regex()).size_limit(SIZE_LIMIT).build();
        match compiled {
            Ok(_) => Ok(Self(glob.compile_matcher())),
            Err(_) => Err(format!(
                "is too large once compiled (over {} KiB); expected a shorter one",
                SIZE_LIMIT >> 10
            )),
        }
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A path with * (within a segment), ** (over segments), ?, [ab], {a,b}.",
            "examples": ["/api/*/buy", "/static/**"],
        })
    }
}

impl PathGlob {
    /// What stands before the first character that is none of its own.
    fn start(&self) -> String {
        let glob = self.0.glob().glob();
        let end = glob.find(['*', '?', '[', '{', '\\']).unwrap_or(glob.len());
        // `/a/**` is below `/a`; whoever takes it for `/a` too loses nothing.
        glob[..end].strip_suffix('/').unwrap_or(&glob[..end]).to_owned()
    }
}

/// A regular expression of the `regex` crate: it runs in time linear in the path.
#[derive(Clone, Debug)]
pub struct PathRegex(Regex);
scalar!(PathRegex);

impl PartialEq for PathRegex {
    fn eq(&self, other: &Self) -> bool {
        self.0.as_str() == other.0.as_str()
    }
}
impl Eq for PathRegex {}

impl Scalar for PathRegex {
    const EXPECTED: &'static str = "a regular expression such as ^/api/v[0-9]+/buy$";

    fn parse(text: &str) -> Result<Self, String> {
        // Its syntax error is a drawing over several lines; the position is said in words.
        let parsed = regex_syntax::Parser::new().parse(text).map_err(|error| {
            let (what, at) = match &error {
                regex_syntax::Error::Parse(e) => (e.kind().to_string(), e.span().start.offset),
                regex_syntax::Error::Translate(e) => (e.kind().to_string(), e.span().start.offset),
                _ => (error.to_string().replace('\n', " "), 0),
            };
            let at = text.get(..at).map_or(1, |before| before.chars().count() + 1);
            format!(
                "is no regular expression: {what}, at character {at}; expected {}",
                Self::EXPECTED
            )
        })?;
        if never_in_a_path(&parsed) {
            let instead =
                text.strip_prefix('^').filter(|rest| rest.starts_with(char::is_alphanumeric));
            let instead = instead.map(|rest| format!("; did you mean \"^/{rest}\"?"));
            return Err(format!(
                "\"{text}\" is never in a path, which begins with \"/\"; expected {}{}",
                Self::EXPECTED,
                instead.unwrap_or_default()
            ));
        }
        let regex =
            RegexBuilder::new(text).size_limit(SIZE_LIMIT).dfa_size_limit(SIZE_LIMIT).build();
        regex.map(Self).map_err(|_| {
            format!(
                "is too large once compiled (over {} KiB); expected a shorter expression or smaller counts",
                SIZE_LIMIT >> 10
            )
        })
    }

    fn schema() -> Schema {
        schemars::json_schema!({
            "type": "string",
            "description": "A regular expression (RE2 syntax), found anywhere in the path.",
            "format": "regex",
            "examples": ["^/api/v[0-9]+/buy$"],
        })
    }
}

impl PathRegex {
    /// What paths begin with in which it is found, if that is where it must stand.
    fn starts(&self) -> Option<Vec<String>> {
        let expression = regex_syntax::Parser::new().parse(self.0.as_str()).ok()?;
        if !expression.properties().look_set_prefix().contains(Look::Start) {
            return None;
        }
        let literals = Extractor::new().extract(&expression);
        let text = |literal: &Literal| String::from_utf8(literal.as_bytes().to_vec()).ok();
        literals.literals()?.iter().map(text).collect()
    }
}

/// Whether it matches nothing at all, or must stand where a path begins and begins otherwise.
fn never_in_a_path(expression: &Hir) -> bool {
    let properties = expression.properties();
    if properties.minimum_len().is_none() {
        return true;
    }
    let looks = properties.look_set_prefix();
    if !looks.contains(Look::Start) {
        return false;
    }
    if properties.maximum_len() == Some(0) && properties.look_set_suffix().contains(Look::End) {
        return true; // only an empty one
    }
    // An asterisk is the path of `OPTIONS *` (RFC 9112 section 3.2.4).
    let possible =
        |literal: &Literal| !matches!(literal.as_bytes(), [first, ..] if !b"/*".contains(first));
    Extractor::new()
        .limit_class(256)
        .extract(expression)
        .literals()
        .is_some_and(|literals| !literals.iter().any(possible))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn glob(text: &str) -> PathPattern {
        PathPattern::Glob(PathGlob::parse(text).unwrap_or_else(|e| panic!("{e}")))
    }

    #[test]
    fn a_star_stays_within_a_segment_and_two_do_not() {
        assert!(glob("/api/*/buy").matches("/api/v1/buy"));
        assert!(!glob("/api/*/buy").matches("/api/v1/x/buy"));
        assert!(glob("/static/**").matches("/static/a/b.js"));
        assert!(glob("/a{b,c}").matches("/ac") && !glob("/a{b,c}").matches("/ad"));
        assert!(!glob("/buy").matches("/buy/1"));
    }

    #[test]
    fn how_all_paths_begin_is_told_only_where_it_is_sure() {
        let regex = |text| PathPattern::Regex(PathRegex::parse(text).unwrap()).starts();
        let some = |starts: &[&str]| Some(starts.iter().map(|it| (*it).to_owned()).collect());
        assert_eq!(PathPattern::Prefix("/a\u{fc}b".into()).starts(), some(&["/a"]));
        assert_eq!(glob("/api/*/buy").starts(), some(&["/api"]));
        assert_eq!(glob("/buy{,/1}").starts(), some(&["/buy"]));
        assert_eq!(glob("**/buy").starts(), some(&[""]));
        assert_eq!(glob("/a\\*b").starts(), some(&["/a"]));
        assert_eq!(
            regex("^/api/v[12]/x?"),
            some(&["/api/v1/x", "/api/v1/", "/api/v2/x", "/api/v2/"])
        );
        assert_eq!(regex("^(/cart|/pay)"), some(&["/cart", "/pay"]));
        assert_eq!(regex("^(/cart|.*x)"), None);
        assert_eq!(regex("/cart"), None, "anywhere");
        assert_eq!(regex("^/a|/b"), None, "either at the start or anywhere");
        assert_eq!(regex("(?m)^/a"), None, "a line's start");
    }

    proptest! {
        #[test]
        fn whatever_matches_begins_so(
            regex in "\\^?(\\(\\?i\\))?[/abAB]{0,4}[?*+]?(\\|/a)?[/ab.]{0,2}",
            globbed in "/[/ab*?\\\\]{0,6}",
            path in "/[/abAB]{0,6}",
        ) {
            let patterns = [
                PathRegex::parse(&regex).map(PathPattern::Regex),
                PathGlob::parse(&globbed).map(PathPattern::Glob),
            ];
            for pattern in patterns.into_iter().flatten().filter(|it| it.matches(&path)) {
                let starts = pattern.starts();
                let begins = |start: &String| path.starts_with(start.as_str());
                prop_assert!(starts.is_none_or(|all| all.iter().any(begins)), "{}", pattern.text());
            }
        }
    }

    #[test]
    fn a_glob_that_would_take_much_memory_is_refused() {
        assert!(PathGlob::parse(&format!("/{}", "*a".repeat(50))).is_ok());
        let refused = PathGlob::parse(&format!("/{}", "*a".repeat(20_000))).unwrap_err();
        assert!(refused.starts_with("is too large once compiled"), "{refused}");
    }

    #[test]
    fn a_regex_is_found_anywhere() {
        let regex = |text| PathPattern::Regex(PathRegex::parse(text).unwrap());
        assert!(regex("/v[0-9]+/").matches("/api/v12/buy"));
        assert!(!regex("^/v[0-9]+/").matches("/api/v12/buy"));
    }

    #[test]
    fn bad_patterns_say_where_and_what_instead() {
        let said = PathRegex::parse("^/ü(a").unwrap_err();
        assert!(said.contains("unclosed group, at character 4"), "{said}");
        assert!(PathRegex::parse("(a{1000}){1000}").unwrap_err().contains("too large"));
        assert!(PathRegex::parse("^api/").unwrap_err().ends_with("did you mean \"^/api/\"?"));
        for never in ["^(buy|sell)$", "[a&&b]", "^$", "^[a-z]+/x"] {
            assert!(PathRegex::parse(never).unwrap_err().contains("never in a path"), "{never}");
        }
        for some in
            ["^(/buy|/sell)$", "^", "$", "", "(^|x)buy", "^.buy", "(?m)^buy", "^\\*$", "^/?a"]
        {
            assert!(PathRegex::parse(some).is_ok(), "{some}");
        }
        assert!(PathGlob::parse("api/*").unwrap_err().ends_with("did you mean \"/api/*\"?"));
        assert!(PathGlob::parse("/a[").unwrap_err().contains("is no glob"));
    }

    #[test]
    fn an_exploding_regex_takes_no_time() {
        // Backtracking engines need longer than the universe is old.
        let regex = PathPattern::Regex(PathRegex::parse("^/(a+)+$").unwrap());
        assert!(!regex.matches(&format!("/{}!", "a".repeat(8_000))));
    }
}
