//! Which kind a document says it is.

use std::sync::Arc;

use super::{
    node::{Node, Value},
    problem::{Place, Problem, did_you_mean, one_of},
};

/// The document's `kind`, one of `known`.
pub fn kind(
    file: &Arc<str>,
    document: &Node,
    known: &[&'static str],
) -> Result<&'static str, Problem> {
    let problem = |node: &Node, field: &str, message: String| Problem {
        place: Place { file: Arc::clone(file), line: node.line, column: node.column },
        field: field.to_owned(),
        message,
    };
    let expected = one_of(known);
    let Value::Map(_) = document.value else {
        let message = "is not a mapping; expected a document with apiVersion, kind, metadata, spec";
        return Err(problem(document, "", message.to_owned()));
    };
    let Some(kind) = document.get("kind") else {
        return Err(problem(document, "kind", format!("is missing; expected {expected}")));
    };
    let Some(text) = kind.text() else {
        return Err(problem(kind, "kind", format!("is not text; expected {expected}")));
    };
    known.iter().find(|k| **k == text).copied().ok_or_else(|| {
        let nearest = did_you_mean(text, known.iter().copied());
        problem(kind, "kind", format!("cannot be \"{text}\" here; expected {expected}{nearest}"))
    })
}
