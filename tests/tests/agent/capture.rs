//! `detector capture`: the same events from the same packets, without eBPF.

use std::net::{SocketAddr, UdpSocket};

use serde_json::Value;
use testbed::{
    agent, need_root,
    process::{Output, Process},
    receiver::Reply,
    wait,
};

use crate::bed::{APP, Bed, LIMIT, SINK, UE, UE6, rule_text, rules, rules_with};

/// A running capture of the host's device, reading.
fn capture(bed: &Bed, arguments: &[&str]) -> Process {
    let capture = spawn(bed, "n6", arguments);
    capture.wait_for_line(LIMIT, |line| line.contains("reading every packet")).expect("reading");
    capture
}

fn spawn(bed: &Bed, device: &str, arguments: &[&str]) -> Process {
    let mut command = agent::command(Some(&bed.dn)).expect("`cargo xtask build`");
    command.args(["capture", "--device", device]).args(arguments);
    command.current_dir(bed.path("rules.yaml").parent().expect("a directory"));
    Process::spawn("detector capture", command).expect("starts")
}

/// Its lines of JSON so far, once there are so many.
fn lines(capture: &Process, count: usize) -> Vec<Value> {
    wait::until("lines", LIMIT, || {
        let lines = capture.lines(Output::Stdout);
        let lines: Vec<Value> =
            lines.iter().filter_map(|line| serde_json::from_str(line).ok()).collect();
        Ok((lines.len() >= count).then_some(lines))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", capture.tail()))
}

/// What an event says that is the same whoever saw the packet: rule, user, direction, type, data
/// without measures of time and size.
fn essence(attributes: [&str; 4], data: &Value) -> String {
    let mut data = data.clone();
    if let Some(data) = data.as_object_mut() {
        for varying in ["session", "flow", "time"] {
            data.remove(varying);
        }
    }
    format!("{attributes:?} {data}")
}

#[test]
fn a_capture_gives_the_events_of_the_agent() {
    need_root!();
    let bed = Bed::new();
    let application = rules_with(
        "match: {http: {method: POST, path: /api/buttons/buy}}",
        "{idle: 60s, linger: 300ms}",
    );
    let more = [
        ("came", "match: {session: started}"),
        ("left", "match: {session: ended}"),
        ("header", "match: {http: {pathPrefix: /api/, headers: {content-type: application/json}}}"),
        ("closed", "match: {flow: closed}"),
        ("answered", "direction: downlink\n  match: {http: {status: [200]}}"),
        ("push", "direction: downlink\n  match: {udp: first-packet}"),
    ];
    let more: String = more.iter().map(|(name, rule)| rule_text(name, rule)).collect();
    bed.write("rules.yaml", &(application + &more));
    let receiver = bed.receiver();
    let _agent = bed.start();
    let capture = capture(
        &bed,
        &["--rules", "rules.yaml", "--ue-pool", "10.60.0.0/16", "--ue-pool", "fd00:60::/48"],
    );
    for user in [UE, UE6] {
        bed.buy(user);
    }
    let from: SocketAddr = format!("{APP}:5004").parse().expect("address");
    let socket = bed.dn.enter(|| UdpSocket::bind(from)).expect("entered").expect("socket");
    socket.send_to(b"news", (UE, 40_000)).expect("sent");
    // The sessions end while no packet comes.
    let expected = 2 * 6 + 1;
    let seen = receiver.wait_for(expected, LIMIT);
    let seen = seen.unwrap_or_else(|error| panic!("{error}\n{}", capture.tail()));
    let mut theirs: Vec<String> = seen
        .iter()
        .map(|it| {
            essence(
                ["ce-rule", "ce-ueip", "ce-direction", "ce-type"].map(|name| it.header(name)),
                &it.json(),
            )
        })
        .collect();
    let mut ours: Vec<String> = lines(&capture, expected)
        .iter()
        .map(|it| {
            let of = |name: &str| it[name].as_str().unwrap_or_default();
            essence([of("rule"), of("ueip"), of("direction"), of("type")], &it["data"])
        })
        .collect();
    theirs.sort();
    ours.sort();
    assert_eq!(ours, theirs);
}

#[test]
fn a_capture_delivers_and_ends_with_what_became_of_everything() {
    need_root!();
    let bed = Bed::new();
    let receiver = bed.receiver();
    let url = format!("http://{SINK}/");
    let mut first = capture(&bed, &["--rules", "rules.yaml", "--sink", &url, "--node", "mec-2"]);
    bed.buy(UE);
    let requests = receiver.wait_for(1, LIMIT).expect("one");
    assert_eq!(requests[0].header("ce-source"), "/mec/edge/mec-2/n6");
    assert_eq!(first.terminate(LIMIT).expect("ends").code(), Some(0), "{}", first.tail());
    let said = first.tail();
    assert!(said.contains("1 events delivered"), "{said}");
    assert!(said.contains("n6: ") && said.contains("packets passed, 0 of them lost"), "{said}");

    receiver.answer(Reply::status(400));
    let mut second = capture(&bed, &["--rules", "rules.yaml", "--sink", &url]);
    bed.buy(UE);
    receiver.wait_for(2, LIMIT).expect("one more");
    assert_eq!(second.terminate(LIMIT).expect("ends").code(), Some(3), "{}", second.tail());
    assert!(second.tail().contains("0 events delivered, 1 rejected"), "{}", second.tail());
}

#[test]
fn facts_come_as_they_are_known_and_loopback_tells_them_once() {
    need_root!();
    let bed = Bed::new();
    let live = capture(&bed, &["--facts"]);
    bed.buy(UE);
    let line = lines(&live, 1).remove(0);
    let seen = ["kind", "method", "uri", "src"].map(|name| line[name].as_str().expect("text"));
    assert_eq!(seen, ["http", "POST", "/api/buttons/buy", UE]);

    let mut loopback = spawn(&bed, "lo", &["--facts"]);
    loopback.wait_for_line(LIMIT, |line| line.contains("reading every packet")).expect("reading");
    let address: SocketAddr = "127.0.0.1:53".parse().expect("address");
    let socket = bed.dn.enter(|| UdpSocket::bind(address)).expect("entered").expect("socket");
    let query = b"\0\x01\x01\0\0\x01\0\0\0\0\0\0\x04shop\x04test\0\0\x01\0\x01";
    socket.send_to(query, address).expect("sent");
    lines(&loopback, 1);
    assert_eq!(loopback.terminate(LIMIT).expect("ends").code(), Some(0));
    assert_eq!(lines(&loopback, 1).len(), 1, "{}", loopback.tail());
    assert!(loopback.tail().contains("lo: 1 packets passed"), "{}", loopback.tail());
}

#[test]
fn a_device_that_cannot_be_read_is_named() {
    need_root!();
    let bed = Bed::new();
    bed.write("rules.yaml", &rules("/"));
    let mut missing = spawn(&bed, "n7", &["--facts"]);
    assert_eq!(missing.wait(LIMIT).expect("ends").code(), Some(1));
    assert!(missing.tail().contains("no such device in this network namespace: n7; it has lo, n6"));

    let mut command = bed.dn.command("setpriv");
    command.args(["--bounding-set", "-net_raw", "--inh-caps", "-net_raw"]);
    command.arg("--").arg(agent::binary("detector").expect("`cargo xtask build`"));
    command.args(["capture", "--device", "n6", "--facts"]);
    let mut nobody = Process::spawn("detector capture", command).expect("starts");
    assert_eq!(nobody.wait(LIMIT).expect("ends").code(), Some(1), "{}", nobody.tail());
    assert!(
        nobody.tail().contains("n6: reading its packets takes CAP_NET_RAW"),
        "{}",
        nobody.tail()
    );

    let mut gone = capture(&bed, &["--facts"]);
    bed.dn.ip("link delete n6").expect("deleted");
    assert_eq!(gone.wait(LIMIT).expect("ends").code(), Some(1), "{}", gone.tail());
    assert!(gone.tail().contains("n6: Network is down"), "{}", gone.tail());
}
