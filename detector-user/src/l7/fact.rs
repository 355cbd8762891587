//! What can be found in payloads. One type a protocol; strings are as sent, made printable
//! losslessly where they are UTF-8 and with U+FFFD where they are not.

/// One thing that a packet, or a stream up to this packet, says.
#[derive(Clone, Debug, PartialEq)]
pub enum Fact {
    /// A DNS message (RFC 1035), over UDP or TCP.
    Dns(DnsMessage),
    /// The head of an HTTP/1 or HTTP/2 request.
    HttpRequest(HttpRequest),
    /// The head of an HTTP/1 or HTTP/2 response.
    HttpResponse(HttpResponse),
    /// A TLS ClientHello over TCP (RFC 8446 section 4.1.2).
    Tls(ClientHello),
    /// A TLS ClientHello inside QUIC Initials (RFC 9001).
    Quic(QuicHello),
    /// An MQTT control packet of 3.1, 3.1.1 or 5.
    Mqtt(MqttPacket),
    /// A CoAP message (RFC 7252).
    Coap(CoapMessage),
}

impl Fact {
    /// Bytes of text and lists that it holds, for whoever keeps it.
    pub fn heap_bytes(&self) -> usize {
        fn texts<'a>(texts: impl IntoIterator<Item = &'a String>) -> usize {
            texts.into_iter().map(|text| size_of::<String>() + text.len()).sum()
        }
        let fields = |fields: &[(String, String)]| -> usize {
            fields.iter().map(|(name, value)| texts([name, value])).sum()
        };
        let hello =
            |hello: &ClientHello| texts(&hello.sni) + texts(&hello.alpn) + texts(&hello.ja4);
        match self {
            Self::Dns(message) => texts(message.questions.iter().map(|question| &question.name)),
            Self::HttpRequest(it) => {
                texts([&it.method, &it.target]) + texts(&it.host) + fields(&it.headers)
            }
            Self::HttpResponse(it) => fields(&it.headers),
            Self::Tls(it) => hello(it),
            Self::Quic(it) => hello(&it.hello),
            Self::Mqtt(it) => texts(&it.topics) + texts(&it.client_id),
            Self::Coap(it) => it.token.len() + texts([&it.path, &it.uri]) + texts(&it.query),
        }
    }
}

/// A DNS message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsMessage {
    /// Message id.
    pub id: u16,
    /// A response, not a query.
    pub response: bool,
    /// Kind of query; 0 is the standard one.
    pub opcode: u8,
    /// Response code, the EDNS extension of it included (RFC 6891 section 6.1.3); 0 in queries.
    pub rcode: u16,
    /// The questions, in order.
    pub questions: Vec<DnsQuestion>,
}

/// One question of a DNS message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DnsQuestion {
    /// The name as sent, without the final dot; the root is `<Root>`.
    pub name: String,
    /// Record type asked for, e.g. 28 for AAAA.
    pub qtype: u16,
    /// Class, nearly always 1 (IN); mDNS's unicast bit is left in.
    pub qclass: u16,
}

/// Which HTTP.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HttpVersion {
    /// HTTP/1.0.
    Http10,
    /// HTTP/1.1.
    Http11,
    /// HTTP/2 in clear (h2c).
    Http2,
}

/// The head of a request.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpRequest {
    /// Which HTTP.
    pub version: HttpVersion,
    /// Method token as sent.
    pub method: String,
    /// Request target as sent: origin form, absolute form, `*`, or `host:port` for CONNECT.
    pub target: String,
    /// The Host header, or `:authority`, as sent.
    pub host: Option<String>,
    /// Fields in the order sent; names as sent.
    pub headers: Vec<(String, String)>,
}

/// The head of a response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HttpResponse {
    /// Which HTTP.
    pub version: HttpVersion,
    /// Status code.
    pub status: u16,
    /// Fields in the order sent; names as sent.
    pub headers: Vec<(String, String)>,
}

/// A TLS ClientHello.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClientHello {
    /// Server name (RFC 6066 section 3), as sent.
    pub sni: Option<String>,
    /// ALPN protocol names, in order (RFC 7301).
    pub alpn: Vec<String>,
    /// The highest version offered, GREASE left out, e.g. 0x0304 for TLS 1.3.
    pub version: u16,
    /// JA4 fingerprint (FoxIO, technical details of JA4); absent if not all of the hello was seen,
    /// or it is damaged.
    pub ja4: Option<String>,
    /// An encrypted_client_hello extension is there: the name seen is the outer one, or, as
    /// browsers send the extension without using it, the only one.
    pub ech: bool,
}

/// A ClientHello that came in QUIC Initials.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct QuicHello {
    /// QUIC version, e.g. 1 or 0x6b3343cf.
    pub version: u32,
    /// The ClientHello.
    pub hello: ClientHello,
}

/// An MQTT control packet.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MqttPacket {
    /// Control packet type, 1 (CONNECT) to 15 (AUTH).
    pub kind: u8,
    /// Topic of a PUBLISH (a v5 topic alias resolved where it was seen set), or topic filters of a
    /// SUBSCRIBE or UNSUBSCRIBE.
    pub topics: Vec<String>,
    /// Client identifier: of a CONNECT, and of what follows on its connection.
    pub client_id: Option<String>,
    /// QoS of a PUBLISH.
    pub qos: Option<u8>,
    /// Protocol level once the CONNECT was seen: 3, 4 (3.1.1) or 5.
    pub level: Option<u8>,
}

/// A CoAP message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CoapMessage {
    /// Type: 0 CON, 1 NON, 2 ACK, 3 RST; none over TCP, which has no types (RFC 8323).
    pub kind: Option<u8>,
    /// Code, class in the upper three bits: 0x01 is GET (0.01), 0x45 is 2.05.
    pub code: u8,
    /// Token, which ties a response to its request.
    pub token: Vec<u8>,
    /// Uri-Path options, each with `/` before it; empty without any.
    pub path: String,
    /// Uri-Query options.
    pub query: Vec<String>,
    /// Observe option (RFC 7641).
    pub observe: Option<u32>,
    /// What the message is about: `coap://host:port/path`, with those parts only that options say,
    /// mostly `/path`. A response has that of the request it answers, where that was seen.
    pub uri: String,
}
