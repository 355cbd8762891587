use detector_common::packet::Layer;
use proptest::{collection::vec, prelude::*, sample::select};

use super::*;
use crate::{
    l7::dns,
    rules::{compile::compile, file, model::RuleSet},
    source::software::SoftwareClassifier,
};

/// Rules of a resolver, one for each of these `dns` terms.
fn rules(terms: &[String]) -> RuleSet {
    let mut text = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: resolver}
spec: {endpoints: [{cidr: 10.45.0.53, protocol: udp}]}
"
    .to_owned();
    for (number, term) in terms.iter().enumerate() {
        text += &format!(
            "---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {{name: r{number}}}
spec: {{application: resolver, direction: any, match: {{dns: {term}}}, emit: {{type: t}}}}
"
        );
    }
    file::parse(&[("rules.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}\n{text}"))
}

fn asking_for(names: &[String]) -> RuleSet {
    rules(&names.iter().map(|name| format!("{{name: '{name}'}}")).collect::<Vec<_>>())
}

fn query(questions: u16, rest: &[u8]) -> Vec<u8> {
    let [high, low] = questions.to_be_bytes();
    [&[0, 7, 1, 0, high, low, 0, 0, 0, 0, 0, 0], rest].concat()
}

/// A query for one name, as it stands on the wire, and its type and class.
fn wire(name: &str) -> Vec<u8> {
    let labels =
        name.split('.').flat_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat());
    labels.chain(*b"\0\0\x01\0\x01").collect()
}

fn packet(payload: &[u8]) -> Vec<u8> {
    let length = |more: usize| (more + payload.len()) as u16;
    let [high, low] = length(28).to_be_bytes();
    let ip = [&[0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 60, 0, 2, 10, 45, 0, 53][..]];
    let [high, low] = length(8).to_be_bytes();
    [ip[0], &[0x80, 0, 0, 53, high, low, 0, 0], payload].concat()
}

/// Whether user space is shown the message.
fn shown(set: &RuleSet, payload: &[u8]) -> bool {
    let image = compile(set, &[], 1).expect("compiles");
    let mut software = SoftwareClassifier::new(image);
    // The session's begin is a record of its own.
    software.inspect(&packet(b"hello"), Layer::Ip, 1, 1);
    software.inspect(&packet(payload), Layer::Ip, 1, 2).is_some()
}

/// Whether one of the rules asks for the message.
fn asked_for(set: &RuleSet, payload: &[u8]) -> bool {
    let Some(message) = dns::message(payload) else { return false };
    set.rules.iter().any(|rule| match &rule.terms.message {
        Some(MessageTerm::Dns(term)) => term.matches(&message),
        _ => false,
    })
}

#[test]
fn messages_with_other_names_stay_out_of_the_ring() {
    let set = asking_for(&["shop.example".to_owned(), "*.cdn.example".to_owned()]);
    let of = |name| shown(&set, &query(1, &wire(name)));
    for name in ["shop.example", "SHOP.Example", "a.cdn.example", "a.b.c.CDN.example"] {
        assert!(of(name), "{name}");
    }
    for name in ["example", "a.shop.example", "xshop.example", "cdn.example", "acdn.example", "x"] {
        assert!(!of(name), "{name}");
    }
    let response =
        [&[0, 7, 0x81, 0x83, 0, 1, 0, 0, 0, 1, 0, 0][..], &wire("other.example")].concat();
    assert!(!shown(&set, &response), "a response has its question");
}

