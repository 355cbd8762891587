//! `detector replay --rules` as a process: the events that the agent would send, from a file.

use std::{collections::BTreeSet, fs, net::IpAddr, path::Path, process::Output};

use serde_json::Value;
use testbed::{
    agent,
    frames::{Packet, Tcp, http_request, pcap},
    receiver::{Receiver, Reply},
};

const RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: shop}
spec:
  endpoints: [{cidr: 10.45.0.10, ports: [80]}]
  session: {idle: 5s, linger: 1s}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: buy}
spec:
  application: shop
  match: {http: {method: POST, path: /buy}}
  emit: {type: com.example.buy}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: host}
spec:
  application: shop
  match: {http: {host: shop.example}}
  emit: {type: com.example.host}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: ended}
spec:
  application: shop
  match: {session: ended}
  emit: {type: com.example.ended}
";

fn replay(directory: &Path, capture: &[u8], more: &[&str]) -> Output {
    let (rules, file) = (directory.join("rules.yaml"), directory.join("capture.pcap"));
    fs::write(&rules, RULES).expect("rules");
    fs::write(&file, capture).expect("capture");
    let mut command = agent::command(None).expect("`cargo xtask build`");
    command.arg("replay").arg(&file).arg("--rules").arg(&rules).args(more);
    command.output().expect("detector")
}

fn events(output: &Output) -> Vec<Value> {
    let text = String::from_utf8_lossy(&output.stdout);
    text.lines().map(|line| serde_json::from_str(line).expect("an event")).collect()
}

/// A user opens a connection and presses; the request comes in these pieces.
fn presses(user: [u8; 4], pieces: &[&[u8]]) -> Vec<Vec<u8>> {
    let (ue, shop) = ((IpAddr::from(user), 40_000), (IpAddr::from([10, 45, 0, 10]), 80));
    let mut frames = vec![Packet::tcp(ue, shop, Tcp::SYN, &[]).frame()];
    let mut sequence = Tcp::SYN.sequence + 1;
    for piece in pieces {
        frames.push(Packet::tcp(ue, shop, Tcp::data(sequence), piece).frame());
        sequence += piece.len() as u32;
    }
    frames
}

#[test]
fn the_same_capture_gives_the_same_events_byte_for_byte() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let mut frames = presses([10, 60, 0, 2], &[&request]);
    frames.extend(presses([10, 60, 0, 3], &[&request[..3], &request[3..20], &request[20..]]));
    let capture = pcap::file(&frames);
    let (first, second) =
        (replay(directory.path(), &capture, &[]), replay(directory.path(), &capture, &[]));
    assert!(first.status.success(), "{first:?}");
    assert!(first.stdout == second.stdout, "{first:?}\n{second:?}");
    let seen: Vec<(String, String)> = events(&first)
        .iter()
        .map(|event| {
            (event["ueip"].as_str().unwrap().into(), event["rule"].as_str().unwrap().into())
        })
        .collect();
    let of = |ue: &str, rules: [&str; 2]| rules.map(|rule| (ue.to_owned(), rule.to_owned()));
    assert_eq!(seen[..2], of("10.60.0.2", ["buy", "host"]));
    assert_eq!(seen[2..4], of("10.60.0.3", ["buy", "host"]), "a request over three segments");
    assert_eq!(seen.len(), 6, "and the end of both sessions: {seen:?}");
}

#[test]
fn an_event_has_the_time_of_its_packet_and_a_session_ends_by_the_captures_clock() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "elsewhere", "");
    let frames = presses([10, 60, 0, 2], &[&request]);
    let mut capture = pcap::file(&frames);
    let other = presses([10, 60, 0, 3], &[]);
    capture.extend(pcap::record(9_000_000, &other[0]));
    let output = replay(directory.path(), &capture, &[]);
    let events = events(&output);
    assert_eq!(events[0]["time"], "2023-11-14T22:13:20.001Z");
    assert_eq!((&events[1]["rule"], &events[1]["ueip"]), (&"ended".into(), &"10.60.0.2".into()));
    assert_eq!(events[1]["data"]["session"]["reason"], "idle");
}

