//! What messages say: each protocol's fields, and that they do not contradict each other.

use detector_common::{http::HttpMethod, packet::Direction};

use super::values::values;
use crate::{
    rules::{
        raw::{CoapSpec, DnsSpec, HttpSpec, MqttSpec, QuicSpec, TlsSpec},
        scalar::{AlpnName, UrlPath},
        term::{
            CoapCode, CoapTerm, CoapType, DnsDirection, DnsRcode, DnsTerm, DnsType, HelloTerm,
            HttpStatus, HttpTerm, MessageTerm, MqttTerm, MqttType, NamePattern, PathGlob,
            PathPattern, PathRegex, QuicTerm, QuicVersion, TlsTerm, TlsVersion, Wildcard,
            is_field_name,
        },
    },
    yaml::{Field, Keyed, OneOrMany, Problem},
};

type Values<T> = Option<Field<OneOrMany<T>>>;

/// The fields of `match` and of `not` that are about messages.
pub(super) struct Messages<'a> {
    pub(super) dns: &'a Option<Field<DnsSpec>>,
    pub(super) http: &'a Option<Field<HttpSpec>>,
    pub(super) tls: &'a Option<Field<TlsSpec>>,
    pub(super) quic: &'a Option<Field<QuicSpec>>,
    pub(super) mqtt: &'a Option<Field<MqttSpec>>,
    pub(super) coap: &'a Option<Field<CoapSpec>>,
}

/// The message that is asked for; a message is of one protocol.
pub(super) fn check<T>(
    around: &Field<T>,
    spec: &Messages<'_>,
    problems: &mut Vec<Problem>,
) -> Option<MessageTerm> {
    let there: Vec<&str> = [
        ("dns", spec.dns.is_some()),
        ("http", spec.http.is_some()),
        ("tls", spec.tls.is_some()),
        ("quic", spec.quic.is_some()),
        ("mqtt", spec.mqtt.is_some()),
        ("coap", spec.coap.is_some()),
    ]
    .iter()
    .filter(|(_, there)| *there)
    .map(|(name, _)| *name)
    .collect();
    if there.len() > 1 {
        problems.push(around.problem(format!(
            "can never match: no message is of {} protocols at once ({}); write one rule for each",
            there.len(),
            there.join(", ")
        )));
        return None;
    }
    fn of<T, U>(field: &Option<Field<T>>, with: impl FnOnce(&Field<T>, &T) -> U) -> Option<U> {
        field.as_ref().and_then(|field| Some(with(field, field.get()?)))
    }
    None.or_else(|| of(spec.dns, |_, s| MessageTerm::Dns(dns(s, problems))))
        .or_else(|| of(spec.http, |_, s| MessageTerm::Http(http(s, problems))))
        .or_else(|| of(spec.tls, |_, s| MessageTerm::Tls(tls(s, problems))))
        .or_else(|| of(spec.quic, |_, s| MessageTerm::Quic(quic(s, problems))))
        .or_else(|| of(spec.mqtt, |_, s| MessageTerm::Mqtt(mqtt(s, problems))))
        .or_else(|| of(spec.coap, |_, s| MessageTerm::Coap(coap(s, problems))))
}

fn names(field: &Values<NamePattern>, problems: &mut Vec<Problem>) -> Vec<NamePattern> {
    values(field.as_ref(), "name", problems, NamePattern::clone, NamePattern::text)
}

fn wildcards(field: &Values<Wildcard>, what: &str, problems: &mut Vec<Problem>) -> Vec<Wildcard> {
    values(field.as_ref(), what, problems, Wildcard::clone, Wildcard::text)
}

fn dns(spec: &DnsSpec, problems: &mut Vec<Problem>) -> DnsTerm {
    let qtypes = values(spec.qtype.as_ref(), "type", problems, |t: &DnsType| *t, |t| t.text());
    let rcodes =
        values(spec.rcode.as_ref(), "response code", problems, |c: &DnsRcode| *c, |c| c.text());
    let asked = spec.message.as_ref().and_then(Field::get).copied();
    if let (Some(field), Some(DnsDirection::Query)) = (&spec.rcode, asked) {
        problems.push(
            field.problem(
                "can never match: queries have no response code; expected message: response",
            ),
        );
    }
    let default = if spec.rcode.is_some() { DnsDirection::Response } else { DnsDirection::Query };
    DnsTerm {
        names: names(&spec.name, problems),
        qtypes,
        message: Some(asked.unwrap_or(default)),
        rcodes,
    }
}

