//! Rules to test with.

use std::{sync::Arc, time::Duration};

use detector_common::{
    http::HttpMethod,
    packet::{Direction, Protocol},
};
use detector_user::rules::{
    compile::compile,
    model::{
        Application, Emit, Endpoint, HttpRequestMatch, PathMatch, Rule, RuleSet, SessionPolicy,
        Signature,
    },
    table::TableImage,
    template::{DataTemplate, Template},
};

/// An application at some endpoints (`prefix`, first port, last port, protocol).
pub(crate) fn application(
    name: &str,
    endpoints: &[(&str, u16, u16, Protocol)],
) -> Arc<Application> {
    let endpoints = endpoints.iter().map(|(prefix, first, last, protocol)| Endpoint {
        prefix: prefix.parse().expect("a prefix"),
        ports: *first..=*last,
        protocol: *protocol,
    });
    Arc::new(Application {
        name: name.to_owned(),
        endpoints: endpoints.collect(),
        session: SessionPolicy { idle: Duration::from_secs(30), linger: Duration::from_secs(2) },
    })
}

/// A rule with the defaults of a rules file.
pub(crate) fn rule(name: &str, application: &Arc<Application>, signature: Signature) -> Rule {
    Rule {
        name: name.to_owned(),
        application: application.clone(),
        ue: Vec::new(),
        direction: Some(Direction::Uplink),
        terms: signature.into(),
        priority: 0,
        is_final: false,
        by_user_space: false,
        needs_session: false,
        every: None,
        capture: 256,
        emit: Emit {
            event_type: format!("com.example.{name}"),
            subject: Template::default(),
            dataschema: None,
            data: DataTemplate::default(),
        },
    }
}

/// HTTP requests of some methods to a path.
pub(crate) fn http(methods: &[HttpMethod], path: PathMatch) -> Signature {
    Signature::HttpRequest(HttpRequestMatch { methods: methods.to_vec(), path })
}

/// The shop: an application with HTTP, UDP and connection rules, and UEs in 10.60/16 and fd00:60::/48.
pub(crate) fn shop(generation: u32) -> (RuleSet, TableImage) {
    let shop = application(
        "ar-shop",
        &[
            ("10.45.0.10/32", 80, 80, Protocol::Tcp),
            ("10.45.0.0/24", 8080, 8090, Protocol::Tcp),
            ("fd00:45::10/128", 0, 65535, Protocol::Tcp),
            ("10.45.0.10/32", 5000, 5000, Protocol::Udp),
        ],
    );
    let game = application("game", &[("10.45.1.0/24", 0, 65535, Protocol::Udp)]);
    let post = [HttpMethod::Post];
    let rules = vec![
        rule("buy", &shop, http(&post, PathMatch::Exact("/api/buttons/buy".to_owned()))),
        Rule {
            every: Some(Duration::from_secs(3600)),
            ..rule("any-api", &shop, http(&[], PathMatch::Prefix("/api/".to_owned())))
        },
        Rule {
            ue: vec!["10.60.0.2/32".parse().expect("a prefix")],
            capture: 1024,
            ..rule("one-ue", &shop, http(&[], PathMatch::Any))
        },
        rule("opened", &shop, Signature::TcpOpened),
        rule("udp", &shop, Signature::UdpFirstPacket),
        Rule {
            direction: None,
            needs_session: true,
            ..rule("game", &game, Signature::UdpFirstPacket)
        },
    ];
    let set = RuleSet {
        applications: vec![shop, game],
        rules: rules.into_iter().map(Arc::new).collect(),
    };
    let pools = ["10.60.0.0/16".parse().expect("a pool"), "fd00:60::/48".parse().expect("a pool")];
    let image = compile(&set, &pools, generation).expect("compiles");
    (set, image)
}
