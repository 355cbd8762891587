use clap::Parser;
use serde_json::Value;

use super::*;

#[derive(Debug, Parser)]
struct Cli {
    #[command(flatten)]
    args: RulesArgs,
}

fn sample() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("../manifests/samples/detector/rules.yaml")
}

/// (exit code is success, standard output, standard error)
fn checked(file: PathBuf, output: Output) -> (bool, String, String) {
    asked(Asked { files: vec![file], config: None, strict: false, output })
}

fn asked(asked: Asked) -> (bool, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let code = check(&asked, &mut out, &mut err).unwrap();
    let text = |bytes| String::from_utf8(bytes).unwrap();
    (code == ExitCode::SUCCESS, text(out), text(err))
}

#[test]
fn check_says_what_each_rule_needs() {
    let (good, out, err) = checked(sample(), Output::Text);
    assert!(good && err.is_empty(), "{err}");
    let row = |name: &str| {
        let line = out.lines().find(|line| line.trim_start().starts_with(name)).unwrap_or_default();
        line.split_whitespace().collect::<Vec<_>>().join(" ")
    };
    assert!(row("buy-click").contains("uplink HTTP POST /api/buttons/buy"), "{out}");
    assert!(row("buy-click").contains("256 payload bytes, an open session"), "{out}");
    assert!(row("app-opened").contains("one per 1m and user"), "{out}");
    assert!(
        row("session-ended")
            .contains("session ended nothing kernel notices of sessions com.example"),
        "{out}"
    );
    assert!(out.ends_with("1 application, 4 rules: good\n"), "{out}");
    assert!(!out.contains('\u{1b}'), "no colours where there is no terminal");
}

#[test]
fn check_says_where_a_rule_is_decided_and_what_that_costs() {
    let directory = tempfile::tempdir().unwrap();
    let file = directory.path().join("rules.yaml");
    let rule = |name: &str, spec: &str| {
        format!(
            "---\napiVersion: detector.dev/v1alpha1\nkind: Rule\nmetadata: {{name: {name}}}\n\
             spec: {{application: {spec}, emit: {{type: t}}}}\n"
        )
    };
    let application = |name: &str, last: u8| {
        format!(
            "---\napiVersion: detector.dev/v1alpha1\nkind: Application\nmetadata: {{name: {name}}}\n\
             spec: {{endpoints: [{{cidr: 10.0.0.{last}}}]}}\n"
        )
    };
    let text = [
        application("a", 1),
        application("b", 2),
        application("c", 3),
        rule("plain", "a, match: {http: {path: /a}}"),
        rule("host", "a, match: {http: {host: a.example}}"),
        rule("closed", "a, match: {flow: closed, tls: {}}"),
        rule("alone", "b, match: {flow: opened}"),
        rule("last", "b, final: true, priority: 5, match: {http: {}}"),
        rule("header", "c, match: {http: {path: /cart, host: c.example}}"),
    ];
    std::fs::write(&file, text.concat()).unwrap();
    let (good, out, err) = checked(file, Output::Json);
    assert!(good, "{out}{err}");
    let report: Value = serde_json::from_str(&out).unwrap();
    let decided = |n: usize| report["rules"][n]["decidedIn"].as_str().unwrap().to_owned();
    let sent = |n: usize| report["rules"][n]["sent"].as_str().unwrap().to_owned();
    assert_eq!((decided(0), sent(0)), ("kernel".to_owned(), "matches only".to_owned()));
    assert_eq!(decided(1), "user space");
    assert!(sent(1).starts_with("the first 16 KiB of TCP flows"), "{}", sent(1));
    assert!(sent(2).starts_with("ends of flows, the first 16 KiB"), "{}", sent(2));
    // A final rule brings the others of its application along.
    assert_eq!((decided(3), sent(3)), ("user space".to_owned(), "SYNs".to_owned()));
    assert_eq!((decided(4), &report["rules"][4]["final"]), ("user space".to_owned(), &true.into()));
    let kept_out = |n: usize| sent(n).contains("but no GET, HEAD");
    assert!(kept_out(5) && !kept_out(1), "{}", sent(5));
}

#[test]
fn check_prints_json_for_programs() {
    let (good, out, _) = checked(sample(), Output::Json);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(good && report["ok"] == true && report["problems"] == serde_json::json!([]));
    assert_eq!(report["applications"][0]["rules"], 4);
    assert_eq!(report["rules"][2]["name"], "buy-click");
    assert_eq!(report["rules"][2]["needsSession"], true);
    assert_eq!(report["rules"][1]["every"], "1m");
}

#[test]
fn refused_rules_are_exit_code_one_and_every_problem() {
    let bad = PathBuf::from(env!("CARGO_MANIFEST_DIR"))
        .join("testdata/refused/rules-unknown-fields.yaml");
    let (good, out, err) = checked(bad.clone(), Output::Text);
    assert!(!good && out.is_empty());
    assert!(err.contains("did you mean \"application\"?"), "{err}");
    assert!(err.ends_with("problems: rules refused\n"), "{err}");

    let (good, out, _) = checked(bad, Output::Json);
    let report: Value = serde_json::from_str(&out).unwrap();
    assert!(!good && report["ok"] == false);
    let problem = &report["problems"][1];
    assert_eq!((problem["line"].as_u64(), problem["column"].as_u64()), (Some(11), Some(3)));
}

