use proptest::prelude::*;

use super::*;
use crate::{
    attach::{Directions, Hook},
    rules,
    yaml::golden,
};

const SAMPLE: &str = include_str!("../../../manifests/samples/detector/config.yaml");
const MINIMAL: &str = "apiVersion: detector.dev/v1alpha1
kind: Config
spec:
  devices: [{name: n6}]
  uePools: [{name: phones, cidr: 10.60.0.0/16}]
  rules: [rules.d, /etc/more.yaml]
";

fn environment(variables: &[(&str, &str)]) -> Environment {
    let own = |(name, value): &(&str, &str)| ((*name).to_owned(), (*value).to_owned());
    Environment {
        variables: variables.iter().map(own).collect(),
        hostname: Some("host-1.example".to_owned()),
    }
}

fn config(text: &str, variables: &[(&str, &str)]) -> Result<Config, String> {
    let path = Path::new("/etc/detector/config.yaml");
    Config::parse(path, text.as_bytes(), &environment(variables)).map_err(|e| e.to_string())
}

#[test]
fn bad_files_are_refused_with_place_field_and_advice() {
    let count = golden::check("config-", |name, bytes| {
        Config::parse(Path::new(name), bytes, &environment(&[])).err()
    });
    assert!(count >= 8, "only {count} files");
}

#[test]
fn what_is_left_out_has_its_default() {
    let config = config(MINIMAL, &[]).unwrap();
    assert_eq!((config.site.as_str(), config.node.as_str()), ("edge", "host-1.example"));
    assert_eq!(config.devices[0].hook, Hook::Auto);
    assert_eq!(config.devices[0].directions, Directions::Both);
    assert_eq!(config.rules, [Path::new("/etc/detector/rules.d"), Path::new("/etc/more.yaml")]);
    assert_eq!((config.sinks, config.ce_overrides), (vec![], Overrides::default()));
    assert_eq!(config.delivery, Delivery::default());
    assert_eq!(config.admin.listen.to_string(), "127.0.0.1:9901");
    assert_eq!(
        config.limits,
        Limits { cpu: None, memory: None, sessions: 65_536, flows: 65_536, ring_bytes: 4 << 20 }
    );
    assert_eq!(config.pin, None);
}

#[test]
fn a_ratio_is_between_none_and_all_and_a_collector_needs_its_feature() {
    let tracing = |written: &str| config(&format!("{MINIMAL}  tracing: {written}\n"), &[]);
    assert_eq!(tracing("{sampleRatio: 1}").unwrap().tracing.sampler, Sampler::new(1.0));
    for bad in ["1.5", "-0.1", "NaN", "all"] {
        let said = tracing(&format!("{{sampleRatio: {bad}}}")).unwrap_err();
        assert!(said.contains("spec.tracing.sampleRatio: cannot be"), "{said}");
    }
    let with = tracing("{sampleRatio: 1, otlp: \"http://127.0.0.1:4318/v1/traces\"}");
    match cfg!(feature = "otlp") {
        true => assert!(with.unwrap().tracing.otlp.is_some()),
        false => assert!(with.unwrap_err().contains("built with the feature \"otlp\"")),
    }
}

#[test]
fn pins_are_kept_only_where_asked_for() {
    let pin = |written: &str| config(&format!("{MINIMAL}  pin: {written}\n"), &[]);
    assert_eq!(pin("{}").unwrap().pin, Some("/sys/fs/bpf/detector".into()));
    assert_eq!(pin("{path: /sys/fs/bpf/n6}").unwrap().pin, Some("/sys/fs/bpf/n6".into()));
    let said = pin("{path: pins}").unwrap_err();
    assert!(said.contains("spec.pin.path: \"pins\" is no absolute path"), "{said}");
}

