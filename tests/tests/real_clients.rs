//! What the readers of application protocols make of bytes that real programs sent: dig, Mosquitto's
//! clients and broker, curl. On loopback, without root.

use std::{
    ffi::OsString,
    io::{Read as _, Write as _},
    net::{SocketAddr, TcpListener, UdpSocket},
    process::Command,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use detector_user::l7::{
    Fact, Step, Way, dns,
    fact::{DnsMessage, HttpRequest, HttpVersion, MqttPacket},
    h2, mqtt,
};
use testbed::{
    process::Process,
    relay::{Piece, Relay},
    wait,
};

const LIMIT: Duration = Duration::from_secs(60);

/// Whether this machine has these programs.
fn have(programs: &[&str]) -> bool {
    let path = path();
    let dirs: Vec<_> = std::env::split_paths(&path).collect();
    programs.iter().all(|program| dirs.iter().any(|dir| dir.join(program).exists()))
}

/// The PATH, also to servers, where a user's has none.
fn path() -> OsString {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let dirs = std::env::split_paths(&path).chain(["/usr/sbin".into()]);
    std::env::join_paths(dirs).unwrap_or(path)
}

/// The facts of a stream, read to its end.
fn facts(bytes: &[u8], mut step: impl FnMut(&[u8]) -> Step) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    let mut at = 0;
    while at < bytes.len() {
        match step(&bytes[at..]) {
            Step::Took { consumed, facts: more } => {
                facts.extend(more);
                at += usize::try_from(consumed)?;
            }
            Step::More => break,
            Step::Not => anyhow::bail!("not read from byte {at} on: {:x?}", &bytes[at..]),
        }
    }
    ensure!(at == bytes.len(), "read to {at} of {} bytes", bytes.len());
    Ok(facts)
}

/// A program that ends by itself.
fn run(name: &str, arguments: &[&str]) -> Result<()> {
    let mut command = Command::new(name);
    command.args(arguments);
    let mut process = Process::spawn(name, command)?;
    let status = process.wait(LIMIT)?;
    ensure!(status.success(), "{name} {arguments:?}: {status}\n{}", process.tail());
    Ok(())
}

/// The answer of a server that knows no name: the query with NXDOMAIN in it.
fn no_such_name(query: &[u8]) -> Vec<u8> {
    let mut answer = query.to_vec();
    answer[2] |= 0x80;
    answer[3] = answer[3] & 0xf0 | 3;
    answer
}

/// What dig asks with these arguments, and what it is told.
fn dig(arguments: &[&str]) -> Result<[DnsMessage; 2]> {
    let server = UdpSocket::bind("127.0.0.1:0")?;
    server.set_read_timeout(Some(LIMIT))?;
    let port = server.local_addr()?.port().to_string();
    let mut command = Command::new("dig");
    command.args(["@127.0.0.1", "-p", &port, "+tries=1", "+time=10", "+noidnin"]).args(arguments);
    let mut process = Process::spawn("dig", command)?;
    let mut buffer = [0; 4096];
    let (length, client) = server.recv_from(&mut buffer)?;
    let query = &buffer[..length];
    server.send_to(&no_such_name(query), client)?;
    process.wait(LIMIT)?;
    ensure!(dns::looks_like(query), "{query:x?}");
    let read = |bytes: &[u8]| dns::message(bytes).context("not read");
    Ok([read(query)?, read(&no_such_name(query))?])
}

fn question(message: &DnsMessage) -> (&str, u16, u16) {
    let question = &message.questions[0];
    (&question.name, question.qtype, question.qclass)
}

#[test]
fn dig_asks_over_udp() -> Result<()> {
    if !have(&["dig"]) {
        testbed::skip!("needs dig");
    }
    let [query, answer] = dig(&["WwW.Example.COM", "AAAA"])?;
    assert_eq!(question(&query), ("WwW.Example.COM", 28, 1));
    assert_eq!((query.response, answer.response, answer.rcode), (false, true, 3));
    assert_eq!(question(&dig(&[".", "NS", "+noedns"])?[0]), ("<Root>", 2, 1));
    assert_eq!(question(&dig(&["version.bind", "TXT", "-c", "CH"])?[0]), ("version.bind", 16, 3));
    assert_eq!(question(&dig(&["-x", "127.0.0.1"])?[0]), ("1.0.0.127.in-addr.arpa", 12, 1));
    let odd = dig(&[r"a\.b\001\255.example", "TYPE65"])?;
    assert_eq!(question(&odd[0]), ("a.b\\001\u{fffd}.example", 65, 1));
    Ok(())
}

