//! The tables against a naive reading of the same rules, one after the other.

use std::{cmp::Reverse, net::IpAddr, time::Duration};

use detector_common::{
    counter::Counter,
    event::{MAX_MATCHES, PayloadKind},
    http::HttpMethod,
    lookup,
    packet::{Direction, Layer, Protocol},
};
use proptest::{collection::vec, option, prelude::*, sample::select};

use super::*;
use crate::{
    confirm::confirm,
    decode::Record,
    rules::{
        model::{Application, Emit, Endpoint, HttpRequestMatch, PathMatch, SessionPolicy},
        template::{DataTemplate, Template},
    },
    source::software::SoftwareClassifier,
};

fn application(name: &str, endpoints: Vec<Endpoint>) -> Arc<Application> {
    let session = SessionPolicy { idle: Duration::from_secs(60), linger: Duration::from_secs(5) };
    Arc::new(Application { name: name.to_owned(), endpoints, session })
}

fn rule(name: &str, application: &Arc<Application>, signature: Signature) -> Rule {
    Rule {
        name: name.to_owned(),
        application: application.clone(),
        ue: Vec::new(),
        direction: None,
        terms: signature.into(),
        priority: 0,
        is_final: false,
        by_user_space: false,
        needs_session: false,
        every: None,
        capture: 256,
        emit: Emit {
            event_type: "com.example.seen".to_owned(),
            subject: Template::default(),
            dataschema: None,
            data: DataTemplate::Everything,
        },
    }
}

fn endpoint(prefix: &str, ports: std::ops::RangeInclusive<u16>, protocol: Protocol) -> Endpoint {
    Endpoint { prefix: prefix.parse().expect("a prefix"), ports, protocol }
}

fn get(path: PathMatch) -> Signature {
    Signature::HttpRequest(HttpRequestMatch { methods: vec![HttpMethod::Get], path })
}

// ---- what is sent

/// A packet between two ends.
#[derive(Clone, Debug)]
struct Packet {
    from: (IpAddr, u16),
    to: (IpAddr, u16),
    what: What,
}

#[derive(Clone, Debug)]
enum What {
    Syn,
    Noise,
    Datagram,
    Request { method: HttpMethod, form: &'static str, path: String, query: bool },
}

impl What {
    fn protocol(&self) -> Protocol {
        match self {
            Self::Datagram => Protocol::Udp,
            Self::Syn | Self::Noise | Self::Request { .. } => Protocol::Tcp,
        }
    }

    fn payload(&self) -> String {
        match self {
            Self::Syn => String::new(),
            Self::Noise | Self::Datagram => "\u{1}\u{2}\u{3} no request".to_owned(),
            Self::Request { method, .. } => {
                format!("{} {} HTTP/1.1\r\nHost: a\r\n\r\n", method.token(), self.target())
            }
        }
    }

