//! The event: templates that name only what the rule can see.

use crate::{
    rules::{
        field::Field as Seen,
        model::{Emit, Terms},
        raw::{Data, EmitSpec},
        template::{DataTemplate, DataTree, Template},
    },
    yaml::{Field, Problem},
};

use super::terms::in_words;

/// `None` if something in it was refused. Without terms (refused too) only the templates
/// themselves are looked at.
pub(super) fn check(
    spec: &EmitSpec,
    terms: Option<&Terms>,
    problems: &mut Vec<Problem>,
) -> Option<Emit> {
    let mut templates = Templates { terms, problems };
    let subject = match &spec.subject {
        None => Template::of(Seen::ue_ip()),
        Some(field) => templates.check(field, field.get()?),
    };
    if let Some(field) = &spec.subject
        && subject == Template::default()
    {
        let message = "is empty; expected text such as {ue.ip}, or leave it out";
        templates.problems.push(field.problem(message));
    }
    let data = match &spec.data {
        None => DataTemplate::Everything,
        Some(field) => DataTemplate::Tree(templates.tree(field)?),
    };
    Some(Emit {
        event_type: spec.r#type.get()?.0.clone(),
        subject,
        dataschema: match &spec.dataschema {
            None => None,
            Some(field) => Some(field.get()?.0.clone()),
        },
        data,
    })
}

struct Templates<'a> {
    terms: Option<&'a Terms>,
    problems: &'a mut Vec<Problem>,
}

impl Templates<'_> {
    fn check<T>(&mut self, field: &Field<T>, template: &Template) -> Template {
        let Some(terms) = self.terms else { return template.clone() };
        for (name, available) in template.fields().filter(|(_, available)| !available.with(terms)) {
            self.problems.push(field.problem(format!(
                "{{{}}} can never be there: it comes with {}, and this rule matches \"{}\"",
                name,
                available.words(),
                in_words(terms)
            )));
        }
        template.clone()
    }

    fn tree(&mut self, field: &Field<Data>) -> Option<DataTree> {
        Some(match field.get()? {
            Data::Literal(value) => DataTree::Literal(value.clone()),
            Data::Text(template) => DataTree::Text(self.check(field, template)),
            Data::List(list) => {
                // All items are looked at, also after a bad one.
                let items: Vec<_> = list.iter().map(|item| self.tree(item)).collect();
                DataTree::List(items.into_iter().collect::<Option<_>>()?)
            }
            Data::Map(map) => {
                let entries: Vec<_> =
                    map.iter().map(|(key, value)| Some((key.clone(), self.tree(value)?))).collect();
                DataTree::Map(entries.into_iter().collect::<Option<_>>()?)
            }
        })
    }
}
