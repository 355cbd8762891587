//! Reads Kubernetes manifests: files with one or many YAML documents, or directories of them (not
//! recursive, as `kubectl apply -f` does it). Brokers, Triggers, Channels and Subscriptions are
//! kept with the place they came from; other kinds are counted and left to the cluster.

use std::{
    collections::BTreeMap,
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use serde::{Deserialize, de::DeserializeOwned};

use super::resource::{BrokerSpec, ChannelSpec, Object, SubscriptionSpec, TriggerSpec};

const EVENTING: &str = "eventing.knative.dev";
const MESSAGING: &str = "messaging.knative.dev";

/// What was found in the manifests.
#[derive(Debug, Default)]
pub struct Manifests {
    /// Brokers; a Broker's `spec` may be missing.
    pub brokers: Vec<Placed<Option<BrokerSpec>>>,
    /// Triggers.
    pub triggers: Vec<Placed<TriggerSpec>>,
    /// Channels; a Channel's `spec` may be missing.
    pub channels: Vec<Placed<Option<ChannelSpec>>>,
    /// Subscriptions.
    pub subscriptions: Vec<Placed<SubscriptionSpec>>,
    /// Kinds that are not for a Broker, and how many of each.
    pub skipped: BTreeMap<String, usize>,
}

/// An object and where it was written.
#[derive(Debug)]
pub struct Placed<Spec> {
    /// The document it came from.
    pub place: Place,
    /// The object.
    pub object: Object<Spec>,
}

/// A document in a file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The file.
    pub file: Arc<Path>,
    /// The document's first line, from 1.
    pub line: usize,
}

impl fmt::Display for Place {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}:{}", self.file.display(), self.line)
    }
}

/// Why manifests could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ManifestError {
    /// A file or directory could not be read.
    #[error("cannot read {path}: {error}; expected a YAML file or a directory of them")]
    Read {
        /// Which.
        path: PathBuf,
        /// Why.
        error: std::io::Error,
    },
    /// A directory without manifests.
    #[error("{0} holds no .yaml, .yml or .json file")]
    EmptyDirectory(PathBuf),
    /// Not YAML, or not what the kind's CRD says.
    #[error("{file}:{line}:{column}: {field}{message}")]
    Document {
        /// The file.
        file: PathBuf,
        /// Line, from 1.
        line: u64,
        /// Column, from 1.
        column: u64,
        /// `spec.delivery.retry: `, or nothing.
        field: String,
        /// What was expected, with the lines around it.
        message: String,
    },
    /// A Broker, Trigger, ... of an API version that is not understood.
    #[error("{place}: {kind} has apiVersion `{found}`; expected `{expected}`")]
    ApiVersion {
        /// Where.
        place: Place,
        /// The kind.
        kind: String,
        /// What it says.
        found: String,
        /// What it should say.
        expected: String,
    },
    /// A `v1/List`.
    #[error(
        "{0}: kind List is not supported; write its items as documents with `---` between them"
    )]
    List(Place),
}

/// What every Kubernetes object begins with.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Head {
    api_version: String,
    kind: String,
}

impl Manifests {
    /// Everything in these files and directories.
    pub fn read<P: AsRef<Path>>(paths: &[P]) -> Result<Self, ManifestError> {
        let mut manifests = Self::default();
        for path in paths {
            for file in files(path.as_ref())? {
                let text = std::fs::read_to_string(&file)
                    .map_err(|error| ManifestError::Read { path: file.clone(), error })?;
                manifests.add(&file, &text)?;
            }
        }
        Ok(manifests)
    }

    /// The documents of one file; `file` is only for messages.
    pub fn add(&mut self, file: &Path, text: &str) -> Result<(), ManifestError> {
        let file: Arc<Path> = file.into();
        for (line, document) in split_documents(text) {
            self.add_document(Place { file: file.clone(), line }, &document)?;
        }
        Ok(())
    }

    fn add_document(&mut self, place: Place, text: &str) -> Result<(), ManifestError> {
        let Some(head) = parse::<Option<Head>>(&place, text)? else { return Ok(()) };
        let (group, _version) = head.api_version.split_once('/').unwrap_or(("", ""));
        match (group, head.kind.as_str()) {
            (EVENTING, "Broker") => self.brokers.push(object(place, text, head)?),
            (EVENTING, "Trigger") => self.triggers.push(object(place, text, head)?),
            (MESSAGING, "Channel" | "InMemoryChannel") => {
                self.channels.push(object(place, text, head)?);
            }
            (MESSAGING, "Subscription") => self.subscriptions.push(object(place, text, head)?),
            ("", "List") => return Err(ManifestError::List(place)),
            (_, _) => *self.skipped.entry(head.kind).or_default() += 1,
        }
        Ok(())
    }
}