#[test]
fn arguments_are_read_and_wrong_ones_are_usage_errors() {
    let parse = |args: &[&str]| Cli::try_parse_from([&["rules"], args].concat());
    assert!(parse(&["check", "a.yaml", "b", "--output", "json"]).is_ok());
    assert!(parse(&["schema", "--kind", "config"]).is_ok());
    for wrong in [&["check"][..], &["schema", "--kind", "pod"], &["chek"]] {
        assert_eq!(parse(wrong).unwrap_err().exit_code(), 2);
    }
    assert!(parse(&["schema"]).unwrap().args.command_is_schema());
}

impl RulesArgs {
    fn command_is_schema(&self) -> bool {
        matches!(self.command, RulesCommand::Schema { kind: None })
    }
}

/// Every property of a schema as a path, following references.
fn properties(schema: &Value, at: &Value, path: &str, found: &mut Vec<String>) {
    if let Some(reference) = at["$ref"].as_str() {
        let definition = schema.pointer(&reference[1..]).unwrap();
        properties(schema, definition, path, found);
    }
    for part in at["anyOf"].as_array().into_iter().flatten() {
        properties(schema, part, path, found);
    }
    if at["items"].is_object() {
        properties(schema, &at["items"], &format!("{path}[]"), found);
    }
    for (name, value) in at["properties"].as_object().into_iter().flatten() {
        let child = if path.is_empty() { name.clone() } else { format!("{path}.{name}") };
        found.push(child.clone());
        properties(schema, value, &child, found);
    }
}

#[test]
fn every_field_of_the_schema_is_described_and_in_the_docs() {
    let docs = include_str!("../../../docs/rules.md");
    for kind in [Kind::Rule, Kind::Application, Kind::Config] {
        let schema = schema(Some(kind)).to_value();
        let mut found = Vec::new();
        properties(&schema, &schema, "", &mut found);
        assert!(found.len() > 8, "{found:?}");
        for path in &found {
            // "A list of the same".
            let path = &path.replace("spec.sinks[]", "spec.sink");
            let inner = found.iter().any(|other| {
                other.strip_prefix(path.as_str()).is_some_and(|r| r.starts_with(['.', '[']))
            });
            let word = path.rsplit('.').next().unwrap();
            let written = docs.contains(&format!("`{path}`"))
                || path.starts_with("spec.match.") && docs.contains(&format!("`{word}"))
                || inner
                || !path.starts_with("spec");
            assert!(written, "docs/rules.md says nothing about {path}");
        }
    }
}

#[test]
fn schema_knows_required_and_refuses_unknown_fields() {
    let schema = schema(Some(Kind::Rule)).to_value();
    assert_eq!(schema["required"], serde_json::json!(["apiVersion", "kind", "metadata", "spec"]));
    assert_eq!(schema["additionalProperties"], false);
    let spec = &schema["$defs"]["RuleSpec"];
    assert_eq!(spec["required"], serde_json::json!(["application", "match", "emit"]));
    assert_eq!(
        spec["properties"]["application"]["pattern"],
        "^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$"
    );
}

/// A directory with rules that have one thing worth a warning, and a config for them.
fn suspicious() -> tempfile::TempDir {
    let directory = tempfile::tempdir().unwrap();
    let rules = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: a}
spec: {endpoints: [{cidr: 10.0.0.1}]}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: r}
spec: {application: a, ue: [10.9.0.0/16], final: true, match: {http: {}}, emit: {type: t}}
";
    let config = "apiVersion: detector.dev/v1alpha1
kind: Config
spec:
  devices: [{name: n6}]
  uePools: [{name: phones, cidr: 10.60.0.0/16}]
  rules: [rules.yaml]
";
    std::fs::write(directory.path().join("rules.yaml"), rules).unwrap();
    std::fs::write(directory.path().join("config.yaml"), config).unwrap();
    directory
}

#[test]
fn a_warning_is_said_and_refuses_only_when_asked_to() {
    let directory = suspicious();
    let files = vec![directory.path().join("rules.yaml")];
    let check =
        |strict, output| asked(Asked { files: files.clone(), config: None, strict, output });
    let (good, out, err) = check(false, Output::Text);
    assert!(good && out.ends_with("good\n"), "{out}{err}");
    assert!(err.contains("rules.yaml:9:50: spec.final: has no effect"), "{err}");
    let (good, _, err) = check(true, Output::Text);
    assert!(!good && err.ends_with("1 warning: refused (--strict)\n"), "{err}");
    for strict in [false, true] {
        let (good, out, _) = check(strict, Output::Json);
        let report: Value = serde_json::from_str(&out).unwrap();
        assert_eq!((good, &report["ok"]), (!strict, &Value::from(!strict)));
        assert_eq!(report["warnings"][0]["field"], "spec.final");
        assert_eq!(report["problems"], serde_json::json!([]));
    }
}

#[test]
fn with_a_config_its_rules_are_checked_for_its_users() {
    let directory = suspicious();
    let config = Some(directory.path().join("config.yaml"));
    let (good, out, err) =
        asked(Asked { files: Vec::new(), config, strict: false, output: Output::Text });
    assert!(good, "{out}{err}");
    assert!(
        err.contains("spec.ue: can never match: none of these addresses is in a UE pool"),
        "{err}"
    );
}