#[test]
fn a_file_that_is_cut_short_counts_up_to_there_and_exits_with_1() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let mut capture = pcap::file(&presses([10, 60, 0, 2], &[&request, b"more"]));
    capture.truncate(capture.len() - 5);
    let output = replay(directory.path(), &capture, &[]);
    assert_eq!(output.status.code(), Some(1));
    assert_eq!(events(&output)[0]["rule"], "buy");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains("capture.pcap: cut short inside frame 3"), "{said}");
}

/// A rule's row in the summary: matched, outweighed, below its rate, suppressed, refused, detected.
fn row(output: &Output, rule: &str) -> String {
    let said = String::from_utf8_lossy(&output.stderr);
    let row = said.lines().find(|line| line.split_whitespace().next() == Some(rule));
    let row = row.unwrap_or_else(|| panic!("no {rule} in {said}"));
    row.split_whitespace().skip(1).collect::<Vec<_>>().join(" ")
}

#[test]
fn the_summary_counts_matches_wherever_they_were_decided() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let capture = pcap::file(&presses([10, 60, 0, 2], &[&request]));
    let output = replay(directory.path(), &capture, &[]);
    assert_eq!(row(&output, "buy"), "1 0 0 0 0 1", "by the packet path");
    assert_eq!(row(&output, "host"), "1 0 0 0 0 1", "by user space");
}

#[test]
fn the_summary_says_which_matches_a_final_rule_outweighed_or_a_rate_waits_for() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let capture = pcap::file(&presses([10, 60, 0, 2], &[&request, &request]));
    let more = directory.path().join("more.yaml");
    fs::write(&more, MORE_RULES).expect("rules");
    let output = replay(directory.path(), &capture, &["--rules", &more.to_string_lossy()]);
    assert_eq!(row(&output, "first"), "2 0 0 0 0 2");
    assert_eq!(row(&output, "host"), "2 2 0 0 0 0", "outweighed");
    assert_eq!(row(&output, "often"), "2 0 1 0 0 1", "the first is below the rate");
}

/// To be read beside [`RULES`].
const MORE_RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: often}
spec:
  application: shop
  priority: 2
  match: {http: {host: shop.example}, rate: {packets: 2, within: 10s}}
  emit: {type: com.example.often}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: first}
spec:
  application: shop
  priority: 1
  final: true
  match: {http: {headers: {host: shop.*}}}
  emit: {type: com.example.first}
";

#[test]
fn an_agents_config_says_rules_users_and_where_it_stands() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let mut frames = presses([10, 60, 0, 2], &[&request]);
    frames.extend(presses([10, 61, 0, 2], &[&request]));
    let path = |name: &str| directory.path().join(name);
    fs::write(path("rules.yaml"), RULES).expect("rules");
    fs::write(path("capture.pcap"), pcap::file(&frames)).expect("capture");
    fs::write(path("config.yaml"), CONFIG).expect("config");
    let replay = |more: &[&str]| {
        let mut command = agent::command(None).expect("`cargo xtask build`");
        command.arg("replay").arg(path("capture.pcap")).arg("--config").arg(path("config.yaml"));
        let found = events(&command.args(more).output().expect("detector"));
        let text = |event: &Value, name: &str| event[name].as_str().expect("text").to_owned();
        let users = found.iter().map(|event| text(event, "ueip"));
        let sources = found.iter().map(|event| text(event, "source"));
        (users.collect::<BTreeSet<_>>(), sources.collect::<BTreeSet<_>>())
    };
    let only = |text: &str| BTreeSet::from([text.to_owned()]);
    assert_eq!(replay(&[]), (only("10.60.0.2"), only("/mec/site-7/mec-1/capture")));
    // What is given beside it goes before it.
    let given = ["--ue-pool", "10.61.0.0/16", "--site", "edge", "--node", "lab"];
    assert_eq!(replay(&given), (only("10.61.0.2"), only("/mec/edge/lab/capture")));
    fs::write(path("other.yaml"), RULES.replace("/buy", "/other")).expect("rules");
    let other = path("other.yaml");
    let (users, _) = replay(&["--rules", &other.to_string_lossy()]);
    assert_eq!(users, only("10.60.0.2"), "other rules, the same users");
}

const CONFIG: &str = "apiVersion: detector.dev/v1alpha1
kind: Config
spec:
  site: site-7
  node: mec-1
  devices: [{name: n6}]
  uePools: [{name: phones, cidr: 10.60.0.0/16}]
  rules: [rules.yaml]
";