fn http(spec: &HttpSpec, problems: &mut Vec<Problem>) -> HttpTerm {
    let methods = values(
        spec.method.as_ref(),
        "method",
        problems,
        |method| method.0,
        |method: &HttpMethod| method.token().to_owned(),
    );
    let status =
        values(spec.status.as_ref(), "status", problems, |s: &HttpStatus| *s, |s| s.text());
    let written = Paths {
        exact: (&spec.path, "path"),
        prefix: (&spec.path_prefix, "pathPrefix"),
        glob: (&spec.path_glob, "pathGlob"),
        regex: (&spec.path_regex, "pathRegex"),
    };
    let paths = paths(&written, problems);
    if let (Some(field), [HttpMethod::Connect]) = (&spec.method, methods.as_slice())
        && (!paths.is_empty() || spec.query.is_some())
    {
        // RFC 9112 section 3.2.3: CONNECT has host:port where others have a path.
        problems.push(field.problem(
            "can never match: a CONNECT request has no path and no query; expected another method, \
             or neither of the two",
        ));
    }
    HttpTerm {
        methods,
        hosts: names(&spec.host, problems),
        paths,
        query: keyed(spec.query.as_ref(), "parameter", problems, no_parameter, no_parameter_value),
        headers: keyed(spec.headers.as_ref(), "header field", problems, no_field, no_field_value),
        status,
    }
}

fn no_parameter(name: &str) -> Option<String> {
    name.contains(['&', '=', '#']).then(|| {
        format!(
            "\"{name}\" can never match: &, = and # end a parameter's name; expected it as it is \
             sent, percent-encoded"
        )
    })
}

fn no_parameter_value(value: &Wildcard) -> Option<&'static str> {
    value.contains(&['&', '#']).then_some(
        "can never match: & and # end a parameter's value; expected it as it is sent, \
         percent-encoded",
    )
}

fn no_field(name: &str) -> Option<String> {
    (!is_field_name(name))
        .then(|| format!("\"{name}\" is no header field's name (RFC 9110 section 5.1)"))
}

fn no_field_value(value: &Wildcard) -> Option<&'static str> {
    value.exact().is_some_and(|text| text.trim() != text).then_some(
        "can never match: white space around a field's value is no part of it (RFC 9110 section \
         5.5); expected it without",
    )
}

fn keyed(
    field: Option<&Field<Keyed<OneOrMany<Wildcard>>>>,
    what: &str,
    problems: &mut Vec<Problem>,
    refuse: fn(&str) -> Option<String>,
    refuse_value: fn(&Wildcard) -> Option<&'static str>,
) -> Vec<(String, Vec<Wildcard>)> {
    let Some((field, map)) = field.and_then(|field| Some((field, field.get()?))) else {
        return Vec::new();
    };
    if map.0.is_empty() {
        problems.push(field.problem(format!("is empty; expected at least one {what}")));
    }
    let mut all = Vec::new();
    for (name, value) in &map.0 {
        problems.extend(refuse(name).map(|message| value.problem(message)));
        let values = values(Some(value), "value", problems, Wildcard::clone, Wildcard::text);
        problems.extend(values.iter().filter_map(refuse_value).map(|why| value.problem(why)));
        all.push((name.clone(), values));
    }
    all
}

/// The four ways to write paths, with their names.
struct Paths<'a> {
    exact: (&'a Values<UrlPath>, &'static str),
    prefix: (&'a Values<UrlPath>, &'static str),
    glob: (&'a Values<PathGlob>, &'static str),
    regex: (&'a Values<PathRegex>, &'static str),
}

fn paths(spec: &Paths<'_>, problems: &mut Vec<Problem>) -> Vec<PathPattern> {
    type Complain<'p> = Option<Box<dyn Fn(String) -> Problem + 'p>>;
    fn place<T>(field: &Values<T>) -> Complain<'_> {
        field.as_ref().map(|f| -> Box<dyn Fn(String) -> Problem> { Box::new(|m| f.problem(m)) })
    }
    let names = [spec.exact.1, spec.prefix.1, spec.glob.1, spec.regex.1];
    let fields =
        [place(spec.exact.0), place(spec.prefix.0), place(spec.glob.0), place(spec.regex.0)];
    let mut there =
        names.iter().zip(&fields).filter_map(|(name, field)| Some((*name, field.as_ref()?)));
    if let (Some((first, _)), Some((_, second))) = (there.next(), there.next()) {
        let message = format!("stands beside {first}; expected only one of {}", names.join(", "));
        problems.push(second(message));
    }
    let mut all = values(
        spec.exact.0.as_ref(),
        "path",
        problems,
        |path| PathPattern::Exact(path.0.clone()),
        PathPattern::text,
    );
    let prefix = |path: &UrlPath| PathPattern::Prefix(path.0.clone());
    all.extend(values(spec.prefix.0.as_ref(), "prefix", problems, prefix, PathPattern::text));
    let glob = |glob: &PathGlob| PathPattern::Glob(glob.clone());
    all.extend(values(spec.glob.0.as_ref(), "glob", problems, glob, PathPattern::text));
    let regex = |regex: &PathRegex| PathPattern::Regex(regex.clone());
    all.extend(values(spec.regex.0.as_ref(), "expression", problems, regex, PathPattern::text));
    all
}

