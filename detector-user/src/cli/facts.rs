//! Facts as lines of JSON.

use std::{
    borrow::Cow,
    io::{self, Write},
    net::IpAddr,
};

use serde::{Serialize, Serializer};

mod ports;

use self::ports::is_anothers;
use crate::{
    capture::layers::ip_address,
    flow::Found,
    l7::{
        Fact,
        fact::HttpVersion,
        text::{ascii_field, field},
    },
};

/// Writes what was found, and forgets it.
///
/// # Errors
/// What writing gives.
pub(super) fn print(found: &mut Vec<Found>, output: &mut impl Write) -> io::Result<()> {
    for found in found.iter() {
        for line in FactLine::of(found) {
            serde_json::to_writer(&mut *output, &line)?;
            output.write_all(b"\n")?;
        }
    }
    found.clear();
    Ok(())
}

/// One line.
#[derive(Debug, Serialize)]
struct FactLine<'a> {
    frame: u64,
    #[serde(serialize_with = "seconds")]
    time: u64,
    kind: &'static str,
    name: String,
    src: IpAddr,
    dst: IpAddr,
    sport: u16,
    dport: u16,
    #[serde(flatten, skip_serializing_if = "Option::is_none")]
    http: Option<Http<'a>>,
}

/// What HTTP requests have besides.
#[derive(Debug, Serialize)]
struct Http<'a> {
    method: Cow<'a, str>,
    host: Option<Cow<'a, str>>,
    uri: Cow<'a, str>,
}

/// Seconds since 1970 with nine decimals, which a JSON number would lose.
fn seconds<S: Serializer>(ns: &u64, serializer: S) -> Result<S::Ok, S::Error> {
    const NS: u64 = 1_000_000_000;
    serializer.collect_str(&format_args!("{}.{:09}", ns / NS, ns % NS))
}

impl<'a> FactLine<'a> {
    /// The lines of a fact: one for each name.
    fn of(found: &'a Found) -> Vec<Self> {
        const PUBLISH: u8 = 3;
        // tshark does not look for MQTT elsewhere, and these lines are to be compared with it.
        const MQTT: u16 = 1883;
        let line = |kind, name: &str| Self {
            frame: found.stamp.frame,
            time: found.stamp.time_ns,
            kind,
            name: name.to_owned(),
            src: ip_address(found.source.address),
            dst: ip_address(found.destination.address),
            sport: found.source.port,
            dport: found.destination.port,
            http: None,
        };
        if is_anothers(found) {
            return Vec::new();
        }
        let named = |kind, name: Option<&String>| name.map(|name| line(kind, &field(name)));
        match &found.fact {
            Fact::Dns(message) if !message.response => {
                message.questions.iter().map(|question| line("dns", &question.name)).collect()
            }
            Fact::Tls(hello) => named("tls", hello.sni.as_ref()).into_iter().collect(),
            Fact::Quic(quic) => named("quic", quic.hello.sni.as_ref()).into_iter().collect(),
            Fact::HttpRequest(request) if request.version != HttpVersion::Http2 => {
                let host = request.host.as_deref().map(ascii_field);
                let uri = field(&request.target);
                let name = format!("{}{uri}", host.as_deref().unwrap_or_default());
                let http = Http { method: field(&request.method), host, uri };
                vec![Self { http: Some(http), ..line("http", &name) }]
            }
            Fact::Mqtt(packet) if packet.kind == PUBLISH && found.is_on(MQTT) => {
                packet.topics.iter().map(|topic| line("mqtt", &field(topic))).collect()
            }
            Fact::Coap(message) if !message.uri.is_empty() => {
                vec![line("coap", &ascii_field(&message.uri))]
            }
            Fact::Dns(_)
            | Fact::HttpRequest(_)
            | Fact::HttpResponse(_)
            | Fact::Mqtt(_)
            | Fact::Coap(_) => Vec::new(),
        }
    }
}