#[test]
fn users_outside_the_pools_are_none() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let capture = pcap::file(&presses([10, 60, 0, 2], &[&request]));
    let none = replay(directory.path(), &capture, &["--ue-pool", "10.61.0.0/16"]);
    assert!(events(&none).is_empty());
    let some = replay(directory.path(), &capture, &["--ue-pool", "10.60.0.0/16"]);
    assert_eq!(events(&some).len(), 3);
}

#[test]
fn a_url_gets_the_events_that_standard_output_would() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let mut frames = presses([10, 60, 0, 2], &[&request]);
    frames.extend(presses([10, 60, 0, 3], &[&request]));
    let capture = pcap::file(&frames);
    let printed = events(&replay(directory.path(), &capture, &[]));
    let receiver = Receiver::on_loopback().expect("receiver");
    // Tried again, as the agent does.
    receiver.answer_next([Reply::status(503)]);
    let output = replay(directory.path(), &capture, &["--sink", &receiver.url()]);
    assert!(output.status.success(), "{output:?}");
    assert!(output.stdout.is_empty(), "{output:?}");
    let recorded = receiver.recorded();
    assert_eq!(recorded.len(), printed.len() + 1, "the first was sent twice");
    let mut got: Vec<(&str, Value)> =
        recorded[1..].iter().map(|it| (it.header("ce-id"), it.json())).collect();
    let mut expected: Vec<(&str, Value)> =
        printed.iter().map(|it| (it["id"].as_str().expect("id"), it["data"].clone())).collect();
    got.sort_by_key(|(id, _)| *id);
    expected.sort_by_key(|(id, _)| *id);
    assert_eq!(got, expected);
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(": 6 events delivered"), "{said}");
}

#[test]
fn a_sink_that_does_not_take_events_is_exit_code_3() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "elsewhere", "{}");
    let capture = pcap::file(&presses([10, 60, 0, 2], &[&request]));
    let receiver = Receiver::on_loopback().expect("receiver");
    receiver.answer_next([Reply::status(400)]);
    let output = replay(directory.path(), &capture, &["--sink", &receiver.url()]);
    assert_eq!(output.status.code(), Some(3), "{output:?}");
    let said = String::from_utf8_lossy(&output.stderr);
    assert!(said.contains(": 1 events delivered, 1 rejected"), "{said}");
    let unusable = replay(directory.path(), &capture, &["--sink", "ftp://shop"]);
    assert_eq!(unusable.status.code(), Some(2), "{unusable:?}");
}

#[test]
fn rules_may_stand_before_the_files() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let capture = pcap::file(&presses([10, 60, 0, 2], &[&request]));
    let behind = replay(directory.path(), &capture, &[]);
    let mut command = agent::command(None).expect("`cargo xtask build`");
    command.current_dir(&directory).args(["replay", "--rules", "rules.yaml", "capture.pcap"]);
    let before = command.output().expect("detector");
    assert!(before.status.success() && before.stdout == behind.stdout, "{before:?}");
}

#[test]
fn what_only_events_have_is_refused_with_facts() {
    for more in ["--format=table", "--sink=file:x", "--site=a", "--device=a", "--ue-pool=::/0"] {
        let mut command = agent::command(None).expect("`cargo xtask build`");
        let output = command.args(["replay", "x.pcap", "--facts", more]).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "{more}: {output:?}");
    }
}

#[test]
fn what_to_do_with_the_packets_must_be_said_once() {
    for what in [&[][..], &["--facts", "--rules", "rules.yaml"]] {
        let mut command = agent::command(None).expect("`cargo xtask build`");
        let output = command.arg("replay").arg("capture.pcap").args(what).output().expect("runs");
        assert_eq!(output.status.code(), Some(2), "wrong usage");
        let said = String::from_utf8_lossy(&output.stderr);
        assert!(said.contains("--facts") && said.contains("--rules"), "{said}");
    }
}

/// Which rules fired, in the order of their events, without those of sessions.
fn fired(output: &Output) -> Vec<String> {
    let rules = events(output).into_iter().map(|event| event["rule"].as_str().unwrap().to_owned());
    rules.filter(|rule| rule != "ended").collect()
}

