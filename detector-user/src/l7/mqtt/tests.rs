use proptest::prelude::*;

use super::*;
use crate::l7::drive;

/// A packet: first byte, and body behind its length.
fn packet(first: u8, body: &[u8]) -> Vec<u8> {
    let mut bytes = vec![first];
    let mut length = body.len();
    while length >= 0x80 {
        bytes.push(length as u8 | 0x80);
        length >>= 7;
    }
    bytes.push(length as u8);
    bytes.extend_from_slice(body);
    bytes
}

fn string(text: &[u8]) -> Vec<u8> {
    [&(text.len() as u16).to_be_bytes()[..], text].concat()
}

fn connect(level: u8, properties: &[u8], id: &[u8]) -> Vec<u8> {
    let protocol: &[u8] = if level == 3 { b"MQIsdp" } else { b"MQTT" };
    packet(0x10, &[&string(protocol)[..], &[level, 2, 0, 60], properties, &string(id)].concat())
}

fn publish(topic: &[u8], behind: &[u8]) -> Vec<u8> {
    packet(0x30, &[&string(topic), behind].concat())
}

/// Reads a client's stream.
fn read(stream: &[u8]) -> Vec<MqttPacket> {
    let mut connection = Connection::default();
    let (facts, end) = drive::whole(|bytes| connection.step(Way::Forth, bytes), stream);
    assert!(end, "read to the end");
    facts.into_iter().map(of).collect()
}

fn of(fact: Fact) -> MqttPacket {
    let Fact::Mqtt(packet) = fact else { panic!("{fact:?}") };
    packet
}

fn topics(packets: &[MqttPacket]) -> Vec<&str> {
    packets.iter().flat_map(|p| &p.topics).map(String::as_str).collect()
}

#[test]
fn what_is_kept_is_what_the_connect_and_the_newest_aliases_said() {
    let mut connection = Connection::default();
    let one = size_of::<(u16, String)>();
    let aliased = |topic: &[u8], alias| publish(topic, &[3, 0x23, 0, alias]);
    let steps = [
        (connect(5, b"\0", b"sensor-7"), 8),
        (aliased(b"a/long/topic", 1), 8 + one + 12),
        (aliased(b"a", 1), 8 + one + 1),
        (aliased(b"b", 2), 8 + 2 * (one + 1)),
        (connect(4, b"", b"x"), 1),
    ];
    for (packet, kept) in steps {
        connection.step(Way::Forth, &packet);
        assert_eq!(connection.kept(), kept, "{packet:?}");
    }
}

#[test]
fn what_the_connect_said_holds_for_both_directions() {
    let mut connection = Connection::default();
    connection.step(Way::Forth, &connect(4, b"", b"sensor-7"));
    let Step::Took { mut facts, .. } = connection.step(Way::Back, &publish(b"a/b", b"on")) else {
        panic!()
    };
    let expected = MqttPacket {
        kind: 3,
        topics: vec!["a/b".into()],
        client_id: Some("sensor-7".into()),
        qos: Some(0),
        level: Some(4),
    };
    assert_eq!(of(facts.remove(0)), expected);
}

#[test]
fn each_version_says_its_level_and_client() {
    for (level, properties) in [(3, &b""[..]), (4, b""), (5, b"\x00"), (5, b"\x05\x11\0\0\0\x0a")] {
        let packets = read(&connect(level, properties, b"me"));
        assert_eq!((packets[0].level, packets[0].client_id.as_deref()), (Some(level), Some("me")));
    }
    assert_eq!(read(&connect(4, b"", b""))[0].client_id, None, "the broker gives one");
}

#[test]
fn a_connection_may_be_joined_late() {
    let packets = read(&[publish(b"a", b"1"), packet(0xc0, b""), publish(b"b", b"2")].concat());
    assert_eq!((topics(&packets), packets.len(), packets[0].level), (vec!["a", "b"], 3, None));
}

#[test]
fn subscriptions_say_their_filters() {
    let v4 =
        packet(0x82, &[&b"\0\x01"[..], &string(b"a/+"), b"\x01", &string(b"#"), b"\0"].concat());
    assert_eq!(topics(&read(&v4)), ["a/+", "#"]);
    let v5 = packet(0x82, &[&b"\0\x01\x02\x0b\x05"[..], &string(b"a/+"), b"\x01"].concat());
    let un = packet(0xa2, &[&b"\0\x02\0"[..], &string(b"a/+"), &string(b"b")].concat());
    assert_eq!(topics(&read(&[connect(5, b"\0", b""), v5, un].concat())), ["a/+", "a/+", "b"]);
}

