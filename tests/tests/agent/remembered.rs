//! What rules that user space decides have seen so far, over a kill: with pins the next agent goes on
//! with it.

use std::{
    collections::BTreeSet,
    io::{Read as _, Write as _},
    net::{IpAddr, SocketAddr, TcpStream},
    path::Path,
};

use nix::sys::signal::Signal;
use testbed::{agent::Agent, bpffs::BpfFs, need_root, receiver::Recorded};

use crate::bed::{
    APP, BUY, Bed, LIMIT, SINK, UE, balanced, config_with, eventually, ids, rules_with, settled,
    status,
};

fn bed(pins: &Path, rule: &str) -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: 'http://{SINK}/'}}
  pin: {{path: {}}}
  delivery: {{spool: {{directory: spool}}}}",
        pins.display()
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    bed.write("rules.yaml", &rules_with(rule, "{}"));
    bed
}

/// Waits until so many matches were held back in this way.
fn held_back(agent: &Agent<'_>, how: &str, matches: u64) {
    eventually(how, || status(agent)["ledger"]["buy-click"][how] == matches);
}

fn kill(agent: &mut Agent<'_>) {
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");
}

#[test]
fn a_rate_that_was_half_reached_is_reached_after_the_kill_and_told_once() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let rate =
        "match: {http: {method: POST, headers: {host: '*'}}, rate: {packets: 6, within: 1h}}";
    let bed = bed(&pins.path("detector"), rate);
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    let mut press = |times: usize| {
        for _ in 0..times {
            user.post(BUY, "{}").expect("answer");
        }
    };
    press(4);
    held_back(&agent, "rate_limited", 4);
    kill(&mut agent);
    // One passes while there is none.
    press(1);
    let mut agent = bed.start();
    press(1);
    let first = settled(&agent, "delivered", 1);
    press(3);
    held_back(&agent, "rate_limited", 4);
    kill(&mut agent);
    let agent = bed.start();
    press(1);
    eventually("held back", || status(&agent)["ledger"]["buy-click"]["rate_limited"] != 0);
    balanced(&agent, "buy-click");
    let told: BTreeSet<_> =
        receiver.recorded().iter().map(|it| it.header("ce-id").to_owned()).collect();
    assert_eq!(told.into_iter().collect::<Vec<_>>(), first, "the crossing, and nothing else");
}

#[test]
fn a_window_of_a_rule_that_user_space_decides_is_still_open_after_the_kill() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let rule = "every: 1h\n  match: {http: {method: POST, headers: {host: '*'}}}";
    let bed = bed(&pins.path("detector"), rule);
    let receiver = bed.receiver();
    let mut agent = bed.start();
    bed.buy(UE);
    let first = settled(&agent, "delivered", 1);
    for _ in 0..2 {
        kill(&mut agent);
        agent = bed.start();
        bed.buy(UE);
        eventually("held back", || status(&agent)["ledger"]["buy-click"]["suppressed"] != 0);
        balanced(&agent, "buy-click");
    }
    assert!(ids(&receiver.recorded()).iter().all(|id| *id == first[0]), "no other event");
}

#[test]
fn a_request_whose_first_half_a_killed_agent_has_read_is_an_event() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let rule = "match: {http: {method: POST, headers: {x-item: '42'}}}";
    let bed = bed(&pins.path("detector"), rule);
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let mut stream = connection(&bed);
    let request =
        format!("POST {BUY} HTTP/1.1\r\nHost: shop\r\nX-Item: 42\r\nContent-Length: 0\r\n\r\n");
    let (half, rest) = request.split_at(40);
    stream.write_all(half.as_bytes()).expect("sent");
    // What comes behind it is read, delivered and no longer needed.
    for events in 1..=2 {
        let mut other = connection(&bed);
        other.write_all(request.as_bytes()).expect("sent");
        answer(&mut other);
        settled(&agent, "delivered", events);
    }
    kill(&mut agent);
    let agent = bed.start();
    stream.write_all(rest.as_bytes()).expect("sent");
    answer(&mut stream);
    eventually("the third event", || {
        let ids: BTreeSet<_> =
            receiver.recorded().iter().map(|it| it.header("ce-id").to_owned()).collect();
        ids.len() == 3
    });
    balanced(&agent, "buy-click");
}

#[test]
fn of_a_connection_that_began_before_the_kill_the_end_is_told() {
    need_root!();
    let pins = BpfFs::mount().expect("bpffs");
    let rule = "match: {flow: {event: [closed, idle], after: 3s}}";
    let bed = bed(&pins.path("detector"), rule);
    let receiver = bed.receiver();
    let mut agent = bed.start();
    let request = "GET / HTTP/1.1\r\nHost: shop\r\n\r\n";
    let mut streams = [connection(&bed), connection(&bed)];
    for stream in &mut streams {
        stream.write_all(request.as_bytes()).expect("sent");
        answer(stream);
    }
    let [silent, closed] = streams;
    let events = |requests: &[Recorded]| -> BTreeSet<(u64, String)> {
        let event = |it: &Recorded| {
            let data = it.json();
            let port = data["ue"]["port"].as_u64().unwrap_or_else(|| panic!("{data}"));
            (port, data["flow"]["event"].as_str().unwrap_or_default().to_owned())
        };
        requests.iter().map(event).collect()
    };
    let port = |stream: &TcpStream| u64::from(stream.local_addr().expect("bound").port());
    kill(&mut agent);
    let expected =
        BTreeSet::from([(port(&closed), "closed".to_owned()), (port(&silent), "idle".to_owned())]);
    // Before it is silent for so long too.
    drop(closed);
    let agent = bed.start();
    eventually("both ends", || events(&receiver.recorded()).is_superset(&expected));
    balanced(&agent, "buy-click");
}

fn answer(stream: &mut TcpStream) {
    let mut start = [0; 12];
    stream.read_exact(&mut start).expect("an answer");
    assert_eq!(&start, b"HTTP/1.1 200");
}

fn connection(bed: &Bed) -> TcpStream {
    let to = SocketAddr::new(APP.parse().expect("address"), 80);
    let from: IpAddr = UE.parse().expect("address");
    let stream = bed.ue.connect(Some(from), to).expect("connection");
    stream.set_nodelay(true).expect("no delay");
    stream
}