#[test]
fn every_field_is_read() {
    let docs = include_str!("../../../docs/rules.md");
    let example = docs
        .split("```yaml\n")
        .map(|rest| rest.split("```").next().unwrap())
        .find(|example| example.contains("kind: Config"))
        .unwrap();
    let changed = example
        .replace(
            "timeout: 10s
    retries: 5
    backoff: 50ms
    concurrency: 64
    queue: 4096
    budget: 24h",
            "timeout: 1s
    retries: 2
    backoff: 3ms
    concurrency: 4
    queue: 5
    budget: 1h",
        )
        .replace(
            "directory: /var/lib/detector/spool, maxSize: 64Mi, maxAge: 24h, fsync: always, \
             whenFull: drop-oldest",
            "directory: spool, maxSize: 2Mi, maxAge: 2h, fsync: never, whenFull: priority",
        )
        .replace(
            "directory: /var/lib/detector/dead-letters, maxSize: 16Mi",
            "directory: dead, maxSize: 1Mi",
        )
        .replace(
            "sessions: 65536, flows: 65536, ringBytes: 4Mi",
            "cpu: 500m, memory: 64Mi, sessions: 6, flows: 7, ringBytes: 8Ki",
        )
        .replace("sampleRatio: 0.01", "sampleRatio: 0.5")
        .replace("127.0.0.1:9901", "[::1]:1")
        .replace("/run/detector/detector.sock", "control.sock")
        .replace("pin: {path: /sys/fs/bpf/detector}", "pin: {path: /sys/fs/bpf/x}");
    let config = config(&changed, &[]).unwrap();
    assert_eq!(config.tracing, Tracing { sampler: Sampler::new(0.5), otlp: None });
    assert_eq!((config.site.as_str(), config.node.as_str()), ("site-7", "mec-1"));
    assert_eq!(config.devices[1].pattern.as_str(), "upf*");
    assert_eq!(config.devices[1].hook, Hook::Tc);
    assert_eq!(config.ue_pools[1].cidr.to_string(), "fd00:60::/48");
    let (ms, s) = (Duration::from_millis(3), Duration::from_secs(1));
    let spool = SpoolConfig {
        directory: "/etc/detector/spool".into(),
        limits: spool::Limits {
            max_bytes: 2 << 20,
            max_age: Duration::from_secs(7_200),
            fsync: spool::Fsync::Never,
            when_full: spool::WhenFull::Priority,
        },
    };
    let directory = "/etc/detector/dead".into();
    let delivery = Delivery {
        timeout: s,
        retries: 2,
        backoff: ms,
        concurrency: 4,
        queue: 5,
        budget: Duration::from_secs(3_600),
        spool: Some(spool),
        dead_letters: Some(DeadLettersConfig { directory, max_bytes: 1 << 20 }),
    };
    assert_eq!(config.delivery, delivery);
    assert_eq!(config.admin.listen.to_string(), "[::1]:1");
    assert_eq!(config.admin.socket, Some("/etc/detector/control.sock".into()));
    assert_eq!(
        config.limits,
        Limits {
            cpu: Some(0.5),
            memory: Some(64 << 20),
            sessions: 6,
            flows: 7,
            ring_bytes: 8 << 10
        }
    );
    assert_eq!(config.pin, Some("/sys/fs/bpf/x".into()));
}

#[test]
fn sample_is_a_config() {
    let config = config(SAMPLE, &[]).unwrap();
    assert_eq!(config.devices[0].pattern.as_str(), "n6");
    let url = Url::parse("http://127.0.0.1:8081/edge/default").unwrap();
    assert_eq!(config.sinks[0].sink, Sink::Http(Box::new(HttpConfig::of(url))));
}

#[test]
fn sinks_are_url_stdout_or_file() {
    let sink = |sink: &str| {
        config(&format!("{MINIMAL}  sink: {sink}\n"), &[]).unwrap().sinks.remove(0).sink
    };
    assert_eq!(sink("{stdout: {}}"), Sink::Stdout);
    let path = "/etc/detector/events.jsonl".into();
    let file = Sink::File { path, max_bytes: None, keep: 3 };
    assert_eq!(sink("{file: {path: events.jsonl}}"), file);
}

#[test]
fn batches_are_made_only_where_they_are_asked_for() {
    let sink = |written: &str| {
        config(&format!("{MINIMAL}  sink: {{url: 'http://b/', {written}}}\n"), &[])
            .map(|config| config.sinks[0].sink.clone())
    };
    let Ok(Sink::Http(http)) = sink("mode: batched, batch: {maxEvents: 9, linger: 5ms}") else {
        panic!("a sink")
    };
    let batch = Batch { max_events: 9, linger: Duration::from_millis(5) };
    assert_eq!((http.mode, http.batch), (ContentMode::Batched, batch));
    let said = sink("batch: {maxEvents: 9}").unwrap_err();
    assert!(said.contains("spec.sink.batch: needs mode: batched"), "{said}");
    let said = sink("mode: batched, batch: {maxEvents: 0}").unwrap_err();
    assert!(said.contains("0 is out of range; expected 1 to 1024"), "{said}");
}

