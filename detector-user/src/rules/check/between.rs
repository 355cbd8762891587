//! What rules and applications are to each other: a rule that another one always outweighs can never
//! match; what has no effect is worth a warning.

use std::sync::Arc;

use ipnet::IpNet;

use super::within;
use crate::{
    rules::{
        model::{Application, Rule},
        raw::{ApplicationDocument, RuleDocument},
    },
    yaml::Problem,
};

/// A checked rule and how it was written.
pub(super) type Written<'d> = (Arc<Rule>, &'d RuleDocument);

/// Rules that never match, because a final rule does whenever they would.
pub(super) fn outweighed(rules: &[Written<'_>], problems: &mut Vec<Problem>) {
    for (rule, document) in rules {
        let above = rules.iter().find(|(other, _)| always_outweighs(other, rule));
        if let (Some((above, _)), Some(spec)) = (above, document.spec.get()) {
            problems.push(spec.r#match.problem(format!(
                "can never match: rule \"{}\" is final, goes first (priority {} before {}) and \
                 matches whenever this one would; expected a higher priority here, or less in the \
                 other's match",
                above.name, above.priority, rule.priority
            )));
        }
    }
}

fn always_outweighs(above: &Rule, rule: &Rule) -> bool {
    above.is_final && above.priority > rule.priority && covers(above, rule)
}

/// Whether one fires, but for `rate` and `every`, whenever the other does.
fn covers(outer: &Rule, inner: &Rule) -> bool {
    let users = |outer: &Rule, inner: &Rule| {
        outer.ue.is_empty()
            || (!inner.ue.is_empty()
                && inner.ue.iter().all(|net| outer.ue.iter().any(|around| around.contains(net))))
    };
    outer.application.name == inner.application.name
        && users(outer, inner)
        && outer.direction.is_none_or(|way| inner.direction == Some(way))
        && (!outer.needs_session || inner.needs_session)
        && within::terms(&inner.terms, &outer.terms)
}

/// What is accepted and may not be what was meant.
pub(super) fn warnings(
    rules: &[Written<'_>],
    applications: &[(Arc<Application>, &ApplicationDocument)],
    ue_pools: &[IpNet],
) -> Vec<Problem> {
    let mut all = Vec::new();
    for (number, (rule, document)) in rules.iter().enumerate() {
        all.extend(final_for_nothing(rule, document, rules));
        all.extend(twice(rule, document, &rules[..number]));
        all.extend(outside_pools(rule, document, ue_pools));
    }
    for (application, document) in applications {
        all.extend(unused(application, document, rules));
        all.extend(linger_for_nothing(application, document));
    }
    all.sort();
    all
}

fn final_for_nothing(
    rule: &Rule,
    document: &RuleDocument,
    rules: &[Written<'_>],
) -> Option<Problem> {
    let outweighs = |other: &Rule| {
        other.application.name == rule.application.name
            && other.terms.session.is_none()
            && other.priority < rule.priority
    };
    if !rule.is_final || rules.iter().any(|(other, _)| outweighs(other)) {
        return None;
    }
    let field = document.spec.get()?.r#final.as_ref()?;
    Some(field.problem(format!(
        "has no effect: application \"{}\" has no rule with a priority below {}",
        rule.application.name, rule.priority
    )))
}

fn twice(rule: &Rule, document: &RuleDocument, before: &[Written<'_>]) -> Option<Problem> {
    let same = |other: &Rule| {
        other.emit.event_type == rule.emit.event_type
            && other.every == rule.every
            && other.terms.rate == rule.terms.rate
            && other.terms == rule.terms
            && covers(other, rule)
            && covers(rule, other)
    };
    let (other, _) = before.iter().find(|(other, _)| same(other))?;
    Some(document.spec.get()?.r#match.problem(format!(
        "is that of rule \"{}\", which makes events of the same type: each of these will come twice",
        other.name
    )))
}

/// A packet of an address outside of the pools is nobody's.
fn outside_pools(rule: &Rule, document: &RuleDocument, pools: &[IpNet]) -> Option<Problem> {
    let meet = |a: &IpNet, b: &IpNet| a.contains(b) || b.contains(a);
    let field = document.spec.get()?.ue.as_ref()?;
    let outside =
        !pools.is_empty() && !rule.ue.iter().any(|ue| pools.iter().any(|pool| meet(ue, pool)));
    outside.then(|| {
        let pools: Vec<String> = pools.iter().map(ToString::to_string).collect();
        field.problem(format!(
            "can never match: none of these addresses is in a UE pool ({}); the config's spec.uePools \
             say who is a user",
            pools.join(", ")
        ))
    })
}

fn unused(
    application: &Application,
    document: &ApplicationDocument,
    rules: &[Written<'_>],
) -> Option<Problem> {
    let used = rules.iter().any(|(rule, _)| rule.application.name == application.name);
    (!used).then(|| {
        document
            .metadata
            .name
            .problem("no rule is about this application: no event will come of it")
    })
}

fn linger_for_nothing(
    application: &Application,
    document: &ApplicationDocument,
) -> Option<Problem> {
    let written = document.spec.get()?.session.as_ref()?.get()?.linger.as_ref()?;
    let policy = application.session;
    (policy.linger >= policy.idle).then(|| {
        let idle = humantime::format_duration(policy.idle);
        written.problem(format!("has no effect: sessions end after {idle} without a packet (idle)"))
    })
}

#[cfg(test)]
mod tests;
