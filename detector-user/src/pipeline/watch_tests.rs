//! Memory of flows is bounded, and what gives way is the same every time.

use std::net::Ipv4Addr;

use detector_common::{
    packet::Address,
    state::{SessionKey, SessionSnapshot},
};
use zerocopy::FromZeros;

use super::*;
use crate::detection::Flow;

/// A packet path that knows this of every flow, and no sessions.
pub(crate) struct OnlyFlows(pub(crate) Option<FlowSnapshot>);

impl Sessions for OnlyFlows {
    fn get(&self, _key: &SessionKey) -> Option<SessionSnapshot> {
        None
    }
    fn remove(&mut self, _key: &SessionKey) {}
    fn has_late_records(&self) -> bool {
        false
    }
    fn keys(&mut self) -> Vec<SessionKey> {
        Vec::new()
    }
    fn room(&self) -> usize {
        0
    }
    fn flow(&self, _key: &FlowKey) -> Option<FlowSnapshot> {
        self.0
    }
}

/// The SYN of a user's connection.
pub(crate) fn opened(user: u32, time_ns: u64) -> Record<'static> {
    let ue = Ipv4Addr::from(0x0a00_0000 + user);
    let app = Ipv4Addr::new(10, 46, 0, 1);
    let ue_address = Address::v4(ue.octets());
    Record {
        ifindex: 3,
        time_ns,
        session_start_ns: Some(time_ns),
        session: SessionKey { ue: ue_address, application: 1, reserved: 0 },
        session_started: false,
        session_quiet: false,
        inspect: true,
        behind_gap: None,
        tcp_flags: SYN,
        flow_key: FlowKey { ue: ue_address, ue_port: 40_000, ..FlowKey::new_zeroed() },
        flow: Flow {
            ue_ip: ue.into(),
            ue_port: 40_000,
            app_ip: app.into(),
            app_port: 80,
            protocol: Protocol::Tcp,
            direction: Direction::Uplink,
        },
        tunnel: None,
        vlan: None,
        payload_kind: PayloadKind::TcpOpened,
        generation: 1,
        rules: Vec::new(),
        sequence: 0,
        packet_length: 60,
        payload_length: 0,
        payload: &[],
    }
}

/// A watch that has seen these, asked for silences of an hour.
fn watch(records: impl IntoIterator<Item = Record<'static>>) -> FlowWatch<()> {
    let hour =
        Asked { silences: [Duration::from_secs(3600)].into(), ends: true, ..Asked::default() };
    let mut watch = FlowWatch::new();
    for record in records {
        watch.remember(&record, &hour, || ());
    }
    watch
}

#[test]
fn of_too_many_flows_the_longest_unused_is_forgotten_and_counted() {
    let most = MAX_FLOWS.get() as u32;
    let first_once_more = [opened(0, 5)];
    let records = (0..most).map(|user| opened(user, 1)).chain(first_once_more);
    let watch = watch(records.chain((most..most + 10).map(|user| opened(user, 6))));
    assert_eq!((watch.watched.len(), watch.forgotten), (MAX_FLOWS.get(), 10));
    let knows = |user| watch.watched.contains(&opened(user, 0).flow_key);
    assert!(knows(0) && knows(11) && !(1..=10).any(knows));
}

#[test]
fn deadlines_that_no_longer_count_do_not_pile_up() {
    let mut watch = watch((0..10_000).map(|time_ns| opened(1, time_ns)));
    assert!(watch.deadlines.len() <= STALE_DEADLINES + 2, "{}", watch.deadlines.len());
    watch.silent(u64::MAX, &OnlyFlows(None));
    assert_eq!(watch.forgotten, 1, "the one that counts was still there");
}