#[test]
fn dig_asks_over_tcp() -> Result<()> {
    if !have(&["dig"]) {
        testbed::skip!("needs dig");
    }
    let server = TcpListener::bind("127.0.0.1:0")?;
    let relay = Relay::start(server.local_addr()?, 1)?;
    let answers = std::thread::spawn(move || -> Result<()> {
        let (mut client, _) = server.accept()?;
        let mut length = [0; 2];
        // +keepopen: both questions come over one connection.
        while client.read_exact(&mut length).is_ok() {
            let mut query = vec![0; usize::from(u16::from_be_bytes(length))];
            client.read_exact(&mut query)?;
            client.write_all(&[&length[..], &no_such_name(&query)].concat())?;
        }
        Ok(())
    });
    let port = relay.address().port().to_string();
    let common = ["@127.0.0.1", "-p", &port, "+tcp", "+keepopen", "+tries=1", "+time=10"];
    run("dig", &[&common[..], &["one.example", "A", "two.example", "MX"]].concat())?;
    let pieces = relay.finish();
    answers.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    for from_client in [true, false] {
        let mut stream = dns::Stream;
        let way = pieces.iter().filter(|piece| piece.from_client == from_client);
        let bytes: Vec<u8> = way.flat_map(|piece| piece.bytes.clone()).collect();
        assert!(dns::looks_like_stream(&bytes));
        let names: Vec<_> = facts(&bytes, |bytes| stream.step(bytes))?
            .into_iter()
            .map(|fact| match fact {
                Fact::Dns(message) => (message.response, question(&message).0.to_owned()),
                other => panic!("{other:?}"),
            })
            .collect();
        let response = !from_client;
        assert_eq!(names, [(response, "one.example".into()), (response, "two.example".into())]);
    }
    Ok(())
}

/// A broker on loopback.
fn mosquitto(dir: &tempfile::TempDir) -> Result<(Process, SocketAddr)> {
    // Mosquitto cannot be asked which port it got: this one was free just now.
    let address = TcpListener::bind("127.0.0.1:0")?.local_addr()?;
    let config = dir.path().join("mosquitto.conf");
    let user = if testbed::root::is_root() { "user root\n" } else { "" };
    let listen = format!("listener {} 127.0.0.1\nallow_anonymous true\n{user}", address.port());
    std::fs::write(&config, listen)?;
    let mut command = Command::new("mosquitto");
    command.arg("-c").arg(&config).env("PATH", path());
    let mut broker = Process::spawn("mosquitto", command)?;
    wait::until("mosquitto to listen", LIMIT, || {
        broker.must_run()?;
        Ok(std::net::TcpStream::connect(address).is_ok().then_some(()))
    })?;
    Ok((broker, address))
}

/// What passed on the connections of a relay: which connection, whether from the client, and what.
fn packets(relay: Relay, connections: usize) -> Result<Vec<(usize, bool, MqttPacket)>> {
    let mut read: Vec<_> = (0..connections).map(|_| mqtt::Connection::default()).collect();
    let mut waiting = vec![[Vec::new(), Vec::new()]; connections];
    let mut skip = vec![[0usize; 2]; connections];
    let mut packets = Vec::new();
    for piece in relay.finish() {
        let (i, side) = (piece.connection, usize::from(piece.from_client));
        let way = if piece.from_client { Way::Forth } else { Way::Back };
        let skipped = skip[i][side].min(piece.bytes.len());
        skip[i][side] -= skipped;
        let buffer: &mut Vec<u8> = &mut waiting[i][side];
        buffer.extend_from_slice(&piece.bytes[skipped..]);
        while !buffer.is_empty() {
            let Step::Took { consumed, facts } = read[i].step(way, buffer) else { break };
            let consumed = usize::try_from(consumed)?;
            skip[i][side] = consumed.saturating_sub(buffer.len());
            buffer.drain(..consumed.min(buffer.len()));
            for fact in facts {
                let Fact::Mqtt(packet) = fact else { anyhow::bail!("{fact:?}") };
                packets.push((i, piece.from_client, packet));
            }
        }
    }
    ensure!(waiting.iter().flatten().all(Vec::is_empty), "not read to the end");
    Ok(packets)
}