#[test]
fn environment_names_the_node_in_order() {
    let node = |variables: &[(&str, &str)]| {
        config(&format!("{MINIMAL}  node: written\n"), variables).map(|config| config.node)
    };
    assert_eq!(node(&[]).unwrap(), "written");
    assert_eq!(node(&[("NODE_NAME", "k8s")]).unwrap(), "k8s");
    assert_eq!(node(&[("NODE_NAME", "k8s"), ("DETECTOR_NODE", "own")]).unwrap(), "own");
    assert_eq!(node(&[("DETECTOR_NODE", "")]).unwrap(), "written");
    assert_eq!(
        node(&[("NODE_NAME", "a/b")]).unwrap_err(),
        "environment: NODE_NAME: \"a/b\" is no usable node name; expected a host name of letters, \
         digits, dots, dashes and underscores"
    );
}

#[test]
fn without_any_name_for_the_node_the_remedy_is_said() {
    let nameless = Environment::default();
    let said = Config::parse(Path::new("c.yaml"), MINIMAL.as_bytes(), &nameless).unwrap_err();
    assert_eq!(
        said.to_string(),
        "environment: hostname: this host has no usable name; set spec.node in the config, or \
         DETECTOR_NODE"
    );
}

#[test]
fn k_sink_is_used_only_without_a_sink() {
    let k_sink = [("K_SINK", "http://broker.example/ns/name")];
    let url = Url::parse("http://broker.example/ns/name").unwrap();
    let [sink] = &config(MINIMAL, &k_sink).unwrap().sinks[..] else { panic!("one sink") };
    let Sink::Http(http) = &sink.sink else { panic!("{sink:?}") };
    assert_eq!(http.url, url);
    let token = http.token.as_ref().unwrap();
    assert!(token.file == Path::new("/oidc/token") && token.optional);
    let configured = config(&format!("{MINIMAL}  sink: {{stdout: {{}}}}\n"), &k_sink);
    assert_eq!(configured.unwrap().sinks[0].sink, Sink::Stdout);
    assert_eq!(config(MINIMAL, &[("K_SINK", "")]).unwrap().sinks, vec![]);
    assert_eq!(
        config(MINIMAL, &[("K_SINK", "broker")]).unwrap_err(),
        "environment: K_SINK: \"broker\" is no URL (relative URL without a base); expected an http \
         or https URL, e.g. http://127.0.0.1:8081/edge/default"
    );
}

#[test]
fn k_ce_overrides_are_extension_attributes() {
    let overrides =
        |text: &str| config(MINIMAL, &[("K_CE_OVERRIDES", text)]).map(|config| config.ce_overrides);
    let text = r#"{"extensions": {"region": "north", "a1": ""}}"#;
    assert_eq!(overrides(text).unwrap(), Overrides::parse(text).unwrap());
    assert_ne!(overrides(text).unwrap(), Overrides::default());
    assert_eq!(overrides("").unwrap(), Overrides::default());
    let refused = overrides("{").unwrap_err();
    assert!(refused.starts_with("environment: K_CE_OVERRIDES: cannot be read (EOF"), "{refused}");
    assert_eq!(
        overrides(r#"{"extensions": {"id": "1"}}"#).unwrap_err(),
        "environment: K_CE_OVERRIDES: \"id\" is an attribute of CloudEvents itself, choose another \
         name"
    );
}

/// The repository's `manifests/`.
fn manifests() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../manifests")
}

/// A config's rules file lies beside it or, for an overlay, in the base: kustomize puts both into
/// one ConfigMap.
fn shipped_rules(config: &Config) -> Vec<PathBuf> {
    let of_base = |rules: &PathBuf| manifests().join("base").join(rules.file_name().unwrap());
    let find = |rules: &PathBuf| if rules.exists() { rules.clone() } else { of_base(rules) };
    config.rules.iter().map(find).collect()
}

