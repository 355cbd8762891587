//! Lists of alternatives: none of them empty, nothing in them twice.

use std::collections::HashSet;

use crate::yaml::{Field, OneOrMany, Problem};

/// The values of a field that may be one or a list; empty if it was left out.
pub(super) fn values<T, U: PartialEq>(
    field: Option<&Field<OneOrMany<T>>>,
    what: &str,
    problems: &mut Vec<Problem>,
    mut usable: impl FnMut(&T) -> U,
    text: impl Fn(&U) -> String,
) -> Vec<U> {
    let Some((field, value)) = field.and_then(|field| Some((field, field.get()?))) else {
        return Vec::new();
    };
    let list = match value {
        OneOrMany::One(one) => return vec![usable(one)],
        OneOrMany::Many(list) => list,
    };
    if list.is_empty() {
        problems.push(field.problem(format!(
            "is empty; expected at least one {what}, or leave it out for every {what}"
        )));
    }
    // Compared one with another only where they look the same: lists may have thousands.
    let (mut values, mut texts) = (Vec::new(), HashSet::new());
    for (field, value) in list.iter().filter_map(|field| Some((field, usable(field.get()?)))) {
        match !texts.insert(text(&value)) && values.contains(&value) {
            true => problems.push(field.problem(format!("{} is listed twice", text(&value)))),
            false => values.push(value),
        }
    }
    values
}