#[test]
fn mosquitto_clients_publish_and_subscribe_in_each_version() -> Result<()> {
    if !have(&["mosquitto", "mosquitto_pub", "mosquitto_sub"]) {
        testbed::skip!("needs mosquitto and its clients");
    }
    let dir = tempfile::tempdir()?;
    let (_broker, address) = mosquitto(&dir)?;
    let big = dir.path().join("big");
    std::fs::write(&big, vec![b'x'; 300_000])?;
    for (version, level) in [("mqttv31", 3), ("mqttv311", 4), ("mqttv5", 5)] {
        let relay = Relay::start(address, 2)?;
        let port = relay.address().port().to_string();
        let common = ["-h", "127.0.0.1", "-p", &port, "-V", version, "-q", "1"];
        let mut command = Command::new("mosquitto_sub");
        command.args(common).args(["-i", "listener", "-t", "plant/+/state", "-t", "other/#"]);
        command.args(["-C", "1"]);
        let mut subscriber = Process::spawn("mosquitto_sub", command)?;
        wait::until("the broker's SUBACK", LIMIT, || {
            subscriber.must_run()?;
            let suback = |piece: &Piece| !piece.from_client && piece.bytes.starts_with(&[0x90]);
            Ok(relay.passed().iter().any(suback).then_some(()))
        })?;
        let file = big.to_string_lossy();
        let publish = ["-i", "press-7", "-t", "plant/7/state", "-f", &file];
        run("mosquitto_pub", &[&common[..], &publish].concat())?;
        subscriber.wait(LIMIT)?;
        let packets = packets(relay, 2)?;
        let of = |kind| packets.iter().filter(move |(_, _, packet)| packet.kind == kind);
        let clients: Vec<_> = of(1).map(|(_, _, packet)| packet.client_id.as_deref()).collect();
        assert_eq!(clients, [Some("listener"), Some("press-7")]);
        let filters: Vec<_> = of(8).flat_map(|(_, _, packet)| &packet.topics).collect();
        assert_eq!(filters, ["plant/+/state", "other/#"]);
        let mut published: Vec<_> = of(3)
            .map(|(_, from_client, packet)| {
                (*from_client, packet.topics[0].as_str(), packet.client_id.as_deref())
            })
            .collect();
        published.sort_unstable();
        let topic = "plant/7/state";
        assert_eq!(published, [(false, topic, Some("listener")), (true, topic, Some("press-7"))]);
        assert!(packets.iter().all(|(_, _, packet)| packet.level == Some(level)), "{version}");
        assert!(of(3).all(|(_, _, packet)| packet.qos == Some(1)));
        assert_eq!(of(14).count(), 2, "both say goodbye");
    }
    Ok(())
}

#[test]
fn mosquitto_pub_uses_an_alias() -> Result<()> {
    if !have(&["mosquitto", "mosquitto_pub"]) {
        testbed::skip!("needs mosquitto and its clients");
    }
    let dir = tempfile::tempdir()?;
    let (_broker, address) = mosquitto(&dir)?;
    let relay = Relay::start(address, 1)?;
    let port = relay.address().port().to_string();
    let publish = ["-V", "mqttv5", "-t", "a/long/topic", "-m", "on", "--repeat", "3"];
    let alias = ["-D", "publish", "topic-alias", "4", "-D", "publish", "user-property", "k", "v"];
    run("mosquitto_pub", &[&["-h", "127.0.0.1", "-p", &port][..], &publish, &alias].concat())?;
    let packets = packets(relay, 1)?;
    let published = packets.iter().filter(|(_, _, packet)| packet.kind == 3);
    let topics: Vec<_> = published.flat_map(|(_, _, packet)| packet.topics.clone()).collect();
    assert_eq!(topics, ["a/long/topic"; 3]);
    Ok(())
}

