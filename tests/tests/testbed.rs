//! The test bed itself: what every other test stands on.

use std::{
    net::{IpAddr, SocketAddr, TcpListener},
    path::Path,
    process::Command,
    time::{Duration, Instant},
};

use anyhow::Result;
use testbed::{
    app::App,
    client::Client,
    netns::{self, Netns, veth},
    process::{Output, Process},
    receiver::{Receiver, Reply},
    wait,
};

const SECOND: Duration = Duration::from_secs(1);

/// ue --- dn, each with two addresses.
fn two_ends() -> Result<(Netns, Netns)> {
    let (ue, dn) = (Netns::new("ue")?, Netns::new("dn")?);
    veth((&ue, "n6-ue"), (&dn, "n6"))?;
    for (namespace, device, v4, v6) in [
        (&ue, "n6-ue", ["10.9.0.1/24", "10.9.0.2/24"], "fd00:9::1/64"),
        (&dn, "n6", ["10.9.0.10/24", "10.9.0.11/24"], "fd00:9::10/64"),
    ] {
        for address in v4 {
            namespace.ip(&format!("addr add {address} dev {device}"))?;
        }
        namespace.ip(&format!("addr add {v6} dev {device} nodad"))?;
    }
    Ok((ue, dn))
}

#[test]
fn users_reach_the_application_between_namespaces_and_nothing_is_left() -> Result<()> {
    testbed::need_root!();
    let (ue, dn) = two_ends()?;
    let app4 = App::start(dn.listen("10.9.0.10:80".parse()?)?)?;
    let app6 = App::start(dn.listen("[fd00:9::10]:80".parse()?)?)?;

    let from: IpAddr = "10.9.0.2".parse()?;
    let mut user = Client::over(ue.connect(Some(from), app4.address())?)?;
    assert_eq!(user.local_address().ip(), from);
    assert_eq!(user.get("/")?.status, 200);
    assert_eq!(user.get("/catalog/7?page=2")?.status, 200);
    assert_eq!(user.post("/api/buttons/buy", "{}")?.body, br#"{"bought":true}"#);
    assert_eq!(user.get("/download?bytes=3000000")?.length, 3_000_000);
    assert_eq!(user.get("/nowhere")?.status, 404);
    let seen = app4.seen();
    assert!(seen.iter().all(|request| request.from == from));
    assert_eq!(seen[2].method, "POST");
    assert_eq!(seen[1].path, "/catalog/7");

    let mut user = Client::over(ue.connect(None, app6.address())?)?;
    assert_eq!(user.get("/")?.status, 200);
    assert_eq!(app6.seen()[0].from, "fd00:9::1".parse::<IpAddr>()?);

    let names = [ue.name().to_owned(), dn.name().to_owned()];
    assert!(names.iter().all(|name| Path::new("/run/netns").join(name).exists()));
    drop((user, app4, app6, ue, dn));
    assert!(names.iter().all(|name| !Path::new("/run/netns").join(name).exists()));
    Ok(())
}

#[test]
fn a_command_runs_inside_and_sees_the_bpf_file_system() -> Result<()> {
    testbed::need_root!();
    let namespace = Netns::new("one")?;
    let mut command = namespace.command("sh");
    // Through /proc, because /sys stays that of the namespace in which it was mounted.
    command.args(["-c", "cut -d: -f1 /proc/net/dev | tail -n +3 | tr -d ' '; ls -d /sys/fs/bpf"]);
    let output = command.output()?;
    assert_eq!(String::from_utf8(output.stdout)?, "lo\n/sys/fs/bpf\n");
    Ok(())
}

#[test]
fn namespaces_of_a_killed_maker_are_swept_and_those_of_a_living_one_stay() -> Result<()> {
    testbed::need_root!();
    let mine = Netns::new("alive")?;
    // A process id that was ours to give: of a child that has ended.
    let mut child = Command::new("true").spawn()?;
    let orphan = format!("det{}-orphan", child.id());
    child.wait()?;
    assert!(Command::new("ip").args(["netns", "add", &orphan]).status()?.success());
    assert!(netns::sweep().contains(&orphan));
    assert!(!Path::new("/run/netns").join(orphan).exists());
    assert!(Path::new("/run/netns").join(mine.name()).exists());
    Ok(())
}

#[test]
fn a_failing_ip_command_says_what_and_why() -> Result<()> {
    testbed::need_root!();
    let namespace = Netns::new("one")?;
    let error = namespace.ip("link set nosuch up").expect_err("there is no such device");
    assert!(error.to_string().contains("link set nosuch up"), "{error}");
    assert!(error.to_string().contains("Cannot find device"), "{error}");
    Ok(())
}

#[test]
fn a_receiver_answers_as_told_and_keeps_every_request() -> Result<()> {
    let receiver = Receiver::on_loopback()?;
    receiver.answer_next([Reply::status(503), Reply::Status(200, SECOND / 10)]);
    let mut source = Client::connect(receiver.address())?;
    let event = [("ce-id", "1"), ("ce-type", "t")];
    assert_eq!(source.request("POST", "/default/broker", &event, r#"{"a":1}"#)?.status, 503);
    let begun = Instant::now();
    assert_eq!(source.request("POST", "/default/broker", &event, "")?.status, 200);
    assert!(begun.elapsed() >= SECOND / 10);
    assert_eq!(source.request("POST", "/default/broker", &event, "")?.status, 202);

    let recorded = receiver.wait_for(3, SECOND)?;
    assert_eq!(recorded[0].path, "/default/broker");
    assert_eq!(recorded[0].header("ce-id"), "1");
    assert_eq!(recorded[0].json()["a"], 1);
    assert_eq!(recorded[0].from, recorded[2].from, "one connection");
    assert!(receiver.wait_for(4, SECOND / 20).is_err());
    Ok(())
}

#[test]
fn a_receiver_can_reset_and_can_close() -> Result<()> {
    let receiver = Receiver::on_loopback()?;
    receiver.answer_next([Reply::Reset, Reply::Close]);
    let reset = Client::connect(receiver.address())?.post("/", "").expect_err("a reset");
    assert!(format!("{reset:#}").contains("reset"), "{reset:#}");
    let closed = Client::connect(receiver.address())?.post("/", "").expect_err("no answer");
    assert!(!format!("{closed:#}").contains("reset"), "{closed:#}");
    assert_eq!(Client::connect(receiver.address())?.post("/", "")?.status, 202);
    assert_eq!(receiver.recorded().len(), 3);
    Ok(())
}

#[test]
fn a_dropped_receiver_no_longer_listens() -> Result<()> {
    let receiver = Receiver::on_loopback()?;
    let address: SocketAddr = receiver.address();
    drop(receiver);
    // Not at once, perhaps: another test's child may hold the socket between fork and exec.
    wait::until("its port", SECOND, || Ok(TcpListener::bind(address).ok()))?;
    Ok(())
}

#[test]
fn a_process_is_followed_and_ended_by_its_pid() -> Result<()> {
    let mut command = Command::new("sh");
    command.args([
        "-c",
        "trap 'echo bye; exit 3' TERM; echo out; echo err >&2; while :; do sleep 0.01; done",
    ]);
    let mut process = Process::spawn("a shell", command)?;
    process.wait_for_line(5 * SECOND, |line| line == "err")?;
    process.must_run()?;
    assert_eq!(process.terminate(5 * SECOND)?.code(), Some(3));
    process.wait_for_line(SECOND, |line| line == "bye")?;
    assert_eq!(process.lines(Output::Stdout)[0], "out");
    assert!(process.must_run().is_err());
    Ok(())
}