#[test]
fn what_is_not_one_plain_question_is_shown() {
    let set = asking_for(&["shop.example".to_owned()]);
    let longest = wire(&["a".repeat(63), "b".repeat(63), "c".repeat(63), "d".repeat(62)].join("."));
    let odd: [(&str, u16, Vec<u8>); 10] = [
        ("two questions", 2, [wire("a"), wire("shop.example")].concat()),
        ("no question", 0, Vec::new()),
        ("the root", 1, b"\0\0\x02\0\x01".to_vec()),
        ("a pointer", 1, b"\x01a\xc0\x0c\0\x01\0\x01".to_vec()),
        ("a label of bits", 1, b"\x41\x08\xff\0\0\x01\0\x01".to_vec()),
        ("a dot in a label", 1, b"\x0cshop.example\0\0\x01\0\x01".to_vec()),
        ("a dot at the end of a label", 1, b"\x04shop\x08example.\0\0\x01\0\x01".to_vec()),
        ("a zero in a label", 1, b"\x03a\0b\0\0\x01\0\x01".to_vec()),
        ("letters beyond ASCII", 1, "\x02ü\0\0\x01\0\x01".as_bytes().to_vec()),
        ("a name that is too long", 1, longest),
    ];
    for (what, questions, rest) in odd {
        assert!(shown(&set, &query(questions, &rest)), "{what}");
    }
    assert!(shown(&set, &query(1, b"\x04shop\x07exam")), "a name that is cut");
}

#[test]
fn a_rule_that_takes_any_name_is_shown_all() {
    for any in ["{}", "{qtype: A}", "{name: '*'}", "{name: [shop.example, '*']}"] {
        let set = rules(&["{name: shop.example}".to_owned(), any.to_owned()]);
        assert!(shown(&set, &query(1, &wire("other.example"))), "{any}");
    }
}

#[test]
fn thousands_of_names_are_no_reason_to_show_others() {
    let names: Vec<String> = (0..5_000).map(|n| format!("n{n}.example")).collect();
    let set = rules(&[format!("{{name: [{}]}}", names.join(", "))]);
    let image = compile(&set, &[], 1).expect("compiles");
    let mut software = SoftwareClassifier::new(image);
    software.inspect(&packet(b"hello"), Layer::Ip, 1, 1);
    let mut shown =
        |name: &str| software.inspect(&packet(&query(1, &wire(name))), Layer::Ip, 1, 2).is_some();
    assert!(names.iter().all(|name| shown(name)));
    let others = (0..5_000).filter(|n| shown(&format!("o{n}.example"))).count();
    assert!(others < 50, "{others} of 5,000 by chance");
}

/// Patterns and names that meet often.
fn patterns() -> impl Strategy<Value = Vec<String>> {
    vec("(\\*\\.)?[ab]{1,2}(\\.[ab]{1,2}){0,2}", 1..4)
}

/// Parts of what may stand where a name is expected.
fn part() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        8 => "[aAbB]{1,2}".prop_map(|label| [&[label.len() as u8][..], label.as_bytes()].concat()),
        1 => Just(b"\0\0\x01\0\x01".to_vec()),
        1 => Just(b"\x03a.b".to_vec()),
        1 => Just(b"\x02b.".to_vec()),
        1 => vec(any::<u8>(), 0..3),
        1 => select(vec![b"\xc0\x0c".to_vec(), b"\xc0\x0e".to_vec(), b"\x41\x08a".to_vec()]),
    ]
}

proptest! {
    #[test]
    fn a_plain_name_is_shown_if_it_is_asked_for_and_only_then(
        patterns in patterns(), name in "[aAbB]{1,2}(\\.[aAbB]{1,2}){0,4}",
    ) {
        let set = asking_for(&patterns);
        let message = query(1, &wire(&name));
        prop_assert_eq!(shown(&set, &message), asked_for(&set, &message));
    }

    #[test]
    fn what_is_hidden_no_rule_asks_for(
        patterns in patterns(), parts in vec(part(), 0..8), questions in 0..3u16, flags in 0..2u8,
    ) {
        let set = asking_for(&patterns);
        let mut message = query(questions, &[parts.concat(), b"\0\0\x01\0\x01".to_vec()].concat());
        message[2] |= flags << 7;
        prop_assert!(shown(&set, &message) || !asked_for(&set, &message));
    }
}
