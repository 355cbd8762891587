use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::rules::{file, model::Rule};

/// The terms of a rule with this match.
fn terms_of(wanted: &str) -> Terms {
    let text = format!(
        "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {{name: app}}
spec: {{endpoints: [{{cidr: 10.0.0.1}}, {{cidr: 10.0.0.1, protocol: udp}}]}}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: r}}
spec: {{application: app, match: {wanted}, emit: {{type: t}}}}
"
    );
    let set = file::parse(&[("r.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}"));
    let [rule] = set.rules.as_slice() else { panic!("one rule") };
    let Rule { terms, .. } = rule.as_ref();
    terms.clone()
}

fn is_within(inner: &str, outer: &str) -> bool {
    terms(&terms_of(inner), &terms_of(outer))
}

#[test]
fn terms_that_ask_for_less_take_all_that_others_do() {
    let pairs = [
        ("{http: {method: GET, path: /a/b}}", "{http: {pathPrefix: /a}}"),
        ("{http: {host: a.example, query: {x: '1'}}}", "{http: {host: '*.example'}}"),
        ("{http: {query: {x: '12', y: a}}}", "{http: {query: {x: '1*'}}}"),
        ("{tls: {sni: a.example}}", "{tls: {}}"),
        ("{dns: {name: a.example, qtype: A}}", "{dns: {name: '*'}}"),
        ("{flow: closed}", "{flow: [opened, closed]}"),
        ("{flow: {tcpFlags: 'RST,ACK'}}", "{flow: {tcpFlags: RST}}"),
        ("{payload: {all: [{hex: aa}, {at: 4, hex: bb}]}}", "{payload: {hex: aa}}"),
        ("{http: {}, rate: {packets: 5, within: 1s}}", "{http: {}}"),
    ];
    for (inner, outer) in pairs {
        assert!(is_within(inner, outer), "{inner} within {outer}");
        assert!(!is_within(outer, inner), "{outer} not within {inner}");
    }
}

#[test]
fn other_moments_are_never_within() {
    let all =
        ["{http: {}}", "{http: {status: 200}}", "{tls: {}}", "{flow: closed}", "{flow: opened}"];
    for inner in all {
        for outer in all {
            assert_eq!(is_within(inner, outer), inner == outer, "{inner} {outer}");
        }
    }
    assert!(!is_within("{http: {}}", "{http: {}, not: {http: {path: /x}}}"));
    assert!(!is_within("{http: {}}", "{http: {}, rate: {packets: 5, within: 1s}}"));
    assert!(!is_within("{flow: {event: idle, after: 5s}}", "{flow: {event: idle, after: 9s}}"));
}

fn names() -> impl Strategy<Value = Vec<String>> {
    vec("(\\*\\.)?[ab](\\.[ab]){0,2}|\\*", 0..3)
}

fn dns_term(names: &[String]) -> DnsTerm {
    let wanted: Vec<String> = names.iter().map(|name| format!("'{name}'")).collect();
    let mut unique = wanted;
    unique.sort();
    unique.dedup();
    let wanted = match unique.as_slice() {
        [] => "{}".to_owned(),
        some => format!("{{name: [{}]}}", some.join(", ")),
    };
    match terms_of(&format!("{{dns: {wanted}}}")).message {
        Some(MessageTerm::Dns(dns)) => dns,
        other => panic!("{other:?}"),
    }
}

proptest! {
    #[test]
    fn within_is_never_said_of_names_that_are_not(
        inner in names(), outer in names(), name in "[ab](\\.[ab]){0,3}",
    ) {
        let (inner, outer) = (dns_term(&inner), dns_term(&outer));
        let takes = |term: &DnsTerm| {
            let question = crate::l7::fact::DnsQuestion { name: name.clone(), qtype: 1, qclass: 1 };
            term.asks(&question)
        };
        prop_assert!(!dns(&inner, &outer) || !takes(&inner) || takes(&outer));
    }

    #[test]
    fn within_is_never_said_of_paths_that_are_not(
        inner in select(vec!["path: /a/b", "pathPrefix: /a", "pathPrefix: /a/b/", "pathGlob: /a/*"]),
        outer in select(vec!["path: /a/b", "pathPrefix: /a/b", "pathGlob: '/a/**'", "pathRegex: b$"]),
        path in "/[ab](/[ab]){0,2}",
    ) {
        let of = |wanted: &str| match terms_of(&format!("{{http: {{{wanted}}}}}")).message {
            Some(MessageTerm::Http(http)) => http,
            other => panic!("{other:?}"),
        };
        let (inner, outer) = (of(inner), of(outer));
        let takes = |term: &HttpTerm| term.paths.iter().any(|p| p.matches(&path));
        prop_assert!(!http(&inner, &outer) || !takes(&inner) || takes(&outer));
    }
}
