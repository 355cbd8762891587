//! Readers of protocols over datagrams; those that also have a stream are asked to read it in
//! pieces.

use std::sync::OnceLock;

use detector_common::packet::Layer;
use detector_user::{
    l7::{coap, dns, fact::DnsMessage, quic},
    rules::{self, compile::compile, model::RuleSet, table::TableImage, term::MessageTerm},
    source::software::SoftwareClassifier,
};

use super::{input, streams};

/// A message, and a stream of messages.
pub(crate) fn dns(bytes: &[u8]) {
    let _ = dns::looks_like(bytes);
    if dns::message(bytes).is_some_and(|message| DnsRules::get().ask_for(&message)) {
        assert!(DnsRules::get().show(bytes), "the packet path hides what a rule asks for");
    }
    streams::any_split(bytes, || {
        let mut stream = dns::Stream;
        move |bytes: &[u8]| stream.step(bytes)
    });
}

/// Datagrams of one flow.
pub(crate) fn quic(bytes: &[u8]) {
    let mut initials = quic::Initials::default();
    for datagram in input::pieces(bytes) {
        let _ = quic::looks_like(datagram);
        let facts = initials.datagram(datagram);
        assert!(facts.len() <= datagram.len(), "more hellos than bytes");
    }
}

/// Datagrams of one flow, and a stream of messages.
pub(crate) fn coap(bytes: &[u8]) {
    let mut exchanges = coap::Exchanges::default();
    for datagram in input::pieces(bytes) {
        let _ = coap::looks_like(datagram);
        let _ = exchanges.datagram(datagram);
    }
    streams::any_split(bytes, || {
        let mut exchanges = coap::Exchanges::default();
        move |bytes: &[u8]| exchanges.step(bytes)
    });
}

/// Rules on names, of a resolver at 10.0.0.53.
struct DnsRules {
    set: RuleSet,
    image: TableImage,
}

impl DnsRules {
    fn get() -> &'static Self {
        const RULES: &str = "apiVersion: detector.dev/v1alpha1
kind: Application
metadata: {name: resolver}
spec: {endpoints: [{cidr: 10.0.0.53, protocol: udp}]}
---
apiVersion: detector.dev/v1alpha1
kind: Rule
metadata: {name: names}
spec:
  application: resolver
  match: {dns: {name: [a, b.example, '*.example', '*.b', 'a\\b']}}
  emit: {type: t}
";
        static ALL: OnceLock<DnsRules> = OnceLock::new();
        ALL.get_or_init(|| {
            let set = rules::file::parse(&[("rules.yaml", RULES.as_bytes())]).expect("good rules");
            let image = compile(&set, &[], 1).expect("compiles");
            Self { set, image }
        })
    }

    fn ask_for(&self, message: &DnsMessage) -> bool {
        self.set.rules.iter().any(|rule| match &rule.terms.message {
            // Whichever way it goes.
            Some(MessageTerm::Dns(term)) => message.questions.iter().any(|asked| term.asks(asked)),
            _ => false,
        })
    }

    /// Whether the packet path shows the message; one that it does not take for a standard query is
    /// none of its.
    fn show(&self, message: &[u8]) -> bool {
        let is_standard = message.get(2).is_some_and(|flags| matches!(flags >> 3 & 15, 0 | 4 | 5));
        let few = message.get(4..6).is_some_and(|count| count[0] == 0 && count[1] <= 16);
        let Ok(length) = u16::try_from(28 + message.len()) else { return true };
        if !is_standard || !few {
            return true;
        }
        let [high, low] = length.to_be_bytes();
        let ip = [0x45, 0, high, low, 0, 0, 0, 0, 64, 17, 0, 0, 10, 9, 9, 9, 10, 0, 0, 53];
        let [high, low] = (length - 20).to_be_bytes();
        let packet = [&ip[..], &[0x80, 0, 0, 53, high, low, 0, 0], message].concat();
        let mut software = SoftwareClassifier::new(self.image.clone());
        // The first packet's record tells of the session, the second's only of itself.
        software.inspect(&packet, Layer::Ip, 1, 1);
        software.inspect(&packet, Layer::Ip, 1, 2).is_some()
    }
}
