use std::{collections::BTreeSet, time::Duration};

use detector_common::{
    http::HttpMethod,
    packet::{Direction, Protocol},
};
use proptest::prelude::*;

use super::*;
use crate::rules::{
    model::{HttpRequestMatch, PathMatch, Rule, SessionEvent, Signature, Terms},
    template::{DataTemplate, Template},
};

const SAMPLE: &str = include_str!("../../../manifests/samples/detector/rules.yaml");
const APPLICATION: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  endpoints: [{cidr: 10.45.0.10, ports: [80, \"8080-8090\"]}, {cidr: \"fd00::/64\", protocol: udp}]
---
";

fn rule(name: &str, spec: &str) -> String {
    format!(
        "apiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {{name: {name}}}\n\
         spec: {{application: shop, {spec}, emit: {{type: t}}}}\n---\n"
    )
}

fn set(rules: &str) -> RuleSet {
    let text = format!("{APPLICATION}{rules}");
    parse(&[("r.yaml", text.as_bytes())]).unwrap_or_else(|e| panic!("{e}"))
}

fn refused(text: &str) -> String {
    parse(&[("r.yaml", text.as_bytes())]).expect_err("must be refused").to_string()
}

#[test]
fn bad_files_are_refused_with_place_field_and_advice() {
    let count = yaml::golden::check("rules-", |name, bytes| parse(&[(name, bytes)]).err());
    assert!(count >= 30, "only {count} files");
}

#[test]
fn every_shipped_rules_file_loads() {
    let manifests = Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests/**/rules*.yaml");
    let mut loaded = 0;
    for path in glob::glob(manifests.to_str().unwrap()).unwrap() {
        let Checked { set, warnings } =
            load(&[path.unwrap()], &[]).unwrap_or_else(|e| panic!("{e}"));
        assert_eq!(warnings, [], "shipped");
        assert!(!set.rules.is_empty());
        loaded += 1;
    }
    assert!(loaded >= 2, "base, samples; found {loaded}");
}

#[test]
fn what_is_left_out_has_its_default() {
    let set = set(&rule("r", "match: {http: {}}"));
    let application = &set.applications[0];
    assert_eq!(application.session.idle, Duration::from_secs(30));
    assert_eq!(application.session.linger, Duration::from_secs(2));
    let endpoints: Vec<_> = application
        .endpoints
        .iter()
        .map(|e| (e.prefix.to_string(), e.ports.clone(), e.protocol))
        .collect();
    assert_eq!(
        endpoints,
        [
            ("10.45.0.10/32".to_owned(), 80..=80, Protocol::Tcp),
            ("10.45.0.10/32".to_owned(), 8080..=8090, Protocol::Tcp),
            ("fd00::/64".to_owned(), 1..=u16::MAX, Protocol::Udp),
        ]
    );
    let rule = &set.rules[0];
    assert!(Arc::ptr_eq(&rule.application, application));
    assert_eq!((rule.direction, rule.capture, rule.every), (Some(Direction::Uplink), 256, None));
    assert!(rule.ue.is_empty() && !rule.needs_session);
    assert_eq!(rule.emit.subject, Template::parse("{ue.ip}").unwrap());
    assert_eq!(rule.emit.data, DataTemplate::Everything);
}

#[test]
fn every_signature_is_read() {
    let set = set(&[
        rule("a", "match: {http: {method: POST, path: /buy}}, every: 500ms, session: required"),
        rule("b", "match: {http: {method: [GET, PUT], pathPrefix: /}}, direction: any, capture: 8"),
        rule("c", "match: {flow: opened}, ue: [10.60.0.0/16], direction: downlink"),
        rule("d", "match: {udp: first-packet}"),
        rule("e", "match: {session: started}"),
        rule("f", "match: {session: ended}"),
    ]
    .concat());
    let http = |methods: &[HttpMethod], path| {
        Signature::HttpRequest(HttpRequestMatch { methods: methods.to_vec(), path })
    };
    let signatures: Vec<_> = set.rules.iter().map(|rule| rule.signature().unwrap()).collect();
    assert_eq!(
        signatures,
        [
            http(&[HttpMethod::Post], PathMatch::Exact("/buy".to_owned())),
            http(&[HttpMethod::Get, HttpMethod::Put], PathMatch::Prefix("/".to_owned())),
            Signature::TcpOpened,
            Signature::UdpFirstPacket,
            Signature::SessionStarted,
            Signature::SessionEnded,
        ]
    );
    let facts: Vec<_> =
        set.rules.iter().map(|r| (r.direction, r.capture, r.needs_session)).collect();
    assert_eq!(
        facts,
        [
            (Some(Direction::Uplink), 256, true),
            (None, 8, false),
            (Some(Direction::Downlink), 0, false),
            (Some(Direction::Uplink), 256, false),
            (None, 0, false),
            (None, 0, false),
        ]
    );
    assert_eq!(set.rules[0].every, Some(Duration::from_millis(500)));
    assert_eq!(set.rules[2].ue, ["10.60.0.0/16".parse().unwrap()]);
}

#[test]
fn sample_and_examples_of_the_docs_are_rules() {
    let sample = parse(&[("sample", SAMPLE.as_bytes())]).unwrap_or_else(|e| panic!("{e}"));
    let names: Vec<&str> = sample.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["session-started", "app-opened", "buy-click", "session-ended"]);

    let docs = include_str!("../../../docs/rules.md");
    let examples: Vec<&str> = docs
        .split("```yaml\n")
        .skip(1)
        .map(|rest| rest.split("```").next().unwrap())
        .filter(|example| !example.contains("kind: Config"))
        .collect();
    let files: Vec<(&str, &[u8])> = examples.iter().map(|e| ("docs", e.as_bytes())).collect();
    let set = parse(&files).unwrap_or_else(|e| panic!("{e}"));
    let words: BTreeSet<&str> = set.rules.iter().flat_map(|rule| shown(rule)).collect();
    let every = [
        "closed",
        "coap",
        "dns",
        "final",
        "gtpu",
        "http",
        "idle",
        "mqtt",
        "not",
        "opened",
        "payload",
        "quic",
        "rate",
        "session ended",
        "session started",
        "status",
        "tcpFlags",
        "tls",
        "udp",
    ];
    assert_eq!(words, BTreeSet::from(every), "an example for every term");
}

/// What the example shows.
fn shown(rule: &Rule) -> Vec<&'static str> {
    let Terms { session, udp_first, flow, message, payload, gtpu, not, rate } = &rule.terms;
    let there = [
        (*udp_first, "udp"),
        (*session == Some(SessionEvent::Started), "session started"),
        (*session == Some(SessionEvent::Ended), "session ended"),
        (payload.is_some(), "payload"),
        (gtpu.is_some(), "gtpu"),
        (!not.is_empty(), "not"),
        (rate.is_some(), "rate"),
        (rule.is_final, "final"),
        (rule.terms.http().is_some_and(|http| http.is_response()), "status"),
        (flow.as_ref().is_some_and(|flow| !flow.tcp_flags.is_empty()), "tcpFlags"),
    ];
    let mut words: Vec<_> =
        there.iter().filter_map(|(there, word)| there.then_some(*word)).collect();
    words.extend(message.as_ref().map(|message| message.kind().word()));
    words.extend(flow.iter().flat_map(|flow| flow.events.iter().map(|event| event.word())));
    words
}

#[test]
fn anchors_and_merge_keys_save_writing() {
    let text = "apiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {name: r}\nspec:\n  \
                application: shop\n  match: {http: &h {path: /a}}\n  emit: {type: t, data: {m: {<<: *h}}}\n";
    assert_eq!(set(text).rules.len(), 1);
}

#[test]
fn five_thousand_rules_get_one_message_with_the_limit() {
    let rules: String =
        (0..5_000).map(|i| rule(&format!("r{i}"), "match: {flow: opened}")).collect();
    assert_eq!(
        refused(&format!("{APPLICATION}{rules}")),
        "r.yaml:5127:1: there are 5000 rules, this is number 1025; expected at most 1024"
    );
    let rules: String =
        (0..1_024).map(|i| rule(&format!("r{i}"), "match: {flow: opened}")).collect();
    assert_eq!(set(&rules).rules.len(), 1_024);
}

#[test]
fn too_many_applications_are_refused() {
    let one = |i: usize| {
        APPLICATION
            .replace("name: shop", &format!("name: a{i}"))
            .replace("10.45.0.10", &format!("10.{}.{}.1", i / 256, i % 256))
            .replace("fd00::", &format!("fd00:{i:x}::"))
    };
    let text: String = (0..1_025).map(one).collect();
    assert!(refused(&text).contains("there are 1025 applications"), "{}", refused(&text));
}

#[test]
fn hostile_yaml_is_refused_by_budget() {
    let nested = format!("a: {}1{}", "{a: ".repeat(1_000), "}".repeat(1_000));
    assert!(refused(&nested).contains("nested too deeply; expected at most 32 levels"));
    let lists = format!("a: {}", "[".repeat(100_000));
    assert!(refused(&lists).contains("is no usable YAML"));

    let bomb = |levels: usize| {
        let mut bomb = "---\na0: &a0 [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
        for i in 1..levels {
            let tenfold = vec![format!("*a{}", i - 1); 10].join(",");
            bomb += &format!("a{i}: &a{i} [{tenfold}]\n");
        }
        bomb
    };
    assert!(refused(&bomb(9)).contains("aliases stand for too much"), "{}", refused(&bomb(9)));
    // Each within the limit on aliases, all together not within that on values.
    assert!(refused(&bomb(4).repeat(40)).contains("at most 300000 values in a file"));
}

#[test]
fn a_file_of_nothing_but_mistakes_is_left_early() {
    let problems = parse(&[("r.yaml", "---\na\n".repeat(2_000).as_bytes())]).unwrap_err();
    assert_eq!(problems.list().len(), ENOUGH_PROBLEMS);
    let list =
        format!("kind: Rule\nspec: {{match: {{http: {{method: [{}]}}}}}}", "x,".repeat(5_000));
    let problems = parse(&[("r.yaml", list.as_bytes())]).unwrap_err();
    assert_eq!(problems.list().len(), 1_000);
}

#[test]
fn a_huge_file_is_refused_unread() {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("huge.yaml");
    std::fs::File::create(&path).unwrap().set_len(100 << 20).unwrap();
    let said = load(std::slice::from_ref(&path), &[]).unwrap_err().to_string();
    assert_eq!(said, format!("{}: is too large; expected at most 8 MiB", path.display()));
}

#[test]
fn bytes_that_are_no_text_are_placed() {
    let said = parse(&[("r.yaml", b"kind: Rule\na: \xff".as_slice())]).unwrap_err().to_string();
    assert_eq!(said, "r.yaml:2:4: is not text; expected YAML in UTF-8");
}

#[test]
fn a_directory_is_read_in_the_order_of_names_and_not_descended_into() {
    let directory = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| std::fs::write(directory.path().join(name), text).unwrap();
    write("20.yml", &rule("second", "match: {flow: opened}"));
    write("10.yaml", &rule("first", "match: {flow: opened}"));
    write("30.yaml", APPLICATION);
    write("notes.txt", "no: rules");
    // As kubelet mounts a ConfigMap: the data a second time, in a directory of its own.
    std::fs::create_dir(directory.path().join("..data")).unwrap();
    write("..data/10.yaml", &rule("first", "match: {flow: opened}"));
    let set = load(&[directory.path().to_owned()], &[]).unwrap_or_else(|e| panic!("{e}")).set;
    let names: Vec<&str> = set.rules.iter().map(|rule| rule.name.as_str()).collect();
    assert_eq!(names, ["first", "second"]);
}

#[test]
fn in_a_directory_pipes_are_refused_and_links_that_lead_nowhere_are_named() {
    let directory = tempfile::tempdir().unwrap();
    let path = |name: &str| directory.path().join(name);
    std::fs::write(path("10.yaml"), APPLICATION).unwrap();
    nix::unistd::mkfifo(&path("20.yaml"), nix::sys::stat::Mode::S_IRUSR).unwrap();
    std::os::unix::fs::symlink("nowhere", path("30.yaml")).unwrap();
    for load in [load, load_untrusted] {
        let said = load(&[directory.path().to_owned()], &[]).unwrap_err().to_string();
        assert!(said.contains("20.yaml: is a pipe; expected a regular file"), "{said}");
        assert!(said.contains("30.yaml: cannot be read: No such file"), "{said}");
    }
}

#[test]
fn what_cannot_be_found_is_named() {
    let directory = tempfile::tempdir().unwrap();
    let missing = directory.path().join("missing.yaml");
    let said = load(&[missing.clone(), directory.path().to_owned()], &[]).unwrap_err().to_string();
    assert_eq!(
        said,
        format!(
            "{}: has no rules; expected *.yaml or *.yml files in it\n{}: cannot be read: No such \
             file or directory (os error 2)",
            directory.path().display(),
            missing.display()
        )
    );
}

#[test]
fn a_missing_file_does_not_make_its_applications_unknown() {
    let directory = tempfile::tempdir().unwrap();
    let rules = directory.path().join("rules.yaml");
    std::fs::write(&rules, rule("r", "match: {flow: opened}")).unwrap();
    let said = load(&[directory.path().join("apps.yaml"), rules], &[]).unwrap_err();
    assert_eq!(said.list().len(), 1, "{said}");
}

#[test]
fn names_are_unique_over_all_files() {
    let one = rule("r", "match: {flow: opened}");
    let files = [("a.yaml", APPLICATION), ("b.yaml", &one), ("c.yaml", &one)];
    let files = files.map(|(name, text)| (name, text.as_bytes()));
    assert_eq!(
        parse(&files).unwrap_err().to_string(),
        "c.yaml:3:18: metadata.name: \"r\" is taken already, at b.yaml:3:18; expected a name of \
         its own"
    );
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = parse(&[("r.yaml", &bytes)]);
    }

    #[test]
    fn arbitrary_yaml_letters_never_panic(text in "[a-z0-9:{}\\[\\],\"'|>&*!%#@`?. \n-]{0,200}") {
        let _ = parse(&[("r.yaml", text.as_bytes())]);
    }

    #[test]
    fn a_damaged_sample_never_panics_and_every_problem_has_a_place(
        cut in 0..SAMPLE.len(),
        length in 0..40_usize,
        put in "[a-z0-9:{}\\[\\],\"&*/. \n-]{0,20}",
    ) {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        bytes.splice(cut..(cut + length).min(SAMPLE.len()), put.bytes());
        if let Err(problems) = parse(&[("r.yaml", &bytes)]) {
            let lines = bytes.iter().filter(|&&b| b == b'\n').count() + 1;
            for problem in problems.list() {
                prop_assert!((1..=lines).contains(&(problem.place.line as usize)), "{}", problem);
                // As printed: a message repeats what was written, which may be a value of two lines.
                let shown = problem.to_string();
                prop_assert!(!problem.message.is_empty() && !shown.contains('\n'), "{}", shown);
            }
        }
    }
}
