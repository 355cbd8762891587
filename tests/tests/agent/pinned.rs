//! What happens to packets while no agent lives, where pins are kept.

use std::{
    collections::BTreeSet,
    path::{Path, PathBuf},
    process::Command,
    time::Duration,
};

use aya::maps::{HashMap, MapData};
use nix::sys::signal::Signal;
use testbed::{agent::binary, bpffs::BpfFs, need_root, receiver::Reply};

use crate::bed::{
    Bed, LIMIT, SINK, UE, UE6, balanced, config_with, eventually, ids, metric, rule_count,
    rule_text, rules_with, settled, status,
};

const BUY_RULE: &str = "match: {http: {method: POST, path: /api/buttons/buy}}";

/// A bed whose agent keeps its pins.
pub(crate) fn pinned(pins: &Path, more: &str) -> Bed {
    let bed = Bed::new();
    write_config(&bed, pins, more);
    let session_rules = [("came", "started"), ("left", "ended")]
        .map(|(name, what)| rule_text(name, &format!("match: {{session: {what}}}")));
    let rules = rules_with(BUY_RULE, "{idle: 60s, linger: 300ms}");
    bed.write("rules.yaml", &(rules + &session_rules.concat()));
    bed
}

fn write_config(bed: &Bed, pins: &Path, more: &str) {
    let pin = format!("pin: {{path: {}}}", pins.display());
    let rest = format!("sink: {{url: 'http://{SINK}/'}}\n  {pin}\n  {more}");
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
}

/// The XDP program on `n6`, by number.
fn program(bed: &Bed) -> Option<u32> {
    let described = bed.describe("n6");
    let (_, rest) = described.split_once("prog/xdp id ")?;
    rest.split_whitespace().next()?.parse().ok()
}

/// `detector detach`, where the agent runs.
fn detach(bed: &Bed, pins: &Path) -> (Option<i32>, String) {
    let mut command: Command = bed.dn.command(binary("detector").expect("`cargo xtask build`"));
    let output = command.arg("detach").arg(pins).output().expect("it runs");
    let text = [output.stdout, output.stderr].concat();
    (output.status.code(), String::from_utf8(text).expect("text"))
}

#[test]
fn what_passes_while_no_agent_lives_is_delivered_by_the_next_one() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let bed = pinned(&bpffs.path("detector"), "");
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    user.post("/api/buttons/buy", "{}").expect("answer");
    settled(&agent, "delivered", 2);
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");
    let killed = program(&bed).expect("still attached");

    for _ in 0..3 {
        user.post("/api/buttons/buy", "{}").expect("answer");
    }
    bed.buy(UE6);
    let mut agent = bed.start();
    // Three of one user; the other came, and bought. It left when the next agent had read so.
    eventually("all of them", || distinct(&receiver.recorded()) == 8);
    assert_ne!(program(&bed).expect("attached"), killed, "the new agent's own program");
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 5, "counts go on too");
    drop(user);
    eventually("and the first user's end", || distinct(&receiver.recorded()) == 9);
    // What the killed agent had delivered just then may come twice, as the same event.
    let mut seen = BTreeSet::new();
    let mut requests = receiver.recorded();
    requests.retain(|it| seen.insert(it.header("ce-id").to_owned()));
    let of = |rule: &str, ue: &str| {
        let of = |it: &&testbed::receiver::Recorded| {
            it.header("ce-rule") == rule && it.header("ce-ueip") == ue
        };
        requests.iter().filter(of).collect::<Vec<_>>()
    };
    for (rule, ue, count) in [
        ("came", UE, 1),
        ("buy-click", UE, 4),
        ("left", UE, 1),
        ("came", UE6, 1),
        ("buy-click", UE6, 1),
        ("left", UE6, 1),
    ] {
        assert_eq!(of(rule, ue).len(), count, "{rule} {ue}");
    }
    // One session from before the kill to after it.
    let left = of("left", UE)[0];
    assert!(
        requests
            .iter()
            .filter(|it| it.header("ce-ueip") == UE)
            .all(|it| { it.header("ce-sessionid") == left.header("ce-sessionid") })
    );
    assert_eq!(left.json()["session"]["detections"], 4, "{}", left.json());
    assert_eq!(metric(&agent, "detector_stale_records_total", &[]), 0.0);
    agent.must_run().expect("running");
}