fn object<Spec: DeserializeOwned>(
    place: Place,
    text: &str,
    head: Head,
) -> Result<Placed<Spec>, ManifestError> {
    let (group, version) = head.api_version.split_once('/').unwrap_or((&head.api_version, ""));
    if version != "v1" {
        let expected = format!("{group}/v1");
        return Err(ManifestError::ApiVersion {
            place,
            kind: head.kind,
            found: head.api_version,
            expected,
        });
    }
    let object = parse(&place, text)?;
    Ok(Placed { place, object })
}

/// One document; an error names the field's path besides its line.
fn parse<T: DeserializeOwned>(place: &Place, text: &str) -> Result<T, ManifestError> {
    let mut field = String::new();
    serde_saphyr::with_deserializer_from_str(text, |deserializer| {
        serde_path_to_error::deserialize(deserializer).map_err(|error| {
            if error.path().iter().len() > 0 {
                field = format!("{}: ", error.path());
            }
            error.into_inner()
        })
    })
    .map_err(|error| ManifestError::Document {
        file: place.file.to_path_buf(),
        line: error.location().map_or(place.line as u64, |at| at.line()),
        column: error.location().map_or(1, |at| at.column()),
        field: std::mem::take(&mut field),
        message: message(&error),
    })
}

/// The parser's words without the place, which stands before them already, and the lines around.
fn message(error: &serde_saphyr::Error) -> String {
    let full = error.to_string();
    let snippet = full.split_once("-->").and_then(|(_, rest)| rest.split_once('\n'));
    let words = error.without_snippet().to_string();
    let words = words.rsplit_once(" at line ").map_or(words.as_str(), |(words, _)| words);
    snippet.map_or(words.to_owned(), |(_place, lines)| format!("{words}\n{lines}"))
}

/// The documents of a file, each with its first line. A line that begins with `---` is a marker
/// wherever it stands (YAML 1.2, 9.1.2). Every document is padded with empty lines to where it
/// begins, so that the parser's own line numbers are those of the file.
fn split_documents(text: &str) -> Vec<(usize, String)> {
    let mut documents = vec![(1, String::new())];
    for (index, line) in text.split_inclusive('\n').enumerate() {
        let is_marker = line
            .strip_prefix("---")
            .is_some_and(|rest| rest.is_empty() || rest.starts_with([' ', '\t', '\r', '\n']));
        if is_marker {
            documents.push((index + 1, "\n".repeat(index)));
        }
        if let Some((_, document)) = documents.last_mut() {
            document.push_str(line);
        }
    }
    documents
}

/// The files a path stands for. A kustomization is not a manifest and is passed over.
fn files(path: &Path) -> Result<Vec<PathBuf>, ManifestError> {
    let read = |error| ManifestError::Read { path: path.to_owned(), error };
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let entries = std::fs::read_dir(path).and_then(Iterator::collect::<Result<Vec<_>, _>>);
    let mut files: Vec<PathBuf> = entries
        .map_err(read)?
        .into_iter()
        .map(|entry| entry.path())
        .filter(|file| file.is_file() && is_manifest(file))
        .collect();
    files.sort();
    if files.is_empty() {
        return Err(ManifestError::EmptyDirectory(path.to_owned()));
    }
    Ok(files)
}

