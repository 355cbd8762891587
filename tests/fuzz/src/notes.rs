//! What an agent before has noted in pinned maps, whatever stands there.

use std::{
    net::{IpAddr, Ipv6Addr},
    sync::{Arc, OnceLock},
    time::{Duration, Instant, SystemTime, UNIX_EPOCH},
};

use detector_common::{packet::Layer, state::FlowKey};
use detector_user::{
    cloudevent::{self, Identity, Overrides, Sampler},
    detection::Detection,
    pipeline::{LoadedRules, Outside, Pipeline, RuleHistory},
    rules::{
        self,
        compile::{compile, stable_id},
        model::RuleSet,
        table::TableImage,
    },
    session::ReadUpTo,
    source::{
        deep_notes::{DeepChanges, LatelyFired, RateNote, RuleAndUser},
        flow_notes::FlowNote,
        session_notes::{NoteKey, SessionNote},
        software::SoftwareClassifier,
    },
};
use zerocopy::FromBytes;

use super::input;

/// Rules of which something is remembered.
const RULES: &str = include_str!("../remembered.yaml");

/// What notes say of packets that never passed.
struct Anywhere;

impl Outside for Anywhere {
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime {
        UNIX_EPOCH + Duration::from_nanos(monotonic_ns)
    }

    fn device(&mut self, _: u32, _: u64) -> Arc<str> {
        "n6".into()
    }
}

/// Notes, and packets that pass afterwards.
#[derive(Default)]
struct Input<'a> {
    sessions: Vec<(NoteKey, SessionNote)>,
    flows: Vec<(FlowKey, FlowNote)>,
    judgement: DeepChanges,
    packets: Vec<&'a [u8]>,
}

impl<'a> Input<'a> {
    /// Each piece is a note or a packet, as its first byte says; the second is the rule or application.
    fn read(bytes: &'a [u8], set: &RuleSet) -> Self {
        let mut input = Self::default();
        for mut piece in input::pieces(bytes) {
            let kind = input::byte(&mut piece);
            let which = usize::from(input::byte(&mut piece));
            let rule = stable_id(&set.rules[which % set.rules.len()].name);
            let application = stable_id(&set.rules[0].application.name);
            let _ = input.one(kind, rule, application, piece);
        }
        input
    }

    fn one(&mut self, kind: u8, rule: u32, application: u32, piece: &'a [u8]) -> Option<()> {
        match kind % 6 {
            0 => {
                let (mut key, rest) = NoteKey::read_from_prefix(piece).ok()?;
                // One of an application that is gone is told by the second byte's high bit.
                key.session.application = application ^ u32::from(kind >> 7);
                self.sessions.push((key, SessionNote::read_from_prefix(rest).ok()?.0));
            }
            1 => {
                let (key, rest) = FlowKey::read_from_prefix(piece).ok()?;
                let (note, _) = FlowNote::read_from_prefix(rest).ok()?;
                self.flows.push((key, FlowNote { application, ..note }));
            }
            2 => {
                let (user, rest) = user(piece)?;
                let fired = LatelyFired::read_from_prefix(rest).ok()?.0;
                self.judgement.windows.push(((rule, user), Some(fired)));
            }
            3 => {
                let (user, rest) = user(piece)?;
                let note = RateNote::read_from_prefix(rest).ok()?.0;
                self.judgement.rates.push(((rule, user), Some(note)));
            }
            4 => {
                let (user, rest) = user(piece)?;
                let (mark, rest) = u64::read_from_prefix(rest).ok()?;
                let slot = u64::read_from_prefix(rest).ok()?.0;
                self.judgement.flows.push((((rule, user) as RuleAndUser, mark), Some(slot)));
            }
            _ => self.packets.push(piece),
        }
        Some(())
    }
}

fn user(bytes: &[u8]) -> Option<(IpAddr, &[u8])> {
    let (bytes, rest) = bytes.split_first_chunk::<16>()?;
    Some((Ipv6Addr::from(*bytes).to_canonical(), rest))
}

/// An agent takes any notes over and goes on: packets, silence and the end are what they always are,
/// and each thing that it tells can be written as an event.
pub(crate) fn notes(bytes: &[u8]) {
    static RULES_AND_TABLES: OnceLock<(RuleSet, TableImage)> = OnceLock::new();
    let (set, image) = RULES_AND_TABLES.get_or_init(|| {
        let set = rules::file::parse(&[("rules.yaml", RULES.as_bytes())]).expect("good rules");
        let image = compile(&set, &["10.60.0.0/16".parse().expect("a pool")], 1).expect("compiles");
        (set, image)
    });
    let input = Input::read(bytes, set);
    let history = RuleHistory::default();
    history.push(LoadedRules::new(1, set.clone()));
    let mut kernel = SoftwareClassifier::new(image.clone());
    let mut pipeline = Pipeline::new(history, uuid::Uuid::nil(), Anywhere);
    let now = Instant::now();
    pipeline.track_changes();
    let adopted = pipeline.adopt(&input.sessions);
    assert!(adopted.ended.len() + adopted.unknown.len() <= input.sessions.len());
    assert!(pipeline.adopt_flows(&input.flows).len() <= input.flows.len());
    pipeline.adopt_judgement(input.judgement);
    let mut found = Vec::new();
    let mut time = 1_000_000_000;
    for (position, packet) in input.packets.iter().enumerate() {
        time += 1_000_000_000;
        pipeline.reading(position as u64);
        found.extend(pipeline.tick(time, &mut kernel, now));
        if let Some(record) = kernel.inspect(packet, Layer::Ip, 1, time) {
            found.extend(pipeline.record(&record, &kernel, now));
        }
    }
    pipeline.taken_out(time);
    found.extend(pipeline.left(ReadUpTo { position: u64::MAX, time_ns: u64::MAX }, now));
    found.extend(pipeline.tick(time + 3_600_000_000_000, &mut kernel, now));
    let _ = pipeline.changed_sessions(time);
    let _ = pipeline.changed_judgement(time);
    let _ = pipeline.changed_flows();
    found.extend(pipeline.stop(&mut kernel, now));
    assert_eq!(pipeline.counts().sessions_open, 0);
    found.iter().for_each(writable);
}

fn writable(detection: &Detection) {
    let identity = Identity { site: "edge".into(), node: "n".into() };
    let event = cloudevent::build(detection, &identity, &Overrides::default(), Sampler::default());
    let json = serde_json::to_vec(&event).expect("an event");
    let again: cloudevents::Event = serde_json::from_slice(&json).expect("its own JSON");
    assert_eq!(event, again);
}
