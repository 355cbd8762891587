//! The event: templates that name only what the rule can see.

use crate::{
    rules::{
        field::Field as Seen,
        model::{Emit, Signature},
        raw::{Data, EmitSpec},
        template::{DataTemplate, DataTree, Template},
    },
    yaml::{Field, Problem},
};

use super::signature::term;

/// `None` if something in it was refused. Without a signature (refused too) only the templates
/// themselves are looked at.
pub(super) fn check(
    spec: &EmitSpec,
    signature: Option<&Signature>,
    problems: &mut Vec<Problem>,
) -> Option<Emit> {
    let mut templates = Templates { signature, problems };
    let subject = match &spec.subject {
        None => Template::of(Seen::UeIp),
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
    signature: Option<&'a Signature>,
    problems: &'a mut Vec<Problem>,
}

impl Templates<'_> {
    fn check<T>(&mut self, field: &Field<T>, template: &Template) -> Template {
        let Some(signature) = self.signature else { return template.clone() };
        for seen in template.fields().filter(|seen| !seen.available().with(signature)) {
            self.problems.push(field.problem(format!(
                "{{{}}} can never be there: it comes with {}, and this rule matches \"{}\"",
                seen.name(),
                seen.available().words(),
                term(signature)
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