fn tls(spec: &TlsSpec, problems: &mut Vec<Problem>) -> TlsTerm {
    let versions =
        values(spec.version.as_ref(), "version", problems, |v: &TlsVersion| *v, |v| v.text());
    let ech = spec.ech.as_ref().and_then(Field::get).copied();
    if let (Some(field), Some(true)) = (&spec.version, ech)
        && !versions.is_empty()
        && !versions.contains(&TlsVersion(0x0304))
    {
        problems.push(field.problem(
            "can never match: only TLS 1.3 has Encrypted Client Hello (ech: true); expected 1.3",
        ));
    }
    let hello = hello(&spec.sni, &spec.alpn, &spec.ja4, ech, 't', problems);
    TlsTerm { hello, versions }
}

fn quic(spec: &QuicSpec, problems: &mut Vec<Problem>) -> QuicTerm {
    let versions =
        values(spec.version.as_ref(), "version", problems, |v: &QuicVersion| *v, |v| v.text());
    let ech = spec.ech.as_ref().and_then(Field::get).copied();
    let hello = hello(&spec.sni, &spec.alpn, &spec.ja4, ech, 'q', problems);
    QuicTerm { hello, versions }
}

fn hello(
    sni: &Values<NamePattern>,
    alpn: &Values<AlpnName>,
    ja4: &Values<Wildcard>,
    ech: Option<bool>,
    transport: char,
    problems: &mut Vec<Problem>,
) -> HelloTerm {
    let fingerprints = wildcards(ja4, "fingerprint", problems);
    let wrong = |w: &&Wildcard| !w.start().is_empty() && !w.start().starts_with(transport);
    if let (Some(field), Some(wrong)) = (ja4, fingerprints.iter().find(wrong)) {
        problems.push(field.problem(format!(
            "\"{}\" can never match: here JA4 fingerprints begin with {transport} (t is TLS over \
             TCP, q is QUIC)",
            wrong.text()
        )));
    }
    let whole = |w: &&Wildcard| w.exact().is_some_and(|text| !is_ja4(text));
    if let (Some(field), Some(wrong)) = (ja4, fingerprints.iter().find(whole)) {
        problems.push(field.problem(format!(
            "\"{}\" can never match: a JA4 fingerprint is like t13d1516h2_8daaf6152771_e5627efa2ab1; \
             expected a whole one, or * for what may be anything",
            wrong.text()
        )));
    }
    HelloTerm {
        sni: names(sni, problems),
        alpn: values(alpn.as_ref(), "protocol", problems, |a| a.0.clone(), String::clone),
        ja4: fingerprints,
        ech,
    }
}

/// Ten characters and two halves of hashes.
fn is_ja4(text: &str) -> bool {
    let parts: Vec<usize> = text.split('_').map(str::len).collect();
    parts == [10, 12, 12]
}

