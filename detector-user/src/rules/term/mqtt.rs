//! The `mqtt` term.

use schemars::Schema;

use super::{topic::TopicFilter, wildcard::Wildcard, words::Words};
use crate::{
    l7::fact::MqttPacket,
    yaml::{Scalar, scalar},
};

/// Which MQTT control packets.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct MqttTerm {
    /// Control packet types; empty is any.
    pub types: Vec<MqttType>,
    /// Filters of which one must find one of the packet's topics; empty is any, also none.
    pub topics: Vec<TopicFilter>,
    /// Client ids; empty is any, also one that was not seen.
    pub client_ids: Vec<Wildcard>,
    /// QoS of a PUBLISH; empty is any.
    pub qos: Vec<MqttQos>,
}

impl MqttTerm {
    /// Whether the packet is such. Topic filters of SUBSCRIBE and UNSUBSCRIBE are compared as if
    /// they were topics, their own wildcards literally.
    pub fn matches(&self, packet: &MqttPacket) -> bool {
        let client = packet.client_id.as_deref();
        (self.types.is_empty() || self.types.contains(&MqttType(packet.kind)))
            && (self.topics.is_empty()
                || packet.topics.iter().any(|t| self.topics.iter().any(|f| f.matches(t))))
            && (self.client_ids.is_empty()
                || client.is_some_and(|id| self.client_ids.iter().any(|w| w.matches(id))))
            && (self.qos.is_empty()
                || packet.qos.is_some_and(|qos| self.qos.contains(&MqttQos(qos))))
    }
}

/// A control packet type (MQTT 5 section 2.1.2).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttType(pub u8);
scalar!(MqttType);

impl MqttType {
    /// CONNECT.
    pub const CONNECT: Self = Self(1);
    /// PUBLISH.
    pub const PUBLISH: Self = Self(3);
    /// SUBSCRIBE.
    pub const SUBSCRIBE: Self = Self(8);
    /// UNSUBSCRIBE.
    pub const UNSUBSCRIBE: Self = Self(10);
    /// PINGREQ.
    pub const PINGREQ: Self = Self(12);

    /// Whether it names topics.
    pub fn has_topics(self) -> bool {
        [Self::PUBLISH, Self::SUBSCRIBE, Self::UNSUBSCRIBE].contains(&self)
    }

    /// Whether only the client, or only the server, sends it; `None` if both do.
    pub fn sent_by_client(self) -> Option<bool> {
        match self.0 {
            1 | 8 | 10 | 12 => Some(true),
            2 | 9 | 11 | 13 => Some(false),
            _ => None,
        }
    }

    /// `PUBLISH`, or the number.
    pub fn text(self) -> String {
        TYPES.name(self.0).map_or_else(|| self.0.to_string(), str::to_owned)
    }
}

const TYPES: Words<u8> = Words {
    what: "control packet type",
    table: &[
        ("CONNECT", 1),
        ("CONNACK", 2),
        ("PUBLISH", 3),
        ("PUBACK", 4),
        ("PUBREC", 5),
        ("PUBREL", 6),
        ("PUBCOMP", 7),
        ("SUBSCRIBE", 8),
        ("SUBACK", 9),
        ("UNSUBSCRIBE", 10),
        ("UNSUBACK", 11),
        ("PINGREQ", 12),
        ("PINGRESP", 13),
        ("DISCONNECT", 14),
        ("AUTH", 15),
    ],
};

impl Scalar for MqttType {
    const EXPECTED: &'static str = "a control packet type such as PUBLISH or CONNECT";

    fn parse(text: &str) -> Result<Self, String> {
        TYPES.find(text, &TYPES.all()).map(Self)
    }

    fn schema() -> Schema {
        TYPES.names_only()
    }
}

/// Quality of service.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct MqttQos(pub u8);
scalar!(MqttQos);

impl Scalar for MqttQos {
    const EXPECTED: &'static str = "a QoS: 0, 1 or 2";

    fn parse(text: &str) -> Result<Self, String> {
        let qos = text.parse().ok().filter(|qos| *qos <= 2);
        qos.map(Self).ok_or_else(|| format!("\"{text}\" is no QoS; expected {}", Self::EXPECTED))
    }

    fn schema() -> Schema {
        schemars::json_schema!({"type": "integer", "minimum": 0, "maximum": 2})
    }
}
