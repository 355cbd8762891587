//! Paths -> documents -> a checked [`RuleSet`], or everything that is wrong with them.

use std::{
    ffi::OsStr,
    path::{Path, PathBuf},
    sync::Arc,
};

use ipnet::IpNet;

use super::{
    check::{Documents, check},
    model::RuleSet,
};
use crate::yaml::{self, Node, Place, Problem, Problems};

/// Most rules in one set: the width of the classifier's bit vectors.
pub const MAX_RULES: usize = 1_024;
/// Most applications in one set.
pub const MAX_APPLICATIONS: usize = 1_024;
/// After this many problems the rest of the files is not looked at.
const ENOUGH_PROBLEMS: usize = 1_000;

/// Why rules were refused; prints every problem on a line of its own.
pub type RulesError = Problems;

/// Rules that are good.
#[derive(Debug)]
pub struct Checked {
    /// The rules.
    pub set: RuleSet,
    /// What is accepted and may not be what was meant, in the order of the files' lines.
    pub warnings: Vec<Problem>,
}

/// Reads files, and directories' `*.yaml` and `*.yml` in the order of their names, as one set.
/// For an agent: each must be a regular file that not everybody can write. `ue_pools` are those of
/// its config; none if they are not known.
pub fn load(paths: &[PathBuf], ue_pools: &[IpNet]) -> Result<Checked, RulesError> {
    load_with(paths, ue_pools, yaml::read_trusted, yaml::read_trusted)
}

/// As [`load`], for somebody who only wants to look: with any permissions, and what is named (not
/// what is in directories) may be a pipe.
pub fn load_untrusted(paths: &[PathBuf], ue_pools: &[IpNet]) -> Result<Checked, RulesError> {
    load_with(paths, ue_pools, yaml::read, yaml::read_regular)
}

type Read = fn(&Path) -> Result<Vec<u8>, Problem>;

fn load_with(
    paths: &[PathBuf],
    ue_pools: &[IpNet],
    named: Read,
    member: Read,
) -> Result<Checked, RulesError> {
    let mut reader = Reader::default();
    for path in paths {
        if !path.is_dir() {
            reader.path(path, named);
            continue;
        }
        match members(path) {
            Ok(files) => files.iter().for_each(|file| reader.path(file, member)),
            Err(problem) => reader.lost(problem),
        }
    }
    reader.finish(ue_pools)
}

/// As [`load`], from text that is there already: (name for messages, bytes).
pub fn parse(files: &[(&str, &[u8])]) -> Result<RuleSet, RulesError> {
    let mut reader = Reader::default();
    for (name, bytes) in files {
        reader.file(&Arc::from(*name), bytes);
    }
    reader.finish(&[]).map(|checked| checked.set)
}

/// A directory is not descended into: a ConfigMap's volume has its data twice, the second time in
/// a hidden directory.
fn members(directory: &Path) -> Result<Vec<PathBuf>, Problem> {
    let refuse = |message: String| Problem::whole(directory.display().to_string(), message);
    let entries = std::fs::read_dir(directory).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let entries = entries.map_err(|e| refuse(format!("cannot be listed: {e}")))?;
    // A link that leads nowhere stays in: that its rules are missing must be said.
    let yaml = |path: &PathBuf| {
        let extension = path.extension().and_then(OsStr::to_str);
        matches!(extension, Some("yaml" | "yml")) && !path.is_dir()
    };
    let mut files: Vec<PathBuf> = entries.iter().map(|entry| entry.path()).filter(yaml).collect();
    files.sort();
    match files.is_empty() {
        true => Err(refuse("has no rules; expected *.yaml or *.yml files in it".to_owned())),
        false => Ok(files),
    }
}

#[derive(Default)]
struct Reader {
    documents: Documents,
    rules: Counter,
    applications: Counter,
    problems: Vec<Problem>,
}

/// How many documents of a kind there are, and where the first too many stands.
#[derive(Default)]
struct Counter {
    count: usize,
    first_over: Option<Place>,
}

impl Counter {
    /// Counts one; whether it is within the limit.
    fn admit(&mut self, limit: usize, place: Place) -> bool {
        self.count += 1;
        if self.count > limit {
            self.first_over.get_or_insert(place);
        }
        self.count <= limit
    }

    fn problem(self, limit: usize, what: &str) -> Option<Problem> {
        let message = format!(
            "there are {} {what}, this is number {}; expected at most {limit}",
            self.count,
            limit + 1
        );
        self.first_over.map(|place| Problem { place, field: String::new(), message })
    }
}

impl Reader {
    fn path(&mut self, path: &Path, read: Read) {
        match read(path) {
            Ok(bytes) => self.file(&path.display().to_string().into(), &bytes),
            Err(problem) => self.lost(problem),
        }
    }

    fn lost(&mut self, problem: Problem) {
        self.problems.push(problem);
        self.documents.lost = true;
    }

    fn file(&mut self, file: &Arc<str>, bytes: &[u8]) {
        let before = self.problems.len();
        let documents = yaml::parse(file, bytes, &mut self.problems);
        self.documents.lost |= self.problems.len() > before;
        for document in documents {
            if self.problems.len() < ENOUGH_PROBLEMS {
                self.document(file, &document);
            }
        }
    }

    fn document(&mut self, file: &Arc<str>, document: &Node) {
        let place = Place { file: Arc::clone(file), line: document.line, column: document.column };
        let problems = &mut self.problems;
        match yaml::kind(file, document, &["Application", "Rule"]) {
            Ok("Application") => {
                if self.applications.admit(MAX_APPLICATIONS, place) {
                    match yaml::typed(file, document, problems) {
                        Some(application) => self.documents.applications.push(application),
                        None => self.documents.unreadable.extend(name(document)),
                    }
                }
            }
            Ok(_) => {
                if self.rules.admit(MAX_RULES, place) {
                    self.documents.rules.extend(yaml::typed(file, document, problems));
                }
            }
            Err(problem) => {
                self.documents.unreadable.extend(name(document));
                problems.push(problem);
            }
        }
    }

    fn finish(mut self, ue_pools: &[IpNet]) -> Result<Checked, RulesError> {
        let (set, warnings) = check(&self.documents, ue_pools, &mut self.problems);
        self.problems.extend(self.applications.problem(MAX_APPLICATIONS, "applications"));
        self.problems.extend(self.rules.problem(MAX_RULES, "rules"));
        Problems::refuse_if_any(self.problems)?;
        Ok(Checked { set, warnings })
    }
}

fn name(document: &Node) -> Option<String> {
    document.get("metadata")?.get("name")?.text().map(str::to_owned)
}

#[cfg(test)]
#[path = "file_tests.rs"]
mod tests;