fn mqtt(spec: &MqttSpec, problems: &mut Vec<Problem>) -> MqttTerm {
    let types = values(spec.r#type.as_ref(), "type", problems, |t: &MqttType| *t, |t| t.text());
    if let Some(field) = &spec.topic
        && !types.is_empty()
        && !types.iter().any(|t| t.has_topics())
    {
        problems.push(field.problem(
            "can never match: only PUBLISH, SUBSCRIBE and UNSUBSCRIBE have topics; expected one \
             of these as type, or no topic",
        ));
    }
    if let Some(field) = &spec.qos
        && !types.is_empty()
        && !types.contains(&MqttType::PUBLISH)
    {
        problems.push(field.problem(
            "can never match: only PUBLISH has a QoS of its own; expected type: PUBLISH, or no qos",
        ));
    }
    MqttTerm {
        types,
        topics: values(spec.topic.as_ref(), "topic", problems, Clone::clone, |t| {
            t.text().to_owned()
        }),
        client_ids: wildcards(&spec.clientid, "client", problems),
        qos: values(spec.qos.as_ref(), "QoS", problems, |q| *q, |q| q.0.to_string()),
    }
}

fn coap(spec: &CoapSpec, problems: &mut Vec<Problem>) -> CoapTerm {
    let codes = values(spec.code.as_ref(), "code", problems, |c: &CoapCode| *c, |c| c.text());
    let types = values(spec.r#type.as_ref(), "type", problems, |t: &CoapType| *t, |t| t.text());
    let written = Paths {
        exact: (&spec.uri_path, "uriPath"),
        prefix: (&spec.uri_path_prefix, "uriPathPrefix"),
        glob: (&spec.uri_path_glob, "uriPathGlob"),
        regex: (&spec.uri_path_regex, "uriPathRegex"),
    };
    let paths = paths(&written, problems);
    let requests = codes.iter().any(|code| code.is_request());
    if let Some(field) = &spec.code
        && !codes.is_empty()
        && !requests
        && spec.uri_query.is_some()
    {
        problems.push(field.problem(
            "can never match: responses have no Uri-Query (RFC 7252 section 5.10); expected a \
             method such as GET, or no uriQuery",
        ));
    }
    if let Some(field) = &spec.r#type
        && !types.is_empty()
        && types.iter().all(|t| [CoapType::ACK, CoapType::RST].contains(t))
        && !codes.is_empty()
        && codes.iter().all(|code| code.is_request())
    {
        problems.push(field.problem(
            "can never match: ACK and RST are no requests (RFC 7252 section 4.3); expected CON or \
             NON",
        ));
    }
    // RFC 7252 section 12.1.2, RFC 8323 section 5.
    let known = |code: &CoapCode| matches!(code.class(), 0 | 2 | 4 | 5 | 7);
    if let (Some(field), Some(code)) = (&spec.code, codes.iter().find(|code| !known(code))) {
        problems.push(field.problem(format!(
            "can never match: there are no codes of class {} (\"{}\"); expected a method, or a code \
             of class 2, 4, 5 or 7",
            code.class(),
            code.text()
        )));
    }
    CoapTerm {
        codes,
        paths,
        queries: wildcards(&spec.uri_query, "query", problems),
        observe: spec.observe.as_ref().and_then(Field::get).copied(),
        types,
    }
}

/// The only way such messages go; `None` if they go both.
pub(super) fn only_way(message: &MessageTerm) -> Option<(Direction, &'static str)> {
    let uplink = |why| Some((Direction::Uplink, why));
    let downlink = |why| Some((Direction::Downlink, why));
    match message {
        MessageTerm::Http(http) if http.is_response() => {
            downlink("responses go from the application to the user")
        }
        MessageTerm::Http(_) => uplink("requests go from the user to the application"),
        MessageTerm::Tls(_) | MessageTerm::Quic(_) => {
            uplink("a ClientHello goes from the user to the application")
        }
        MessageTerm::Dns(dns) => match dns.message {
            Some(DnsDirection::Query) => uplink("queries go from the user to the application"),
            Some(DnsDirection::Response) => {
                downlink("responses go from the application to the user")
            }
            None => None,
        },
        MessageTerm::Mqtt(mqtt) => {
            let ways: Vec<Option<bool>> = mqtt.types.iter().map(|t| t.sent_by_client()).collect();
            match ways.split_first() {
                Some((Some(first), rest)) if rest.iter().all(|way| *way == Some(*first)) => {
                    if *first {
                        uplink("clients send these packets, never the server")
                    } else {
                        downlink("servers send these packets, never the client")
                    }
                }
                Some((Some(_) | None, _)) | None => None,
            }
        }
        MessageTerm::Coap(_) => None,
    }
}

/// The way such messages nearly always go.
pub(super) fn usual_way(message: &MessageTerm) -> Direction {
    match (only_way(message), message) {
        (Some((way, _)), _) => way,
        (None, MessageTerm::Coap(coap))
            if !coap.codes.is_empty() && !coap.codes.iter().any(|code| code.is_request()) =>
        {
            Direction::Downlink
        }
        (
            None,
            MessageTerm::Coap(_)
            | MessageTerm::Dns(_)
            | MessageTerm::Http(_)
            | MessageTerm::Tls(_)
            | MessageTerm::Quic(_)
            | MessageTerm::Mqtt(_),
        ) => Direction::Uplink,
    }
}