fn is_manifest(file: &Path) -> bool {
    let has = |value: Option<&std::ffi::OsStr>, wanted: &[&str]| {
        value.and_then(|value| value.to_str()).is_some_and(|value| wanted.contains(&value))
    };
    has(file.extension(), &["yaml", "yml", "json"]) && !has(file.file_stem(), &["kustomization"])
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRIGGER: &str = "\
apiVersion: eventing.knative.dev/v1
kind: Trigger
metadata: {name: buy, namespace: edge}
spec:
  broker: default
  subscriber:
    uri: http://127.0.0.1:8080/
";

    fn read(text: &str) -> Result<Manifests, ManifestError> {
        let mut manifests = Manifests::default();
        manifests.add(Path::new("edge.yaml"), text)?;
        Ok(manifests)
    }

    fn refusal(text: &str) -> String {
        read(text).expect_err(text).to_string()
    }

    #[test]
    fn many_documents_in_one_file_and_other_kinds_are_counted() {
        let text = format!(
            "# a comment only\n---\napiVersion: v1\nkind: Namespace\nmetadata: {{name: edge}}\n\
             --- # the Broker\napiVersion: eventing.knative.dev/v1\nkind: Broker\n\
             metadata:\n  name: default\n  namespace: edge\n  labels: {{a: b}}\n\
             ---\n{TRIGGER}---\n{{apiVersion: serving.knative.dev/v1, kind: Service, metadata: {{}}}}\n---\n"
        );
        let manifests = read(&text).unwrap();
        assert_eq!(manifests.brokers.len(), 1);
        assert_eq!(manifests.triggers[0].object.metadata.full_name().to_string(), "edge/buy");
        assert_eq!(manifests.triggers[0].place.to_string(), "edge.yaml:13");
        assert_eq!(manifests.skipped["Namespace"], 1);
        assert_eq!(manifests.skipped["Service"], 1);
    }

    #[test]
    fn an_unknown_field_is_refused_with_file_line_path_and_the_known_names() {
        let text =
            format!("kind: Namespace\napiVersion: v1\n---\n{TRIGGER}  deliver: {{retry: 1}}\n");
        let message = refusal(&text);
        assert!(message.starts_with("edge.yaml:11:3: spec.deliver"), "{message}");
        assert!(message.contains("unknown field `deliver`"), "{message}");
        assert!(message.contains("delivery"), "{message}");
    }

    #[test]
    fn a_wrong_value_is_refused_with_its_path_and_what_was_expected() {
        for (delivery, path, expected) in [
            ("{retry: many}", "spec.delivery.retry", "u32"),
            ("{retry: -1}", "spec.delivery.retry", "u32"),
            ("{backoffPolicy: quadratic}", "spec.delivery.backoffPolicy", "linear"),
            ("{backoffDelay: 200ms}", "spec.delivery.backoffDelay", "PT0.2S"),
            ("{timeout: soon}", "spec.delivery.timeout", "ISO 8601"),
        ] {
            let message = refusal(&format!("{TRIGGER}  delivery: {delivery}\n"));
            assert!(message.starts_with("edge.yaml:8:"), "{message}");
            assert!(message.contains(path) && message.contains(expected), "{message}");
        }
    }

    #[test]
    fn a_bad_filter_is_refused_where_it_stands() {
        let message =
            refusal(&format!("{TRIGGER}  filters:\n  - exact: {{type: a}}\n  - cesql: \"true\"\n"));
        assert!(message.starts_with("edge.yaml:10:"), "{message}");
        assert!(message.contains("spec.filters[1]"), "{message}");
        assert!(message.contains("`cesql` is not supported"), "{message}");
    }

    #[test]
    fn a_missing_part_is_named() {
        let message =
            refusal("apiVersion: eventing.knative.dev/v1\nkind: Trigger\nmetadata: {}\nspec: {}\n");
        assert!(message.contains("missing field `name`"), "{message}");
        let message =
            refusal(&TRIGGER.replace("subscriber:\n    uri: http://127.0.0.1:8080/\n", "{}"));
        assert!(message.contains("edge.yaml:"), "{message}");
        let message = refusal("just: yaml\n");
        assert!(message.contains("missing field"), "{message}");
        assert!(message.contains("apiVersion") || message.contains("kind"), "{message}");
    }

    #[test]
    fn broken_yaml_is_refused_with_its_place() {
        let message = refusal("a: [1\n");
        assert!(message.starts_with("edge.yaml:"), "{message}");
    }

    #[test]
    fn another_api_version_is_refused_with_the_expected_one() {
        let message = refusal(&TRIGGER.replace("dev/v1", "dev/v1beta1"));
        assert_eq!(
            message,
            "edge.yaml:1: Trigger has apiVersion `eventing.knative.dev/v1beta1`; \
             expected `eventing.knative.dev/v1`"
        );
    }

    #[test]
    fn a_directory_is_read_in_order_without_its_kustomization() {
        let dir = tempfile::tempdir().unwrap();
        std::fs::write(dir.path().join("b.yaml"), TRIGGER).unwrap();
        std::fs::write(dir.path().join("a.yml"), TRIGGER.replace("buy", "first")).unwrap();
        std::fs::write(dir.path().join("kustomization.yaml"), "resources: [a.yml]\n").unwrap();
        std::fs::write(dir.path().join("README.md"), "no: [yaml").unwrap();
        let manifests = Manifests::read(&[dir.path()]).unwrap();
        let names: Vec<_> =
            manifests.triggers.iter().map(|t| t.object.metadata.name.as_str()).collect();
        assert_eq!(names, ["first", "buy"]);
    }

    #[test]
    fn a_path_that_is_not_there_is_named() {
        let message = Manifests::read(&["/nonexistent/x.yaml"]).unwrap_err().to_string();
        assert!(message.contains("/nonexistent/x.yaml"), "{message}");
        let empty = tempfile::tempdir().unwrap();
        let message = Manifests::read(&[empty.path()]).unwrap_err().to_string();
        assert!(message.contains("holds no .yaml"), "{message}");
    }
}