#[test]
fn an_alias_stands_for_the_topic_it_was_set_with_in_its_direction() {
    let set = publish(b"long/topic", b"\x03\x23\0\x01payload");
    let by_alias = publish(b"", b"\x08\x26\0\x01k\0\x00\x01\x02\x03\x23\0\x01");
    let by_alias = [by_alias, publish(b"", b"\x03\x23\0\x01payload")].concat();
    let other = publish(b"", b"\x03\x23\0\x02payload");
    let mut connection = Connection::default();
    let stream = [connect(5, b"\0", b"me"), set, by_alias, other].concat();
    let (facts, _) = drive::whole(|bytes| connection.step(Way::Forth, bytes), &stream);
    let packets: Vec<_> = facts.into_iter().map(of).collect();
    assert_eq!(topics(&packets), ["long/topic", "long/topic"], "the other is not known");
    let Step::Took { facts, .. } = connection.step(Way::Back, &publish(b"", b"\x03\x23\0\x01"))
    else {
        panic!()
    };
    assert_eq!(of(facts[0].clone()).topics, [""; 0], "the broker's aliases are its own");
}

#[test]
fn a_large_payload_is_passed_over() {
    let whole = publish(b"a", &vec![b'x'; 3_000_000]);
    let mut connection = Connection::default();
    let Step::Took { consumed, facts } = connection.step(Way::Forth, &whole[..100]) else {
        panic!()
    };
    assert_eq!((consumed, facts.len()), (whole.len() as u64, 1));
}

#[test]
fn qos_puts_an_identifier_before_the_properties() {
    let stream =
        [connect(5, b"\0", b""), packet(0x34, &[&string(b"t")[..], b"\0\x09\0payload"].concat())]
            .concat();
    let packets = read(&stream);
    assert_eq!((packets[1].qos, topics(&packets)), (Some(2), vec!["t"]));
}

#[test]
fn a_topic_longer_than_its_packet_is_none() {
    assert_eq!(topics(&read(b"\x30\x04\0\x09ab")), [""; 0]);
    assert_eq!(topics(&read(b"\x30\x05\0\x01a\0\0\x30\x03\0\x01b")), ["a", "b"]);
}

#[test]
fn a_length_of_five_bytes_is_not_mqtt() {
    let step = Connection::default().step(Way::Forth, b"\x30\xff\xff\xff\xff\x01");
    assert_eq!(step, Step::Not);
}

#[test]
fn odd_ports_need_a_connect() {
    assert!(looks_like(&connect(3, b"", b"")));
    assert!(looks_like(&connect(5, b"\0", b"")));
    assert!(looks_like(&connect(4, b"", b"")[..5]), "the beginning of one");
    assert!(!looks_like(&publish(b"a", b"")));
    assert!(!looks_like(b"\x10\x0c\0\x04HTTP"));
}

/// Bytes that are mostly packets.
fn hostile() -> impl Strategy<Value = Vec<u8>> {
    let body = prop::collection::vec(0..0x30u8, 0..20);
    let piece = prop_oneof![
        body.clone().prop_map(|body| packet(0x30, &body)),
        body.clone().prop_map(|body| packet(0x32, &body)),
        body.clone().prop_map(|body| packet(0x82, &body)),
        body.clone().prop_map(|topic| publish(&topic, b"\x03\x23\0\x01")),
        Just(connect(5, b"\0", b"me")),
        Just(connect(4, b"", b"me")),
        body,
        prop::collection::vec(any::<u8>(), 0..20),
    ];
    prop::collection::vec(piece, 0..10).prop_map(|pieces| pieces.concat())
}

proptest! {
    #[test]
    fn any_split_gives_the_same_facts(stream in hostile(), cuts in drive::cuts()) {
        let (mut one, mut other) = (Connection::default(), Connection::default());
        let split = drive::drive(|bytes| one.step(Way::Forth, bytes), drive::split(&stream, &cuts));
        let whole = drive::whole(|bytes| other.step(Way::Forth, bytes), &stream);
        prop_assert_eq!(split.0, whole.0);
    }
}
