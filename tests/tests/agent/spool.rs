//! Events that a receiver does not take wait on disk, over the agent's end, however it comes.

use nix::sys::signal::Signal;
use testbed::{agent::Agent, need_root, receiver::Reply};

use crate::bed::{
    Bed, LIMIT, SINK, UE, UE6, balanced, config_with, eventually, ids, metric, settled, status,
};

/// A bed whose agent spools beside its config.
fn bed() -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  delivery: {{spool: {{directory: spool}}}}"
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    bed
}

/// The books of the one rule at the one sink, which balance.
fn books(agent: &Agent<'_>, what: &str) -> u64 {
    let status = status(agent);
    let rule = &status["ledger"]["buy-click"];
    let row = &rule["sinks"]["http"];
    let count = |name: &str| row[name].as_u64().unwrap_or(0);
    let lost: u64 = row["lost"]
        .as_object()
        .map_or(0, |lost| lost.values().filter_map(serde_json::Value::as_u64).sum());
    let right = ["delivered", "dead_lettered", "in_memory", "in_spool"].map(count);
    let left = count("entered") + count("recovered");
    assert_eq!(left, right.iter().sum::<u64>() + lost, "{rule}");
    assert_eq!(metric(agent, "detector_ledger_mistakes_total", &[]), 0.0);
    count(what)
}

fn detections(agent: &Agent<'_>) -> Vec<String> {
    let lines = agent.output();
    let lines = lines.iter().filter(|line| line["kind"] == "detection");
    lines.filter_map(|line| Some(line["event_id"].as_str()?.to_owned())).collect()
}

/// Presses while nobody listens, and waits until all of it is on disk.
fn spooled(bed: &Bed, agent: &Agent<'_>, presses: usize) -> Vec<String> {
    for press in 0..presses {
        bed.buy(if press % 2 == 0 { UE } else { UE6 });
    }
    eventually("the agent has noticed that nobody listens", || {
        metric(agent, "detector_delivery_sink_up", &[]) == 0.0
    });
    eventually("all presses are detected", || detections(agent).len() == presses);
    eventually("they are on disk", || metric(agent, "detector_spool_bytes", &[]) > 0.0);
    detections(agent)
}

#[test]
fn what_is_spooled_survives_sigkill_and_is_delivered_with_the_same_ids() {
    need_root!();
    let bed = bed();
    let mut first = bed.start();
    let mut before = spooled(&bed, &first, 6);
    first.signal(Signal::SIGKILL).expect("signal");
    first.wait(LIMIT).expect("it is gone");
    let receiver = bed.receiver();
    let second = bed.start();
    settled(&second, "delivered", 6);
    let requests = receiver.recorded();
    let mut after: Vec<String> = ids(&requests).into_iter().map(str::to_owned).collect();
    for ue in [UE, UE6] {
        let of: Vec<_> = requests.iter().filter(|it| it.header("ce-ueip") == ue).collect();
        assert!(of.is_sorted_by_key(|it| it.header("ce-time")), "in the order they came");
    }
    before.sort();
    after.sort();
    assert_eq!(after, before);
    assert!(requests.iter().all(|it| it.header("ce-source") == "/mec/site-7/mec-1/n6"));
    assert_eq!((books(&second, "recovered"), books(&second, "delivered")), (6, 6));
    balanced(&second, "buy-click");
}

#[test]
fn sigterm_leaves_what_nobody_takes_on_disk_without_waiting_for_it() {
    need_root!();
    let bed = bed();
    let mut first = bed.start();
    let before = spooled(&bed, &first, 3);
    let status = first.terminate(LIMIT).expect("it ends");
    assert!(status.success(), "{}", first.tail());
    let receiver = bed.receiver();
    let second = bed.start();
    let delivered = settled(&second, "delivered", 3);
    assert!(before.iter().all(|id| delivered.contains(id)), "{before:?} {delivered:?}");
    assert_eq!(receiver.recorded().len(), 3);
}

#[test]
fn an_event_that_is_refused_is_a_dead_letter_and_can_be_sent_again() {
    need_root!();
    let bed = bed();
    let receiver = bed.receiver();
    receiver.answer_next([Reply::status(400)]);
    let agent = bed.start();
    bed.buy(UE);
    let [refused] = settled(&agent, "rejected", 1).try_into().expect("one event");
    assert_eq!(books(&agent, "dead_lettered"), 1);
    let dlq = |arguments: &[&str]| {
        let mut command = bed.dn.command(testbed::agent::binary("detector").expect("built"));
        command.args(["dlq", "--config"]).arg(bed.path("config.yaml")).args(arguments);
        let output = command.output().expect("detector dlq");
        (output.status.code(), String::from_utf8(output.stdout).expect("text"))
    };
    let (code, list) = dlq(&["list"]);
    assert!(code == Some(0) && list.contains(&refused) && list.contains("400"), "{list}");
    let (code, said) = dlq(&["retry", &refused]);
    assert!(code == Some(0) && said.contains("taken"), "{said}");
    assert_eq!(ids(&receiver.recorded()), [&refused; 2]);
    assert_eq!(dlq(&["list"]).1.trim(), "no dead letters");
}