#[test]
fn every_shipped_config_loads_with_its_rules() {
    let mut loaded = 0;
    for path in glob::glob(manifests().join("**/config.yaml").to_str().unwrap()).unwrap() {
        let path = path.unwrap();
        let config = Config::load(&path, &environment(&[])).unwrap_or_else(|e| panic!("{e}"));
        let checked = rules::file::load(&shipped_rules(&config), &[]);
        let set = checked.unwrap_or_else(|e| panic!("{e}")).set;
        let pools: Vec<IpNet> = config.ue_pools.iter().map(|pool| pool.cidr).collect();
        rules::compile::compile(&set, &pools, 1)
            .unwrap_or_else(|e| panic!("{}: {e}", path.display()));
        loaded += 1;
    }
    assert!(loaded >= 3, "base, site-a, samples; found {loaded}");
}

#[test]
fn in_a_cluster_the_sink_is_k_sink_and_the_probes_ask_the_admin_port() {
    let daemonset = std::fs::read_to_string(manifests().join("base/daemonset.yaml")).unwrap();
    let probes = daemonset.matches("httpGet").count();
    for file in ["base/config.yaml", "overlays/site-a/config.yaml"] {
        let config = Config::load(&manifests().join(file), &environment(&[])).unwrap();
        assert_eq!(config.sinks, vec![], "{file}");
        let listen = config.admin.listen;
        let asked = format!("httpGet: {{host: {}, path:", listen.ip());
        assert_eq!(daemonset.matches(&asked).count(), probes, "{file}");
        let port = format!("port: {}}}", listen.port());
        assert_eq!(daemonset.matches(&port).count(), probes, "{file}");
    }
}

#[test]
fn a_config_that_is_not_there_is_named() {
    let said = Config::load(Path::new("/nonexistent/c.yaml"), &environment(&[])).unwrap_err();
    let expected = "/nonexistent/c.yaml: cannot be read: No such file or directory (os error 2)";
    assert_eq!(said.to_string(), expected);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(128))]

    #[test]
    fn arbitrary_bytes_never_panic(
        bytes in prop::collection::vec(any::<u8>(), 0..200),
        overrides in ".{0,60}",
    ) {
        let variables = environment(&[("K_CE_OVERRIDES", &overrides), ("K_SINK", &overrides)]);
        let _ = Config::parse(Path::new("c.yaml"), &bytes, &variables);
        let _ = Config::parse(Path::new("c.yaml"), MINIMAL.as_bytes(), &variables);
    }

    #[test]
    fn a_damaged_sample_never_panics(cut in 0..SAMPLE.len(), put in "[a-z0-9:{}\\[\\]\"/. \n-]{0,20}") {
        let mut bytes = SAMPLE.as_bytes().to_vec();
        bytes.splice(cut..(cut + put.len()).min(SAMPLE.len()), put.bytes());
        let _ = Config::parse(Path::new("c.yaml"), &bytes, &environment(&[]));
    }
}

#[test]
fn several_sinks_have_names_rules_and_settings_of_their_own() {
    let text = "  sinks:
    - {name: broker, url: 'https://b/ns/default', rules: ['buy-*'], mode: structured, \
         tls: {ca: ca.pem, cert: c.pem, key: k.pem}, oidc: {tokenFile: /t, audience: a}}
    - {name: log, file: {path: e.jsonl, maxSize: 1Mi, keep: 2}}
";
    let sinks = config(&format!("{MINIMAL}{text}"), &[("K_CA_CERTS", "PEM")]).unwrap().sinks;
    let [broker, log] = &sinks[..] else { panic!("{sinks:?}") };
    assert_eq!((broker.name.as_str(), broker.rules[0].as_str()), ("broker", "buy-*"));
    let directory = Path::new("/etc/detector");
    let expected = HttpConfig {
        mode: ContentMode::Structured,
        ca: Some(directory.join("ca.pem")),
        more_ca: Some("PEM".into()),
        identity: Some((directory.join("c.pem"), directory.join("k.pem"))),
        token: Some(TokenConfig { file: "/t".into(), optional: false, audience: Some("a".into()) }),
        ..HttpConfig::of(Url::parse("https://b/ns/default").unwrap())
    };
    assert_eq!(broker.sink, Sink::Http(Box::new(expected)));
    let path = directory.join("e.jsonl");
    assert_eq!(log.sink, Sink::File { path, max_bytes: Some(1 << 20), keep: 2 });
}