#[test]
fn no_packet_is_missed_while_agents_are_killed_and_stopped_and_started() {
    const PRESSES: usize = 40;
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let bed = pinned(&bpffs.path("detector"), "");
    bed.write("rules.yaml", &rules_with(BUY_RULE, "{}"));
    let receiver = bed.receiver();
    let mut pressed = 0;
    let mut user = None;
    for round in 0..3 {
        let mut agent = bed.spawn();
        // Presses fall before, while and after it takes over; the first agent must have attached.
        if round == 0 {
            agent.wait_until_ready(LIMIT).expect("ready");
        }
        let user = user.get_or_insert_with(|| bed.user(UE));
        for _ in 0..PRESSES {
            user.post("/api/buttons/buy", "{}").expect("answer");
            pressed += 1;
        }
        agent.wait_until_ready(LIMIT).expect("ready");
        for _ in 0..PRESSES {
            user.post("/api/buttons/buy", "{}").expect("answer");
            pressed += 1;
        }
        eventually("delivered, some of it twice after a SIGKILL", || {
            distinct(&receiver.recorded()) == pressed
        });
        if round % 2 == 0 {
            agent.signal(Signal::SIGKILL).expect("signal");
            agent.wait(LIMIT).expect("killed");
        } else {
            assert!(agent.terminate(LIMIT).expect("it ends").success());
        }
        assert!(program(&bed).is_some(), "stays attached");
    }
}

fn distinct(requests: &[testbed::receiver::Recorded]) -> usize {
    ids(requests).into_iter().collect::<BTreeSet<_>>().len()
}

#[test]
fn detach_waits_for_the_agent_s_end_and_then_leaves_nothing() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    let _receiver = bed.receiver();
    let mut agent = bed.start();
    let (code, said) = detach(&bed, &pins);
    assert_eq!(code, Some(1), "{said}");
    assert!(said.contains("another agent uses") && said.contains("stop it"), "{said}");
    assert!(agent.terminate(LIMIT).expect("it ends").success());
    assert!(program(&bed).is_some(), "stays attached after SIGTERM");

    let (code, said) = detach(&bed, &pins);
    assert_eq!(code, Some(0), "{said}");
    // The kernel's, and eleven that only agents use.
    let tables = detector_user::source::kernel::PINNED_MAPS.len() + 11;
    let removed = format!("2 attachments and {tables} tables removed");
    assert!(said.contains(&removed), "{said}");
    assert!(!pins.exists());
    // The kernel lets go of a link's program a moment after its last reference.
    eventually("detached", || program(&bed).is_none());
    let (code, said) = detach(&bed, &pins);
    assert_eq!((code, said.trim_end().ends_with("detector")), (Some(0), true), "{said}");
}

/// Layouts that are pinned there.
fn layouts(pins: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(pins).expect("pins").flatten().map(|entry| entry.path());
    entries.filter(|path| path.to_string_lossy().contains("/layout-")).collect()
}

#[test]
fn with_a_ring_of_another_size_the_old_one_is_read_to_its_end_and_sessions_go_on() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    user.post("/api/buttons/buy", "{}").expect("answer");
    settled(&agent, "delivered", 2);
    let before = program(&bed).expect("attached");
    for ring in ["64Ki", "128Ki"] {
        agent.signal(Signal::SIGKILL).expect("signal");
        agent.wait(LIMIT).expect("killed");
        for _ in 0..3 {
            user.post("/api/buttons/buy", "{}").expect("answer");
        }
        write_config(&bed, &pins, &format!("limits: {{ringBytes: {ring}}}"));
        agent = bed.start();
        user.post("/api/buttons/buy", "{}").expect("answer");
    }
    assert_ne!(program(&bed).expect("attached"), before);
    eventually("all presses", || distinct(&receiver.recorded()) == 1 + 9);
    drop(user);
    eventually("and the session's end", || distinct(&receiver.recorded()) == 1 + 9 + 1);
    let requests = receiver.recorded();
    let left = requests.iter().find(|it| it.header("ce-rule") == "left").expect("it ended");
    assert_eq!(left.json()["session"]["detections"], 9, "one session: {}", left.json());
    assert!(requests.iter().all(|it| it.header("ce-sessionid") == left.header("ce-sessionid")));
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 9, "counts go on too");
    assert_eq!(metric(&agent, "detector_stale_records_total", &[]), 0.0);
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(&agent, rule));
    eventually("the old layouts are gone", || layouts(&pins).len() == 1);
}

#[test]
fn with_tables_of_another_size_sessions_and_windows_go_on() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    let rule = format!("{BUY_RULE}\n  every: 1h");
    bed.write("rules.yaml", &rules_with(&rule, "{idle: 60s, linger: 60s}"));
    let receiver = bed.receiver();
    let mut agent = bed.start();
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");
    write_config(&bed, &pins, "limits: {sessions: 1000, flows: 2000}");
    let agent = bed.start();
    bed.buy(UE);
    bed.buy(UE6);
    receiver.wait_for(2, LIMIT).expect("of the other user");
    assert_eq!(rule_count(&agent, "buy-click", "suppressed"), 1, "its window is open");
    eventually("of both users", || status(&agent)["sessions_open"] == 2);
    assert_eq!(distinct(&receiver.recorded()), 2);
    balanced(&agent, "buy-click");
}