/// Whether these bytes from an HTTP/2 client hold a whole request.
fn asks(mut bytes: &[u8]) -> bool {
    let mut reader = h2::Reader::client();
    while let Step::Took { consumed, facts } = reader.step(bytes) {
        if !facts.is_empty() {
            return true;
        }
        bytes = bytes.get(consumed as usize..).unwrap_or_default();
    }
    false
}

/// One thing that curl asks for over HTTP/2, by an upgrade or with prior knowledge. The server is
/// of a few frames: SETTINGS, and 200 (0x88 in HPACK) on stream 1.
fn curl(option: &str, upgrade: bool) -> Result<[Vec<Fact>; 2]> {
    let server = TcpListener::bind("127.0.0.1:0")?;
    let relay = Relay::start(server.local_addr()?, 1)?;
    let serve = std::thread::spawn(move || -> Result<()> {
        let (mut client, _) = server.accept()?;
        let mut seen = Vec::new();
        let mut buffer = [0; 4096];
        while !(if upgrade { seen.ends_with(b"\r\n\r\n") } else { asks(&seen) }) {
            let length = client.read(&mut buffer)?;
            ensure!(length > 0, "curl went away");
            seen.extend_from_slice(&buffer[..length]);
        }
        if upgrade {
            client.write_all(
                b"HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n",
            )?;
        }
        client.write_all(b"\0\0\0\x04\0\0\0\0\0\0\0\x01\x01\x05\0\0\0\x01\x88")?;
        while client.read(&mut buffer)? > 0 {}
        Ok(())
    });
    let url = format!("http://{}/first?q=1", relay.address());
    let header = ["-H", "X-Long: a value that HPACK encodes by Huffman"];
    run("curl", &[&["-s", "--max-time", "15", option, &url][..], &header].concat())?;
    let pieces = relay.finish();
    serve.join().map_err(|_| anyhow::anyhow!("the server panicked"))??;
    let bytes = |from_client| -> Vec<u8> {
        let way = pieces.iter().filter(|piece| piece.from_client == from_client);
        way.flat_map(|piece| piece.bytes.clone()).collect()
    };
    // Behind the HTTP/1 part, if there is one.
    let behind = |bytes: Vec<u8>, mark: &[u8]| -> Vec<u8> {
        let at = bytes.windows(mark.len()).position(|window| window == mark);
        bytes[at.unwrap_or(bytes.len())..].to_vec()
    };
    let client = behind(bytes(true), h2::PREFACE);
    let server = behind(bytes(false), b"\0\0\0\x04\0\0\0\0\0");
    assert!(h2::looks_like_server(&server));
    let (mut one, mut other) = (h2::Reader::client(), h2::Reader::server());
    Ok([facts(&client, |b| one.step(b))?, facts(&server, |b| other.step(b))?])
}

#[test]
fn curl_asks_over_http2_with_prior_knowledge() -> Result<()> {
    if !have(&["curl"]) {
        testbed::skip!("needs curl");
    }
    let [asked, answered] = curl("--http2-prior-knowledge", false)?;
    let [Fact::HttpRequest(HttpRequest { version, method, target, host, headers })] = &asked[..]
    else {
        panic!("{asked:?}");
    };
    assert_eq!(
        (*version, method.as_str(), target.as_str()),
        (HttpVersion::Http2, "GET", "/first?q=1")
    );
    assert!(host.as_deref().is_some_and(|host| host.starts_with("127.0.0.1:")), "{host:?}");
    let long = ("x-long".to_owned(), "a value that HPACK encodes by Huffman".to_owned());
    assert!(headers.contains(&long), "{headers:?}");
    assert!(matches!(&answered[..], [Fact::HttpResponse(response)] if response.status == 200));
    Ok(())
}

#[test]
fn curl_upgrades_to_http2() -> Result<()> {
    if !have(&["curl"]) {
        testbed::skip!("needs curl");
    }
    // What was asked is the HTTP/1 request before the upgrade; its answer is HTTP/2.
    let [asked, answered] = curl("--http2", true)?;
    assert!(asked.is_empty(), "{asked:?}");
    assert!(matches!(&answered[..], [Fact::HttpResponse(response)] if response.status == 200));
    Ok(())
}
