//! What is wrong with a file, said so that a person can put it right.

use std::{fmt, sync::Arc};

/// Where something stands.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Place {
    /// The file as the user named it, or what else was read (`environment`).
    pub file: Arc<str>,
    /// From 1; 0 when the problem is about the file as a whole.
    pub line: u32,
    /// From 1, in characters.
    pub column: u32,
}

impl Place {
    /// The file as a whole.
    pub fn whole(file: impl Into<Arc<str>>) -> Self {
        Self { file: file.into(), line: 0, column: 0 }
    }
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.line {
            0 => f.write_str(&self.file),
            line => write!(f, "{}:{line}:{}", self.file, self.column),
        }
    }
}

/// One thing that is wrong. Prints as `file:line:column: field: what; expected ...; did you mean ...`.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Problem {
    /// Where.
    pub place: Place,
    /// The field's path in its document, e.g. `spec.endpoints[0].cidr`; empty for the whole document.
    pub field: String,
    /// What is wrong, what was expected, what to do.
    pub message: String,
}

impl Problem {
    /// About a file as a whole.
    pub fn whole(file: impl Into<Arc<str>>, message: impl Into<String>) -> Self {
        Self { place: Place::whole(file), field: String::new(), message: message.into() }
    }
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: ", self.place)?;
        if !self.field.is_empty() {
            write!(f, "{}: ", printable(&self.field))?;
        }
        f.write_str(&printable(&self.message))
    }
}

/// Messages repeat what a file says: a hostile one must not steer the terminal, show its letters in another
/// order than they are read (U+202E), or fill it.
fn printable(text: &str) -> String {
    const MOST: usize = 1_000;
    let mut shown = String::new();
    for c in text.chars().take(MOST) {
        match c {
            '"' | '\'' | '\\' => shown.push(c),
            c => shown.extend(c.escape_debug()),
        }
    }
    if text.chars().nth(MOST).is_some() {
        shown.push_str(" ...");
    }
    shown
}

/// Everything that is wrong, in the order of the files' lines. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Problems(Vec<Problem>);

impl Problems {
    /// `Err` if there are any, sorted by place.
    pub fn refuse_if_any(mut problems: Vec<Problem>) -> Result<(), Self> {
        if problems.is_empty() {
            return Ok(());
        }
        problems.sort();
        problems.dedup();
        Err(Self(problems))
    }

    /// The problems.
    pub fn list(&self) -> &[Problem] {
        &self.0
    }
}

impl From<Problem> for Problems {
    fn from(problem: Problem) -> Self {
        Self(vec![problem])
    }
}

/// More than this on a terminal helps nobody.
const MAX_SHOWN: usize = 50;

impl fmt::Display for Problems {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (i, problem) in self.0.iter().take(MAX_SHOWN).enumerate() {
            if i > 0 {
                f.write_str("\n")?;
            }
            problem.fmt(f)?;
        }
        match self.0.len().saturating_sub(MAX_SHOWN) {
            0 => Ok(()),
            more => write!(f, "\n... and {more} more problems"),
        }
    }
}

impl std::error::Error for Problems {}

/// `; did you mean "x"?` when a known word is near to what was written, else nothing.
pub fn did_you_mean<'a>(written: &str, known: impl IntoIterator<Item = &'a str>) -> String {
    // A third of the word may be wrong, at least two letters; a hostile long word is not compared.
    if written.len() > 128 {
        return String::new();
    }
    let limit = (written.chars().count() / 3).max(2);
    let lower = written.to_lowercase();
    known
        .into_iter()
        .map(|word| (strsim::damerau_levenshtein(&lower, &word.to_lowercase()), word))
        .filter(|&(distance, word)| distance <= limit && distance < word.chars().count())
        .min_by_key(|&(distance, _)| distance)
        .map_or_else(String::new, |(_, word)| format!("; did you mean \"{word}\"?"))
}

/// `one of a, b, c`; `a` when there is only one.
pub fn one_of<S: AsRef<str>>(words: &[S]) -> String {
    let words: Vec<&str> = words.iter().map(AsRef::as_ref).collect();
    match words.as_slice() {
        [] => "nothing".to_owned(),
        [word] => (*word).to_owned(),
        words => format!("one of {}", words.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn nearest_word_is_suggested_and_a_far_one_is_not() {
        let known = ["application", "match", "emit"];
        assert_eq!(did_you_mean("aplication", known), "; did you mean \"application\"?");
        assert_eq!(did_you_mean("Match", known), "; did you mean \"match\"?");
        assert_eq!(did_you_mean("zzz", known), "");
        assert_eq!(did_you_mean(&"x".repeat(100_000), known), "");
    }

    #[test]
    fn what_a_file_says_cannot_steer_the_terminal() {
        let problem = Problem::whole("r.yaml", format!("\u{1b}[2J\n{}", "x".repeat(2_000)));
        let said = problem.to_string();
        assert!(said.starts_with("r.yaml: \\u{1b}[2J\\nxxx") && said.ends_with("xxx ..."));
        assert!(said.len() < 1_100);
        let turned =
            Problem::whole("r.yaml", "\"a\u{202e}b\u{2028}\" isn't é, 買 or \\").to_string();
        assert_eq!(turned, "r.yaml: \"a\\u{202e}b\\u{2028}\" isn't é, 買 or \\");
    }

    #[test]
    fn a_flood_of_problems_is_cut_and_counted() {
        let problem = |line| Problem {
            place: Place { file: "r.yaml".into(), line, column: 1 },
            field: "spec".to_owned(),
            message: "bad".to_owned(),
        };
        let problems = Problems::refuse_if_any((1..=60).map(problem).collect()).unwrap_err();
        assert!(problems.to_string().ends_with("r.yaml:50:1: spec: bad\n... and 10 more problems"));
    }
}