/// An update whose tables are of another source: only the ring's records say what they are.
#[test]
fn of_another_source_s_layout_the_ring_is_read_and_nothing_else() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    user.post("/api/buttons/buy", "{}").expect("answer");
    settled(&agent, "delivered", 2);
    // One that the killed agent has sent, and not finished: it comes again as the same event.
    receiver.answer(Reply::Status(202, Duration::from_secs(3600)));
    user.post("/api/buttons/buy", "{}").expect("answer");
    receiver.wait_for(3, LIMIT).expect("sent");
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");
    receiver.answer(Reply::status(202));
    let before = program(&bed).expect("attached");
    for _ in 0..3 {
        user.post("/api/buttons/buy", "{}").expect("answer");
    }
    let [own] = layouts(&pins).try_into().expect("one layout");
    std::fs::rename(&own, pins.join("layout-0123456789abcdef-65536-65536-4194304"))
        .expect("renamed");
    // And one that no version of Detector ever wrote.
    let foreign = pins.join("layout-fedcba9876543210-1-1-1");
    std::fs::create_dir(&foreign).expect("directory");
    let map: HashMap<MapData, u32, u32> = HashMap::create(1, 0).expect("a map");
    map.pin(foreign.join("EVENTS")).expect("pinned");

    let agent = bed.start();
    agent
        .wait_for_line(LIMIT, |line| line.contains("records that are left there are read before"))
        .expect("said");
    assert_ne!(program(&bed).expect("attached"), before);
    eventually("only the new layout is left", || layouts(&pins) == [own.clone()]);
    bed.buy(UE6);
    let of_rule = |requests: &[testbed::receiver::Recorded], ue: &str| {
        let of = |it: &&testbed::receiver::Recorded| {
            it.header("ce-rule") == "buy-click" && it.header("ce-ueip") == ue
        };
        distinct(&requests.iter().filter(of).cloned().collect::<Vec<_>>())
    };
    eventually("each press", || {
        let requests = receiver.recorded();
        of_rule(&requests, UE) == 5 && of_rule(&requests, UE6) == 1
    });
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 1, "the new tables begin at zero");
    assert_eq!(metric(&agent, "detector_stale_records_total", &[]), 0.0);
    balanced(&agent, "buy-click");
}

#[test]
fn an_event_names_the_device_as_it_was_called_when_the_packet_passed() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    bed.write("rules.yaml", &rules_with(BUY_RULE, "{}"));
    let receiver = bed.receiver();
    let mut agent = bed.start();
    bed.buy(UE);
    settled(&agent, "delivered", 1);
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");
    bed.buy(UE);
    bed.dn.ip("link set n6 down").expect("down");
    bed.dn.ip("link set n6 name uplink").expect("renamed");
    let pin = format!("sink: {{url: 'http://{SINK}/'}}\n  pin: {{path: {}}}", pins.display());
    bed.write("config.yaml", &config_with("{name: uplink}", &pin));
    let _agent = bed.start();
    let requests = receiver.wait_for(2, LIMIT).expect("the second press");
    assert!(requests.iter().all(|it| it.header("ce-source") == "/mec/site-7/mec-1/n6"));
}

#[test]
fn attachments_that_the_config_no_longer_names_are_detached_at_the_next_start() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let pins = bpffs.path("detector");
    let bed = pinned(&pins, "");
    let _receiver = bed.receiver();
    bed.start().signal(Signal::SIGKILL).expect("signal");
    assert!(program(&bed).is_some());
    let pin = format!("sink: {{stdout: {{}}}}\n  pin: {{path: {}}}", pins.display());
    bed.write("config.yaml", &config_with("{name: n6, hook: tc, directions: receive}", &pin));
    let agent = bed.start();
    assert_eq!(status(&agent)["devices"][0]["hook"], "tc-ingress");
    eventually("XDP is off", || program(&bed).is_none());
    let links = std::fs::read_dir(pins.join("links")).expect("links");
    assert_eq!(links.count(), 1);
}

#[test]
fn without_a_bpf_file_system_the_message_says_how_to_get_one() {
    need_root!();
    let bed = Bed::new();
    let pins = bed.path("pins");
    write_config(&bed, &pins, "");
    let said = crate::bed::refusal(bed.spawn());
    assert!(said.contains("mount -t bpf bpf /sys/fs/bpf"), "{said}");
}
