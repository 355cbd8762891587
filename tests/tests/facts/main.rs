//! `detector replay --facts` beside tshark: the same capture of real programs, the same facts.

mod dissector;
mod recording;

use std::{collections::BTreeSet, net::SocketAddr, process::Command, time::Duration};

use anyhow::{Result, ensure};
use testbed::{app::App, netns::Netns, process::Process, wait};

use self::recording::Recording;

const LIMIT: Duration = Duration::from_secs(60);

/// Runs a program of the namespace to its end; what it answers is not looked at.
fn run(namespace: &Netns, program: &str, arguments: &[&str]) -> Result<()> {
    let mut command = namespace.command(program);
    command.args(arguments);
    Process::spawn(program, command)?.wait(LIMIT)?;
    Ok(())
}

fn installed(program: &str) -> bool {
    Command::new("which").arg(program).output().is_ok_and(|output| output.status.success())
}

/// Compares what detector and tshark say of a capture, and that these kinds are there.
fn compare(recording: &Recording, kinds: &[&str]) -> Result<()> {
    let ours = dissector::detector(recording.path())?;
    let theirs = dissector::tshark(recording.path())?;
    similar(&ours, &theirs);
    let found: BTreeSet<_> = ours.iter().map(|fact| fact.kind.as_str()).collect();
    ensure!(found == kinds.iter().copied().collect(), "found only {found:?}");
    Ok(())
}

fn similar(ours: &[dissector::Fact], theirs: &[dissector::Fact]) {
    assert_eq!(ours, theirs);
}

macro_rules! need {
    ($($program:literal),*) => {$(
        if !installed($program) {
            testbed::skip!("needs {}", $program);
        }
    )*};
}

#[test]
fn http_of_curl_is_what_tshark_says() -> Result<()> {
    testbed::need_root!();
    need!("curl", "tshark", "dumpcap");
    let namespace = Netns::new("facts")?;
    let address: SocketAddr = "127.0.0.1:8077".parse()?;
    let _shop = App::start(namespace.listen(address)?)?;
    let recording = Recording::start(&namespace)?;
    let base = format!("http://{address}");
    let body = "x".repeat(100_000);
    run(&namespace, "curl", &["-s", &format!("{base}/a?b=c"), &format!("{base}/d")])?;
    run(&namespace, "curl", &["-s", "-d", &body, &format!("{base}/post")])?;
    let chunked = ["-s", "-H", "Transfer-Encoding: chunked", "-d", &body];
    run(&namespace, "curl", &[&chunked[..], &[&format!("{base}/chunked")]].concat())?;
    run(&namespace, "curl", &["-s", "-I", "-H", "host: other", &format!("{base}/head")])?;
    let recording = recording.stop(&namespace)?;
    compare(&recording, &["http"])
}

#[test]
fn dns_of_dig_is_what_tshark_says() -> Result<()> {
    testbed::need_root!();
    need!("dig", "tshark", "dumpcap");
    let namespace = Netns::new("facts")?;
    let recording = Recording::start(&namespace)?;
    // Nobody answers: each question also comes back in an ICMP error.
    for words in
        [["shop.example", "A"], ["WWW.Example.com", "AAAA"], [".", "NS"], ["a\\.b.test", "TXT"]]
    {
        run(&namespace, "dig", &[&["@127.0.0.1", "+tries=1", "+time=1"], &words[..]].concat())?;
    }
    run(&namespace, "dig", &["@127.0.0.1", "-p", "9953", "+tries=1", "+time=1", "odd.port"])?;
    let recording = recording.stop(&namespace)?;
    compare(&recording, &["dns", "http"])
}

#[test]
fn server_names_of_openssl_are_what_tshark_says() -> Result<()> {
    testbed::need_root!();
    need!("openssl", "tshark", "dumpcap");
    let namespace = Netns::new("facts")?;
    let recording = Recording::start(&namespace)?;
    for address in ["127.0.0.1:443", "127.0.0.1:9443"] {
        // What it says is no TLS; the hello came before.
        let _server = App::start(namespace.listen(address.parse()?)?)?;
        for version in ["-tls1_2", "-tls1_3"] {
            let name = format!("shop{version}.example");
            let arguments = ["s_client", "-connect", address, version, "-servername", &name];
            run(&namespace, "openssl", &arguments)?;
        }
    }
    let recording = recording.stop(&namespace)?;
    compare(&recording, &["http", "tls"])
}

#[test]
fn topics_of_mosquitto_are_what_tshark_says() -> Result<()> {
    testbed::need_root!();
    need!("mosquitto", "mosquitto_pub", "mosquitto_sub", "tshark", "dumpcap");
    let namespace = Netns::new("facts")?;
    let recording = Recording::start(&namespace)?;
    let _broker = broker(&namespace)?;
    for version in ["mqttv31", "mqttv311", "mqttv5"] {
        let message = "m".repeat(5_000);
        // Kept by the broker, so that whoever subscribes later gets it: both directions.
        let kept = ["-V", version, "-r", "-t", "shop/buy", "-m", &message];
        run(&namespace, "mosquitto_pub", &kept)?;
        let quality = ["-V", version, "-q", "2", "-r", "-t", "shop/pay", "-m", "1"];
        run(&namespace, "mosquitto_pub", &quality)?;
        run(&namespace, "mosquitto_sub", &["-V", version, "-t", "shop/#", "-C", "2"])?;
    }
    let recording = recording.stop(&namespace)?;
    compare(&recording, &["http", "mqtt"])
}

/// mosquitto on its port, once it takes connections.
fn broker(namespace: &Netns) -> Result<Process> {
    let mut command = namespace.command("mosquitto");
    command.args(["-p", "1883"]);
    let broker = Process::spawn("mosquitto", command)?;
    let address = "127.0.0.1:1883".parse()?;
    wait::until("mosquitto to listen", LIMIT, || Ok(namespace.connect(None, address).ok()))?;
    Ok(broker)
}