#[test]
fn a_request_behind_a_long_body_in_chunks_is_found_on_the_same_connection() {
    let directory = tempfile::tempdir().expect("directory");
    let head = b"POST /upload HTTP/1.1\r\nHost: elsewhere\r\nTransfer-Encoding: chunked\r\n\r\n";
    let chunk = [&b"578\r\n"[..], &[b'x'; 1400], b"\r\n"].concat();
    let request = http_request("GET", "/", "shop.example", "");
    let mut pieces = vec![&head[..]];
    pieces.extend([&chunk[..]; 30]);
    pieces.extend([&b"0\r\n\r\n"[..], &request]);
    let output = replay(directory.path(), &pcap::file(&presses([10, 60, 0, 2], &pieces)), &[]);
    assert_eq!(fired(&output), ["host"], "{output:?}");
}

#[test]
fn a_second_request_that_is_cut_is_found_behind_whole_ones() {
    let directory = tempfile::tempdir().expect("directory");
    let buy = http_request("POST", "/buy", "a", "{}");
    let other = http_request("PUT", "/", "a", &"x".repeat(1200));
    let mut pieces = vec![&buy[..8], &buy[8..]];
    pieces.extend([&other[..]; 5]);
    pieces.extend([&buy[..8], &buy[8..]]);
    let rules = RULES.replace("host: shop.example", "path: /never");
    let (rules_file, file) = (directory.path().join("r.yaml"), directory.path().join("c.pcap"));
    fs::write(&rules_file, rules).expect("rules");
    fs::write(&file, pcap::file(&presses([10, 60, 0, 2], &pieces))).expect("capture");
    let mut command = agent::command(None).expect("`cargo xtask build`");
    let output = command.arg("replay").arg(&file).arg("--rules").arg(&rules_file).output();
    assert_eq!(fired(&output.expect("detector")), ["buy", "buy"]);
}

#[test]
fn a_table_has_a_line_for_each_event_whose_columns_stand_under_each_other() {
    let directory = tempfile::tempdir().expect("directory");
    let request = http_request("POST", "/buy", "shop.example", "{}");
    let (ue6, shop6) = (IpAddr::from([0xfd00, 0x60, 1, 2, 3, 4, 0x1111, 0xffff]), "fd00:45::10");
    let shop6 = (shop6.parse().expect("address"), 80);
    let mut frames = presses([10, 60, 0, 2], &[&request]);
    frames.push(Packet::tcp((ue6, 40_000), shop6, Tcp::data(1), &request).frame());
    frames.extend(presses([10, 60, 0, 3], &[&request]));
    let long = "a-rule-with-quite-a-long-name-that-says-much-of-what-it-is-for";
    let rules = RULES.replace("name: host}", &format!("name: {long}}}"));
    let rules = rules
        .replace("{cidr: 10.45.0.10, ports: [80]}", "{cidr: 10.45.0.10}, {cidr: 'fd00:45::/64'}");
    let (rules_file, file) = (directory.path().join("r.yaml"), directory.path().join("c.pcap"));
    fs::write(&rules_file, rules).expect("rules");
    fs::write(&file, pcap::file(&frames)).expect("capture");
    let mut command = agent::command(None).expect("`cargo xtask build`");
    command.arg("replay").arg(&file).arg("--rules").arg(&rules_file).args(["--format", "table"]);
    let output = command.output().expect("detector");
    let text = String::from_utf8(output.stdout).expect("text");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 1 + 3 * 3, "{text}");
    assert!(!text.contains('\x1b'), "no colours in a pipe");
    assert_eq!(
        lines[0].split_whitespace().collect::<Vec<_>>(),
        ["time", "ue", "rule", "id", "type"]
    );
    let column = |line: &str, value: &str| line.find(value).unwrap_or_else(|| panic!("{line}"));
    let plain: Vec<usize> =
        lines[..2].iter().map(|line| line.rfind("  ").expect("columns")).collect();
    assert_eq!(column(lines[0], "ue"), column(lines[1], "10.60.0.2"));
    assert_eq!(plain[0], plain[1], "{text}");
    // From the widest values on they stand under those.
    let wide = lines
        .iter()
        .position(|line| line.contains(long) && line.contains("fd00:60:1"))
        .expect("both");
    let types = lines[wide..].iter().map(|line| column(line, "com.example."));
    assert_eq!(types.collect::<BTreeSet<_>>().len(), 1, "{text}");
    assert!(lines.iter().all(|line| line.split_whitespace().count() == 5), "{text}");
}
