use crate::rules::file::{Checked, load_untrusted};

/// The warnings about these rules of the application `shop`, without their places.
fn warnings(session: &str, rules: &[&str], pools: &[&str]) -> Vec<String> {
    let mut text = format!(
        "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {{name: shop}}
spec: {{endpoints: [{{cidr: 10.45.0.10}}]{session}}}
"
    );
    for (number, rule) in rules.iter().enumerate() {
        text += &format!(
            "---\napiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {{name: r{number}}}\n\
             spec: {{application: shop, {rule}}}\n"
        );
    }
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yaml");
    std::fs::write(&file, text).unwrap();
    let pools: Vec<_> = pools.iter().map(|pool| pool.parse().unwrap()).collect();
    let Checked { warnings, .. } =
        load_untrusted(&[file], &pools).unwrap_or_else(|e| panic!("{e}"));
    warnings.iter().map(|w| format!("{}: {}", w.field, w.message)).collect()
}

const ANY: &str = "match: {http: {}}, emit: {type: t}";

#[test]
fn rules_that_mean_what_they_say_give_no_warning() {
    let rules = [
        "priority: 5, final: true, match: {http: {path: /a}}, emit: {type: a}",
        ANY,
        "match: {http: {}}, every: 1s, emit: {type: t}",
        "match: {http: {}}, emit: {type: other}",
        "ue: [10.60.0.7], match: {http: {}}, emit: {type: t}",
    ];
    assert_eq!(warnings("", &rules, &["10.60.0.0/16"]), [""; 0]);
}

#[test]
fn final_over_no_other_rule_has_no_effect() {
    let said = warnings("", &["final: true, match: {http: {}}, emit: {type: t}"], &[]);
    assert_eq!(
        said,
        ["spec.final: has no effect: application \"shop\" has no rule with a priority below 0"]
    );
}

#[test]
fn a_rule_written_twice_makes_its_events_twice() {
    let said = warnings("", &[ANY, ANY], &[]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("spec.match: is that of rule \"r0\""), "{said:?}");
}

#[test]
fn users_outside_of_the_pools_are_never_seen() {
    let rule = ["ue: [192.0.2.0/24, 'fd00::/64'], match: {http: {}}, emit: {type: t}"];
    let said = warnings("", &rule, &["10.60.0.0/16", "2001:db8::/32"]);
    assert_eq!(said.len(), 1, "{said:?}");
    assert!(said[0].starts_with("spec.ue: can never match: none of these"), "{said:?}");
    assert_eq!(warnings("", &rule, &[]), [""; 0], "no pools are known");
    assert_eq!(warnings("", &rule, &["192.0.0.0/8"]), [""; 0]);
    assert_eq!(warnings("", &rule, &["192.0.2.9/32"]), [""; 0], "some of them are users");
}

#[test]
fn an_application_without_rules_is_watched_for_nothing() {
    let said = warnings("", &[], &[]);
    assert!(said[0].starts_with("metadata.name: no rule is about this application"), "{said:?}");
}

#[test]
fn a_linger_that_is_longer_than_idle_has_no_effect() {
    let said = warnings(", session: {idle: 5s, linger: 5s}", &[ANY], &[]);
    assert!(
        said[0].starts_with("spec.session.linger: has no effect: sessions end after 5s"),
        "{said:?}"
    );
    assert_eq!(warnings(", session: {idle: 1s}", &[ANY], &[]), [""; 0], "it was not asked for");
}