#[test]
fn a_stream_has_servers_a_login_and_tls_and_needs_its_feature() {
    let sink = |written: &str| {
        config(&format!("{MINIMAL}  sink: {{{written}}}\n"), &[])
            .map(|mut config| config.sinks.remove(0))
    };
    let nats = sink("url: 'nats://a:1,b/x.y', tls: {ca: ca.pem}, login: {credentials: a.creds}");
    let user = "login: {user: me, passwordFile: password}";
    let kafka = sink(&format!("url: 'kafka://k/t', {user}"));
    let directory = Path::new("/etc/detector");
    let expected = [
        StreamConfig {
            tls: true,
            ca: Some(directory.join("ca.pem")),
            login: Some(Login::Credentials(directory.join("a.creds"))),
            ..StreamConfig::of("nats://a:1,b:4222/x.y".parse().unwrap())
        },
        StreamConfig {
            login: Some(Login::User {
                user: "me".into(),
                password_file: directory.join("password"),
                mechanism: SaslMechanism::ScramSha512,
            }),
            ..StreamConfig::of("kafka://k:9092/t".parse().unwrap())
        },
    ];
    for (sink, expected) in [nats, kafka].into_iter().zip(expected) {
        let protocol = expected.address.protocol;
        if protocol.is_built_in() {
            let sink = sink.unwrap();
            assert_eq!(sink.name, protocol.name());
            assert_eq!(sink.sink, Sink::Stream(Box::new(expected)));
        } else {
            let said = sink.unwrap_err();
            let needs = format!("built with the feature \"{}\"", protocol.name());
            assert!(
                said.contains("spec.sink.url: needs a detector that was") && said.contains(&needs)
            );
        }
    }
}

#[test]
fn what_does_not_fit_a_stream_is_refused() {
    let said =
        |written: &str| config(&format!("{MINIMAL}  sink: {{{written}}}\n"), &[]).unwrap_err();
    let (nats, kafka) = ("url: 'nats://a/x'", "url: 'kafka://k/t'");
    let user = "user: me, passwordFile: p";
    for (written, expected) in [
        ("url: 'nats://a'".to_owned(), "spec.sink.url: \"nats://a\" has no usable subject"),
        (format!("{nats}, mode: binary"), "has \"mode\", which needs an http or https url"),
        ("url: 'http://b/', login: {user: me}".to_owned(), "which needs a nats or kafka url"),
        (format!("{nats}, login: {{user: me}}"), "spec.sink.login: expected user and passwordFile"),
        (format!("{nats}, login: {{{user}, credentials: c}}"), "expected one of them"),
        (format!("{nats}, login: {{{user}, tokenFile: t}}"), "expected one of them"),
        (format!("{nats}, login: {{credentials: c, tokenFile: t}}"), "expected one of them"),
        (format!("{nats}, login: {{}}"), "spec.sink.login: is empty; expected user and"),
        (format!("{kafka}, login: {{tokenFile: t}}"), "which needs a nats url"),
        (format!("{nats}, login: {{{user}, mechanism: PLAIN}}"), "which needs a kafka url"),
        (format!("{kafka}, login: {{credentials: c}}"), "which need a nats url"),
        (format!("{kafka}, login: {{{user}, mechanism: PLAIN}}"), "expected tls beside it"),
        (format!("{kafka}, tls: {{cert: c}}"), "has one of cert and key; expected both"),
    ] {
        let said = said(&written);
        assert!(said.contains(expected), "{written}: {said}");
    }
}

#[test]
fn a_spool_without_settings_is_small_lasts_a_day_and_syncs_each_append() {
    let text = format!("{MINIMAL}  delivery: {{spool: {{directory: spool}}}}\n");
    let limits = config(&text, &[]).unwrap().delivery.spool.unwrap().limits;
    let expected = crate::spool::Limits {
        max_bytes: 64 << 20,
        max_age: Duration::from_secs(24 * 3_600),
        fsync: crate::spool::Fsync::Always,
        when_full: crate::spool::WhenFull::DropOldest,
    };
    assert_eq!(limits, expected);
}

#[test]
fn dead_letters_are_beside_the_spool_unless_told_otherwise() {
    let delivery =
        |text: &str| config(&format!("{MINIMAL}  delivery: {{{text}}}\n"), &[]).unwrap().delivery;
    assert_eq!(delivery("").dead_letters, None);
    let letters = delivery("spool: {}").dead_letters.unwrap();
    let file = Path::new("/var/lib/detector/spool/dead-letters/http.jsonl");
    assert_eq!(letters.file("http"), file);
}
