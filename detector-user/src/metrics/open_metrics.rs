//! A strict reader of the OpenMetrics text format 1.0, as far as the agent uses it, for tests.

use std::collections::{BTreeMap, BTreeSet};

/// The metric family that lines belong to at the moment.
#[derive(Default)]
struct Family {
    name: String,
    kind: String,
    help: bool,
}

/// Every sample by its name with labels, e.g. `detector_x_total{a="b"}`; panics at the first
/// line that breaks the format, or the rules of the agent's own names.
pub(crate) fn read(text: &str) -> BTreeMap<String, f64> {
    let body = text.strip_suffix("# EOF\n").expect("ends with # EOF");
    let (mut samples, mut family, mut families) =
        (BTreeMap::new(), Family::default(), BTreeSet::new());
    for line in body.lines() {
        if let Some(comment) = line.strip_prefix("# ") {
            let mut words = comment.splitn(3, ' ');
            let [keyword, name, rest] = std::array::from_fn(|_| words.next().expect(line));
            if name != family.name {
                assert!(families.insert(name.to_owned()), "family {name} comes twice");
                family = Family { name: name.to_owned(), ..Family::default() };
            }
            describe(&mut family, keyword, rest, line);
        } else {
            let (key, value) = line.rsplit_once(' ').expect(line);
            check_key(&family, key);
            let value = value.parse().unwrap_or_else(|_| panic!("{line}"));
            assert!(samples.insert(key.to_owned(), value).is_none(), "{key} comes twice");
        }
    }
    samples
}

fn describe(family: &mut Family, keyword: &str, rest: &str, line: &str) {
    assert!(family.name.starts_with("detector_"), "{line}");
    match keyword {
        "HELP" => {
            assert!(rest.len() > 10 && rest.ends_with('.') && !rest.ends_with(".."), "{line}");
            family.help = true;
        }
        "TYPE" => {
            assert!(["counter", "gauge", "histogram", "info"].contains(&rest), "{line}");
            rest.clone_into(&mut family.kind);
        }
        "UNIT" => assert!(family.name.ends_with(&format!("_{rest}")), "{line}"),
        _ => panic!("unknown keyword: {line}"),
    }
}

fn check_key(family: &Family, key: &str) {
    assert!(family.help && !family.kind.is_empty(), "{key} has no HELP or TYPE before it");
    let (name, labels) = key.split_once('{').unwrap_or((key, "}"));
    let suffix = name.strip_prefix(&family.name).unwrap_or_else(|| panic!("{key}: wrong family"));
    let allowed: &[&str] = match family.kind.as_str() {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        _ => &["_bucket", "_sum", "_count"],
    };
    assert!(allowed.contains(&suffix), "{key} is no sample of a {}", family.kind);
    let labels = labels.strip_suffix('}').unwrap_or_else(|| panic!("{key}: labels not closed"));
    for label in labels.split("\",").filter(|label| !label.is_empty()) {
        let (name, value) = label.split_once("=\"").unwrap_or_else(|| panic!("{key}: {label}"));
        assert!(!name.is_empty() && name.bytes().all(|b| b.is_ascii_lowercase() || b == b'_'));
        assert!(!value.trim_end_matches('"').contains(['"', '\n']), "{key}: {value}");
    }
}

#[test]
#[should_panic(expected = "comes twice")]
fn a_repeated_sample_is_found() {
    let text = "# HELP detector_a Some help here.\n# TYPE detector_a gauge\n";
    read(&format!("{text}detector_a 1\ndetector_a 1\n# EOF\n"));
}

#[test]
#[should_panic(expected = "is no sample of a counter")]
fn a_counter_without_total_is_found() {
    let text = "# HELP detector_a Some help here.\n# TYPE detector_a counter\n";
    read(&format!("{text}detector_a 1\n# EOF\n"));
}
