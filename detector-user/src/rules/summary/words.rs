//! Terms in words.

use crate::rules::term::{
    CoapObserve, CoapTerm, DnsDirection, DnsTerm, Excluded, FlowEventKind, FlowTerm, GtpuTerm,
    HelloTerm, HttpTerm, MessageTerm, MqttTerm, PathPattern, PayloadTerm, QuicTerm, RateTerm,
    SessionEvent, Terms, TlsTerm, Wildcard,
};

/// All terms of a rule.
pub(super) fn terms(terms: &Terms) -> String {
    let Terms { session, udp_first, flow, message, payload, gtpu, not, rate } = terms;
    let mut words = Vec::new();
    words.extend(session.map(|event| match event {
        SessionEvent::Started => "session started".to_owned(),
        SessionEvent::Ended => "session ended".to_owned(),
    }));
    words.extend(udp_first.then(|| "first packet of a UDP flow".to_owned()));
    words.extend(flow.as_ref().map(of_flow));
    words.extend(message.as_ref().map(of_message));
    words.extend(payload.as_ref().map(of_payload));
    words.extend(gtpu.as_ref().map(of_gtpu));
    words.extend(not.iter().map(|excluded| format!("not ({})", of_excluded(excluded))));
    words.extend(rate.map(of_rate));
    words.join(", ")
}

/// Names and alternatives: `sni a|b`; nothing for a field that was left out.
fn field<T>(name: &str, values: &[T], text: impl Fn(&T) -> String) -> Option<String> {
    let values: Vec<String> = values.iter().map(text).collect();
    let values = values.join("|");
    let space = if name.is_empty() { "" } else { " " };
    (!values.is_empty()).then(|| format!("{name}{space}{values}"))
}

fn joined<const N: usize>(first: &str, parts: [Option<String>; N]) -> String {
    let first = (!first.is_empty()).then(|| first.to_owned());
    std::iter::once(first).chain(parts).flatten().collect::<Vec<_>>().join(" ")
}

fn of_flow(flow: &FlowTerm) -> String {
    let event = |event: &FlowEventKind| match event {
        FlowEventKind::Opened => "TCP connection opened".to_owned(),
        FlowEventKind::Closed => "TCP connection closed".to_owned(),
        FlowEventKind::Idle => {
            let after = flow.idle.map(|after| humantime::format_duration(after).to_string());
            format!("flow idle for {}", after.unwrap_or_default())
        }
    };
    let flags = field("TCP flags", &flow.tcp_flags, |flags| flags.text());
    joined("", [field("", &flow.events, event), flags])
}

fn of_message(message: &MessageTerm) -> String {
    match message {
        MessageTerm::Dns(dns) => of_dns(dns),
        MessageTerm::Http(http) => of_http(http),
        MessageTerm::Tls(TlsTerm { hello, versions }) => {
            joined("TLS", [of_hello(hello), field("version", versions, |v| v.text())])
        }
        MessageTerm::Quic(QuicTerm { hello, versions }) => {
            joined("QUIC", [of_hello(hello), field("version", versions, |v| v.text())])
        }
        MessageTerm::Mqtt(mqtt) => of_mqtt(mqtt),
        MessageTerm::Coap(coap) => of_coap(coap),
    }
}

fn of_dns(dns: &DnsTerm) -> String {
    let DnsTerm { names, qtypes, message, rcodes } = dns;
    let kind = match message {
        Some(DnsDirection::Query) => "DNS query",
        Some(DnsDirection::Response) => "DNS response",
        None => "DNS message",
    };
    let types = field("", qtypes, |t| t.text());
    joined(kind, [types, field("for", names, |n| n.text()), field("", rcodes, |c| c.text())])
}

fn of_http(http: &HttpTerm) -> String {
    let HttpTerm { methods, hosts, paths, query, headers, status } = http;
    let kind = if http.is_response() { "HTTP response" } else { "HTTP" };
    let request = (!http.is_response()).then(|| "request".to_owned());
    let methods = field("", methods, |method| method.token().to_owned()).or(request);
    let pairs = |name, pairs: &Vec<(String, Vec<Wildcard>)>| {
        let all: Vec<String> = pairs
            .iter()
            .filter_map(|(key, values)| field(&format!("{name} {key}"), values, Wildcard::text))
            .collect();
        (!all.is_empty()).then(|| all.join(" "))
    };
    let hosts = field("host", hosts, |host| host.text());
    let status = field("status", status, |status| status.text());
    let paths = field("", paths, PathPattern::text);
    joined(kind, [methods, paths, hosts, pairs("query", query), pairs("header", headers), status])
}

fn of_hello(hello: &HelloTerm) -> Option<String> {
    let HelloTerm { sni, alpn, ja4, ech } = hello;
    let words = joined(
        "",
        [
            field("sni", sni, |name| name.text()),
            field("alpn", alpn, String::clone),
            field("ja4", ja4, Wildcard::text),
            ech.map(|there| if there { "with ECH" } else { "without ECH" }.to_owned()),
        ],
    );
    Some(if words.is_empty() { "ClientHello".to_owned() } else { words })
}

fn of_mqtt(mqtt: &MqttTerm) -> String {
    let MqttTerm { types, topics, client_ids, qos } = mqtt;
    let types = field("", types, |t| t.text());
    let topics = field("topic", topics, |topic| topic.text().to_owned());
    let clients = field("client", client_ids, Wildcard::text);
    joined("MQTT", [types, topics, clients, field("QoS", qos, |qos| qos.0.to_string())])
}

fn of_coap(coap: &CoapTerm) -> String {
    let CoapTerm { codes, paths, queries, observe, types } = coap;
    let observe = observe.map(|observe| match observe {
        CoapObserve::There(true) => "with Observe".to_owned(),
        CoapObserve::There(false) => "without Observe".to_owned(),
        CoapObserve::Value(value) => format!("Observe {value}"),
    });
    let (types, codes) = (field("", types, |t| t.text()), field("", codes, |code| code.text()));
    let queries = field("query", queries, Wildcard::text);
    joined("CoAP", [types, codes, field("", paths, PathPattern::text), queries, observe])
}

fn of_payload(payload: &PayloadTerm) -> String {
    let pieces: usize = payload.any.iter().map(|pattern| pattern.all.len()).sum();
    let s = if pieces == 1 { "" } else { "s" };
    format!("payload with {pieces} piece{s} in the first {} bytes", payload.reach())
}

fn of_gtpu(gtpu: &GtpuTerm) -> String {
    let teids = field("TEID", &gtpu.teids, |teid| teid.0.to_string());
    let types = field("", &gtpu.message_types, |t| t.text());
    let what = if gtpu.is_control() { "GTP-U" } else { "in GTP-U" };
    joined(what, [types, teids, field("QFI", &gtpu.qfis, |qfi| qfi.0.to_string())])
}

fn of_excluded(excluded: &Excluded) -> String {
    let Excluded { message, payload, gtpu, tcp_flags } = excluded;
    let parts = [
        message.as_ref().map(of_message),
        payload.as_ref().map(of_payload),
        gtpu.as_ref().map(of_gtpu),
        field("TCP flags", tcp_flags, |flags| flags.text()),
    ];
    parts.into_iter().flatten().collect::<Vec<_>>().join(", ")
}

fn of_rate(rate: RateTerm) -> String {
    let window = humantime::format_duration(rate.window);
    format!("at least {} {} in {window}", rate.at_least, rate.of.word())
}