    fn target(&self) -> String {
        match self {
            Self::Request { form, path, query, .. } => {
                format!("{form}{path}{}", if *query { "?item=7" } else { "" })
            }
            Self::Syn | Self::Noise | Self::Datagram => String::new(),
        }
    }
}

impl Packet {
    fn bytes(&self) -> Vec<u8> {
        let mut transport = [self.from.1.to_be_bytes(), self.to.1.to_be_bytes()].concat();
        let number = match self.what.protocol() {
            Protocol::Tcp => {
                let flags = if matches!(self.what, What::Syn) { 0x02 } else { 0x18 };
                transport.extend([0, 0, 0, 9, 0, 0, 0, 0, 0x50, flags, 1, 0, 0, 0, 0, 0]);
                6
            }
            Protocol::Udp => {
                transport.extend([0; 4]);
                17
            }
        };
        transport.extend(self.what.payload().bytes());
        let mut packet = match (self.from.0, self.to.0) {
            (IpAddr::V4(from), IpAddr::V4(to)) => {
                let [high, low] = (20 + transport.len() as u16).to_be_bytes();
                let head = [0x45, 0, high, low, 0, 0, 0, 0, 64, number, 0, 0];
                [&head[..], &from.octets(), &to.octets()].concat()
            }
            (IpAddr::V6(from), IpAddr::V6(to)) => {
                let [high, low] = (transport.len() as u16).to_be_bytes();
                let head = [0x60, 0, 0, 0, high, low, number, 64];
                [&head[..], &from.octets(), &to.octets()].concat()
            }
            (IpAddr::V4(_), IpAddr::V6(_)) | (IpAddr::V6(_), IpAddr::V4(_)) => {
                unreachable!("both ends are of one family")
            }
        };
        packet.extend(transport);
        packet
    }
}

// ---- the naive reading

/// The application served there: longest prefix, then fewest ports, then first in the file.
fn naive_application(set: &RuleSet, at: (IpAddr, u16), protocol: Protocol) -> Option<usize> {
    let mut best = None;
    for (number, application) in set.applications.iter().enumerate() {
        for endpoint in &application.endpoints {
            let serves = endpoint.prefix.contains(&at.0)
                && endpoint.ports.contains(&at.1)
                && endpoint.protocol == protocol;
            let rank = (Reverse(endpoint.prefix.prefix_len()), endpoint.ports.len());
            if serves && best.is_none_or(|(best, _)| rank < best) {
                best = Some((rank, number));
            }
        }
    }
    best.map(|(_, number)| number)
}

/// Rules that match, by the kernel's part of the path and in full.
struct Expected {
    kernel: Vec<u16>,
    full: Vec<u16>,
}

fn naive(set: &RuleSet, pools: &[IpNet], packet: &Packet, warm: bool) -> Expected {
    let mut expected = Expected { kernel: Vec::new(), full: Vec::new() };
    let protocol = packet.what.protocol();
    let uplink = naive_application(set, packet.to, protocol).map(|n| (n, Direction::Uplink));
    let downlink =
        || naive_application(set, packet.from, protocol).map(|n| (n, Direction::Downlink));
    let Some((number, direction)) = uplink.or_else(downlink) else { return expected };
    let ue = match direction {
        Direction::Uplink => packet.from.0,
        Direction::Downlink => packet.to.0,
    };
    if !pools.is_empty() && !pools.iter().any(|pool| pool.contains(&ue)) {
        return expected;
    }
    let in_session = direction == Direction::Uplink || warm;
    for (index, rule) in set.rules.iter().enumerate() {
        let fits = rule.application.name == set.applications[number].name
            && rule.direction.is_none_or(|wanted| wanted == direction)
            && (rule.ue.is_empty() || rule.ue.iter().any(|net| net.contains(&ue)))
            && (in_session || !rule.needs_session);
        let (kernel, full) = payload_fits(&rule.signature().expect("the kernel's"), &packet.what);
        if fits && kernel {
            expected.kernel.push(index as u16);
        }
        if fits && full {
            expected.full.push(index as u16);
        }
    }
    expected
}

fn payload_fits(signature: &Signature, what: &What) -> (bool, bool) {
    match (signature, what) {
        (Signature::TcpOpened, What::Syn) | (Signature::UdpFirstPacket, What::Datagram) => {
            (true, true)
        }
        (Signature::HttpRequest(wanted), What::Request { method, path, .. }) => {
            if !wanted.methods.is_empty() && !wanted.methods.contains(method) {
                return (false, false);
            }
            match &wanted.path {
                PathMatch::Any => (true, true),
                PathMatch::Exact(exact) => (start_fits(exact, &what.target()), exact == path),
                PathMatch::Prefix(start) => {
                    (start_fits(start, &what.target()), path.starts_with(start.as_str()))
                }
            }
        }
        _ => (false, false),
    }
}

/// The kernel compares 32, 16, 8 or 4 bytes, and only of a target in origin form.
fn start_fits(wanted: &str, target: &str) -> bool {
    let cut = [32, 16, 8, 4, 0].into_iter().find(|length| *length <= wanted.len());
    !target.starts_with('/') || target.starts_with(&wanted[..cut.unwrap_or(0)])
}

// ---- random rules and packets out of few values, so that they meet

const PORTS: [u16; 6] = [53, 80, 81, 443, 8080, 40_000];
const PATHS: [&str; 10] = [
    "/",
    "/a",
    "/api",
    "/api/buttons",
    "/api/buttons/buy",
    "/api/buttons/buy/now",
    "/api/buttons/sell",
    "/a/very/long/path/that/is/32+by/s",
    "/a/very/long/path/that/is/32+by/s/and/goes/on",
    "/a/very/long/path/that/is/other",
];

fn net() -> impl Strategy<Value = IpNet> {
    let nets = [
        "0.0.0.0/0",
        "10.0.0.0/8",
        "10.0.0.0/24",
        "10.0.0.2/31",
        "10.0.0.1/32",
        "10.0.0.2/32",
        "172.16.0.0/12",
        "::/0",
        "::/64",
        "fd00::/8",
        "fd00::/64",
        "fd00::1/128",
        "fd00::2/128",
    ];
    select(nets.map(|net| net.parse::<IpNet>().expect("a prefix")).to_vec())
}

fn ends() -> impl Strategy<Value = (IpAddr, IpAddr)> {
    let v4 = ["10.0.0.1", "10.0.0.2", "10.0.0.3", "10.9.0.1", "172.16.0.1", "192.0.2.1"];
    let v6 = ["fd00::1", "fd00::2", "fd00:1::1", "::1", "2001:db8::1", "::2:3"];
    (any::<bool>(), 0..6usize, 0..6usize).prop_map(move |(is_v4, from, to)| {
        let pool = if is_v4 { v4 } else { v6 };
        (pool[from].parse().expect("address"), pool[to].parse().expect("address"))
    })
}

fn endpoints() -> impl Strategy<Value = Vec<Endpoint>> {
    let ports = select(vec![80..=80, 80..=443, 81..=8080, 53..=53, 0..=u16::MAX, 1..=u16::MAX]);
    let protocol = select(vec![Protocol::Tcp, Protocol::Tcp, Protocol::Udp]);
    let one = (net(), ports, protocol).prop_map(|(prefix, ports, protocol)| Endpoint {
        prefix,
        ports,
        protocol,
    });
    vec(one, 1..4)
}

fn signature() -> impl Strategy<Value = Signature> {
    let path = prop_oneof![
        Just(PathMatch::Any),
        select(PATHS.to_vec()).prop_map(|path| PathMatch::Exact(path.to_owned())),
        select(PATHS.to_vec()).prop_map(|path| PathMatch::Prefix(path.to_owned())),
    ];
    let methods = vec(select(vec![HttpMethod::Get, HttpMethod::Post, HttpMethod::Options]), 0..3);
    prop_oneof![
        2 => Just(Signature::TcpOpened),
        2 => Just(Signature::UdpFirstPacket),
        1 => Just(Signature::SessionStarted),
        6 => (methods, path).prop_map(|(methods, path)| {
            Signature::HttpRequest(HttpRequestMatch { methods, path })
        }),
    ]
}

fn rule_set() -> impl Strategy<Value = RuleSet> {
    let rule_parts = (
        any::<prop::sample::Index>(),
        vec(net(), 0..3),
        option::of(select(vec![Direction::Uplink, Direction::Downlink])),
        signature(),
        any::<bool>(),
    );
    (vec(endpoints(), 1..5), vec(rule_parts, 1..40)).prop_map(|(applications, rules)| {
        let applications: Vec<Arc<Application>> = applications
            .into_iter()
            .enumerate()
            .map(|(n, endpoints)| application(&format!("app-{n}"), endpoints))
            .collect();
        let rules = rules.into_iter().enumerate().map(|(n, parts)| {
            let (of, ue, direction, signature, needs_session) = parts;
            let plain = rule(&format!("rule-{n}"), of.get(&applications), signature);
            Arc::new(Rule { ue, direction, needs_session, ..plain })
        });
        RuleSet { rules: rules.collect(), applications }
    })
}

fn packet() -> impl Strategy<Value = Packet> {
    let method = select(vec![HttpMethod::Get, HttpMethod::Post, HttpMethod::Put]);
    let form = select(vec!["", "", "", "http://shop"]);
    let what = prop_oneof![
        Just(What::Syn),
        Just(What::Noise),
        Just(What::Datagram),
        (method, form, select(PATHS.to_vec()), any::<bool>()).prop_map(
            |(method, form, path, query)| What::Request {
                method,
                form,
                path: path.to_owned(),
                query,
            }
        ),
    ];
    (ends(), select(PORTS.to_vec()), select(PORTS.to_vec()), what).prop_map(
        |((from, to), from_port, to_port, what)| Packet {
            from: (from, from_port),
            to: (to, to_port),
            what,
        },
    )
}

/// The rules that the classifier reports, and how many more it counted.
fn classify(tables: TableImage, packet: &Packet, warm: bool) -> (Option<Vec<u8>>, u64) {
    let mut classifier = SoftwareClassifier::new(tables);
    if warm {
        let Packet { from, to, .. } = *packet;
        let spoken = Packet { from: to, to: from, what: What::Noise };
        let _ = classifier.inspect(&spoken.bytes(), Layer::Ip, 1, 1_000);
    }
    let record = classifier.inspect(&packet.bytes(), Layer::Ip, 1, 2_000);
    (record, classifier.counter(Counter::MatchesOverLimit))
}

proptest! {
    #[test]
    fn the_application_is_the_one_a_linear_search_finds(
        set in rule_set(), (at, _) in ends(), port in select(PORTS.to_vec()), udp: bool,
    ) {
        let tables = compile(&set, &[], 1).expect("few rules");
        let protocol = if udp { Protocol::Udp } else { Protocol::Tcp };
        let found = lookup::application(&tables, &tables.generation, address(at), protocol, port);
        let expected = naive_application(&set, (at, port), protocol);
        let expected = expected.map(|number| stable_id(&set.applications[number].name));
        prop_assert_eq!(found.map(|application| application.id), expected);
    }

    #[test]
    fn the_rules_are_those_that_a_linear_search_finds(
        set in rule_set(), pools in vec(net(), 0..3), packets in vec(packet(), 1..12), warm: bool,
    ) {
        let tables = compile(&set, &pools, 1).expect("few rules");
        for packet in packets {
            // The UE speaking first would use up the first packet of a UDP flow.
            let warm = warm && packet.what.protocol() == Protocol::Tcp;
            // It makes a session only where the other way is the uplink.
            let up = naive_application(&set, packet.to, packet.what.protocol());
            let warm = warm && up.is_none();
            let expected = naive(&set, &pools, &packet, warm);
            let (bytes, over) = classify(tables.clone(), &packet, warm);
            let bytes = bytes.unwrap_or_default();
            let record = Record::decode(&bytes).ok();
            let rules = record.as_ref().map_or(&[][..], |record| &record.rules);
            let room = expected.kernel.len().min(MAX_MATCHES);
            prop_assert_eq!(rules, &expected.kernel[..room], "{:?}", &packet);
            prop_assert_eq!(over as usize, expected.kernel.len() - room);
            let confirmed: Vec<u16> = record.iter().flat_map(|record| {
                let fits = |n: &&u16| confirm(&set.rules[usize::from(**n)], record).is_ok();
                record.rules.iter().filter(fits).copied().collect::<Vec<_>>()
            }).collect();
            let full: Vec<u16> =
                expected.full.into_iter().filter(|n| expected.kernel[..room].contains(n)).collect();
            prop_assert_eq!(confirmed, full, "{:?}", &packet);
        }
    }
}

/// So many rules, ten to an application, each with a path of its own.
fn many(count: usize) -> RuleSet {
    let applications: Vec<_> = (0..count.div_ceil(10))
        .map(|n| {
            let prefix = format!("10.46.{}.{}/32", n / 200, n % 200);
            application(&format!("app-{n}"), vec![endpoint(&prefix, 80..=80, Protocol::Tcp)])
        })
        .collect();
    let path = |n| PathMatch::Exact(format!("/rule/{n:04}/press"));
    let rules = (0..count)
        .map(|n| Arc::new(rule(&format!("rule-{n}"), &applications[n / 10], get(path(n)))));
    RuleSet { rules: rules.collect(), applications }
}

#[test]
fn a_thousand_rules_compile_and_each_is_found() {
    let set = many(1_000);
    let mut classifier = SoftwareClassifier::new(compile(&set, &[], 7).expect("fits"));
    for n in 0..1_000 {
        let to = [10, 46, (n / 10 / 200) as u8, (n / 10 % 200) as u8];
        let packet = Packet {
            from: ([10, 45, (n >> 8) as u8, n as u8].into(), 40_000),
            to: (to.into(), 80),
            what: What::Request {
                method: HttpMethod::Get,
                form: "",
                path: format!("/rule/{n:04}/press"),
                query: false,
            },
        };
        let bytes = classifier.inspect(&packet.bytes(), Layer::Ip, 3, n as u64 + 1);
        let bytes = bytes.expect("a record");
        let record = Record::decode(&bytes).expect("of this version");
        assert_eq!(record.payload_kind, PayloadKind::HttpRequest);
        assert_eq!((record.generation, record.ifindex), (7, 3));
        let confirmed: Vec<u16> = record
            .rules
            .iter()
            .copied()
            .filter(|n| confirm(&set.rules[usize::from(*n)], &record).is_ok())
            .collect();
        // The first 8 bytes, "/rule/00", are common; the first 16 differ.
        assert_eq!(confirmed, [n as u16]);
    }
}

#[test]
fn one_rule_more_than_fit_is_refused_with_both_numbers() {
    assert!(compile(&many(1_024), &[], 1).is_ok());
    let error = compile(&many(1_025), &[], 1).expect_err("too many").to_string();
    assert!(error.starts_with("1025 rules, but a generation holds at most 1024"), "{error}");
}

#[test]
fn nine_prefix_lengths_are_refused_where_they_are_and_eight_of_each_family_are_not() {
    let nets = |count: u8| -> Vec<IpNet> {
        let v4 = (0..count).map(|n| format!("10.0.0.0/{}", 8 + n));
        let v6 = (0..8).map(|n| format!("fd00::/{}", 8 + n));
        v4.chain(v6).map(|net| net.parse::<IpNet>().expect("a prefix").trunc()).collect()
    };
    let served = |count| {
        let endpoints = nets(count).into_iter().map(|prefix| Endpoint {
            prefix,
            ports: 80..=80,
            protocol: Protocol::Tcp,
        });
        RuleSet { applications: vec![application("a", endpoints.collect())], rules: Vec::new() }
    };
    assert!(compile(&served(8), &nets(8), 1).is_ok());
    let error = compile(&served(9), &[], 1).expect_err("nine").to_string();
    assert!(error.starts_with("application endpoints use more than 8"), "{error}");
    let error = compile(&served(8), &nets(9), 1).expect_err("nine").to_string();
    assert!(error.starts_with("UE pools and UE prefixes of rules use more than 8"), "{error}");
}

/// Two names with one FNV-1a hash; known from FNV's list of 32-bit collisions.
#[test]
fn names_with_the_same_id_are_refused_by_name() {
    assert_eq!(stable_id("costarring"), stable_id("liquid"));
    let app = application("a", vec![endpoint("10.0.0.0/8", 80..=80, Protocol::Tcp)]);
    let rules = ["costarring", "liquid"]
        .map(|name| Arc::new(rule(name, &app, Signature::TcpOpened)))
        .to_vec();
    let error = compile(&RuleSet { applications: vec![app], rules }, &[], 1);
    let names = CompileError::SameId("costarring".to_owned(), "liquid".to_owned());
    assert_eq!(error.expect_err("one id"), names);
}

#[test]
fn a_prefix_of_one_family_never_holds_addresses_of_the_other() {
    let v6 = application("v6", vec![endpoint("::/0", 80..=80, Protocol::Tcp)]);
    let v4 = application("v4", vec![endpoint("10.0.0.0/8", 443..=443, Protocol::Tcp)]);
    let set = RuleSet { applications: vec![v6, v4], rules: Vec::new() };
    let tables = compile(&set, &[], 1).expect("two applications");
    let at = |ip: &str, port| {
        let ip = address(ip.parse().expect("an address"));
        lookup::application(&tables, &tables.generation, ip, Protocol::Tcp, port)
            .map(|application| application.id)
    };
    assert_eq!(at("10.0.0.1", 443), Some(stable_id("v4")));
    assert_eq!(at("10.0.0.1", 80), None);
    assert_eq!(at("fd00::1", 80), Some(stable_id("v6")));
}

#[test]
fn an_address_that_leads_straight_to_an_application_has_its_ports_and_protocol_only() {
    let shop = application("shop", vec![endpoint("10.0.0.0/8", 80..=81, Protocol::Tcp)]);
    let set = RuleSet { applications: vec![shop], rules: Vec::new() };
    let tables = compile(&set, &[], 1).expect("an application");
    assert_eq!(tables.applications[0].ports, [80, 81], "straight");
    let served = |port, protocol| {
        let ip = address("10.0.0.1".parse().expect("an address"));
        lookup::application(&tables, &tables.generation, ip, protocol, port).is_some()
    };
    assert_eq!(
        [79, 80, 81, 82].map(|port| served(port, Protocol::Tcp)),
        [false, true, true, false]
    );
    assert!(!served(80, Protocol::Udp));
}
