//! MQTT 3.1, 3.1.1 and 5 on a stream: what is published, subscribed to, and by whom. Payloads are
//! passed over by their length.

mod packet;
mod property;

use std::collections::HashMap;

use smallvec::smallvec;

use super::fact::MqttPacket;
use super::{Fact, Step, Way};
use packet::Fixed;

const CONNECT: u8 = 1;
const PUBLISH: u8 = 3;
const SUBSCRIBE: u8 = 8;
const UNSUBSCRIBE: u8 = 10;

/// The level of MQTT 5, which added properties to every packet.
const LEVEL_5: u8 = 5;

/// Of one packet not more than this is read before its payload: a topic has up to 64 KiB.
const MAX_READ: u64 = 80 * 1024;
/// Topic aliases kept for one direction; a receiver says how many it takes (Topic Alias Maximum),
/// most say 10.
const MAX_ALIASES: usize = 256;

/// One connection: what its CONNECT said holds for all that follows, in both directions.
#[derive(Debug, Default)]
pub struct Connection {
    client_id: Option<String>,
    level: Option<u8>,
    forth: Aliases,
    back: Aliases,
    /// Bytes of client id and topics.
    kept: usize,
}

/// Topic aliases of one direction (MQTT 5 section 3.3.2.3.4).
type Aliases = HashMap<u16, String>;

impl Connection {
    /// Reads one control packet that flows this way. A connection may be joined after its CONNECT.
    pub fn step(&mut self, way: Way, bytes: &[u8]) -> Step {
        let fixed = match Fixed::read(bytes) {
            Ok(Some(fixed)) => fixed,
            Ok(None) => return Step::More,
            Err(packet::Damaged) => return Step::Not,
        };
        let consumed = fixed.head as u64 + u64::from(fixed.remaining);
        let there = bytes.get(fixed.head..).unwrap_or_default();
        let whole = u64::from(fixed.remaining).min(MAX_READ) as usize;
        let (body, complete) = match there.get(..whole) {
            Some(body) => (body, true),
            None => (there, false),
        };
        match self.read(way, &fixed, body, complete) {
            Some(packet) => Step::Took { consumed, facts: smallvec![Fact::Mqtt(packet)] },
            None => Step::More,
        }
    }

    /// None if more than `body` is needed to say what the packet is, and more is to come.
    fn read(&mut self, way: Way, fixed: &Fixed, body: &[u8], complete: bool) -> Option<MqttPacket> {
        let mut topics = Vec::new();
        let mut qos = None;
        match fixed.kind {
            CONNECT => match packet::connect(body) {
                Some(connect) => *self = Connection::opened(connect),
                None if complete => {}
                None => return None,
            },
            PUBLISH => {
                let publish = packet::publish(body, fixed.flags, self.level == Some(LEVEL_5));
                if !complete && !publish.whole {
                    return None;
                }
                qos = Some(fixed.flags >> 1 & 3);
                topics.extend(self.topic(way, publish));
            }
            SUBSCRIBE | UNSUBSCRIBE if !complete => return None,
            SUBSCRIBE | UNSUBSCRIBE => {
                let options = usize::from(fixed.kind == SUBSCRIBE);
                topics = packet::filters(body, options, self.level == Some(LEVEL_5));
            }
            _ => {}
        }
        Some(MqttPacket {
            kind: fixed.kind,
            topics,
            client_id: self.client_id.clone(),
            qos,
            level: self.level,
        })
    }

    fn opened(connect: packet::Connect) -> Connection {
        Connection {
            kept: connect.client_id.as_ref().map_or(0, String::len),
            client_id: connect.client_id,
            level: Some(connect.level),
            ..Connection::default()
        }
    }

    /// Bytes that are kept for packets to come.
    pub(crate) fn kept(&self) -> usize {
        self.kept
    }

    /// What a PUBLISH is about: its topic, or the one that its alias stands for.
    fn topic(&mut self, way: Way, publish: packet::Publish) -> Option<String> {
        let aliases = match way {
            Way::Forth => &mut self.forth,
            Way::Back => &mut self.back,
        };
        match (publish.topic, publish.alias) {
            (Some(topic), Some(alias)) => {
                if aliases.len() < MAX_ALIASES || aliases.contains_key(&alias) {
                    let before = aliases.insert(alias, topic.clone());
                    self.kept += size_of::<(u16, String)>() + topic.len();
                    self.kept -= before.map_or(0, |it| size_of::<(u16, String)>() + it.len());
                }
                Some(topic)
            }
            (None, Some(alias)) => aliases.get(&alias).cloned(),
            (topic, None) => topic,
        }
    }
}

/// Whether a stream on a port that says nothing begins as MQTT does: with a CONNECT that names the
/// protocol. Also true of what may yet become one, if it has at least two bytes.
pub fn looks_like(bytes: &[u8]) -> bool {
    let [first, _, ..] = bytes else { return false };
    let Ok(fixed) = Fixed::read(bytes) else { return false };
    let name = fixed.map_or(&[][..], |fixed| bytes.get(fixed.head..).unwrap_or_default());
    let names = |protocol: &[u8]| name.starts_with(protocol) || protocol.starts_with(name);
    *first == CONNECT << 4 && (names(b"\x00\x04MQTT") || names(b"\x00\x06MQIsdp"))
}

#[cfg(test)]
mod tests;
