//! What records that user space is to read itself show: messages put together from a flow's
//! packets, how flows end, and packets as such. What rules make of it, [`crate::deep`] decides.

use std::{cmp::Reverse, collections::BinaryHeap, num::NonZeroUsize, sync::Arc, time::Duration};

use detector_common::{
    event::PayloadKind,
    packet::{Direction, Protocol},
    state::{FlowKey, FlowSnapshot},
    wire::tcp_flag::{ACK, FIN, RST, SYN},
};
use lru::LruCache;

use super::flow_ends::Changed;
use crate::{
    decode::Record,
    detection::{Evidence, FlowTotals, Moment},
    flow::{Endpoint, Flows, Found, Limits, Segment, Stamp, Transport, Wanted},
    source::session_map::Sessions,
};

/// Flows of which something is remembered here, as many as in the packet path's own table.
const MAX_FLOWS: NonZeroUsize = NonZeroUsize::new(65_536).unwrap();
/// Deadlines that no longer count are swept when there are so many, and more than those that do.
const STALE_DEADLINES: usize = 1_024;

/// Something seen, and which way the packet went that completed it.
#[derive(Clone, Debug)]
pub(super) struct Sighting {
    /// What was seen.
    pub(super) evidence: Evidence,
    /// Which way.
    pub(super) direction: Direction,
    /// Several messages may be completed by one packet: their order.
    pub(super) number: u32,
}

/// A flow that fell silent.
#[derive(Clone, Debug)]
pub(super) struct Silence<C> {
    /// What was kept of the record that began it.
    pub(super) context: C,
    /// When its last packet passed, on the packet path's clock.
    pub(super) last_ns: u64,
    /// What it amounted to.
    pub(super) evidence: Evidence,
}

/// What rules of an application want to hear of its flows.
#[derive(Clone, Debug, Default)]
pub(super) struct Asked {
    /// Times of silence, ascending.
    pub(super) silences: Arc<[Duration]>,
    /// Whether any of how they end.
    pub(super) ends: bool,
    /// Protocols that are looked for on any port.
    pub(super) wanted: Wanted,
}

/// What is remembered of one flow.
#[derive(Clone)]
pub(super) struct Watched<C> {
    pub(super) context: C,
    /// FINs seen, by direction.
    pub(super) finished: [bool; 2],
    /// Times of silence that rules ask for, ascending; and how many of them were reported.
    pub(super) silences: Arc<[Duration]>,
    pub(super) reported: usize,
    /// The one entry of [`FlowWatch::deadlines`] that counts.
    pub(super) deadline: u64,
    /// Whether the next agent must know of it, and does.
    pub(super) ends: bool,
    pub(super) noted: bool,
}

/// Reads flows. `C` is what the caller wants back when a flow falls silent.
pub(super) struct FlowWatch<C> {
    flows: Flows,
    /// The longest unused gives way, so that two replays forget the same.
    pub(super) watched: LruCache<FlowKey, Watched<C>>,
    /// Only if somebody asks.
    pub(super) changed: Option<Changed<C>>,
    deadlines: BinaryHeap<Reverse<(u64, [u8; size_of::<FlowKey>()])>>,
    records: u64,
    forgotten: u64,
    found: Vec<Found>,
}

impl<C: Clone> FlowWatch<C> {
    /// Nothing seen yet.
    pub(super) fn new() -> Self {
        // The packet path shows a flow's first bytes, and later what begins like a message: here
        // nothing more is left out.
        let limits = Limits { stream: None, ..Limits::LIVE };
        Self {
            flows: Flows::new(limits),
            watched: LruCache::new(MAX_FLOWS),
            changed: None,
            deadlines: BinaryHeap::new(),
            records: 0,
            forgotten: 0,
            found: Vec::new(),
        }
    }

    /// Of messages that are not whole, from here on.
    pub(super) fn keep_at_most(&mut self, bytes: usize) {
        self.flows.keep_at_most(bytes);
    }

    /// Half of what is kept of messages that are not whole is forgotten.
    pub(super) fn give_way(&mut self) {
        self.flows.give_way();
    }

    /// From here on, remembers what changes of flows whose end rules ask for.
    pub(super) fn track_changes(&mut self) {
        self.changed.get_or_insert_default();
    }

    fn note_change(&mut self, key: &FlowKey) {
        if let Some(changed) = self.changed.as_mut() {
            changed.open.insert(*key);
        }
    }

    /// Something is told of the flow, or nothing more can be: how it was before.
    fn note_told(&mut self, key: &FlowKey, before: Watched<C>) {
        if let Some(changed) = self.changed.as_mut().filter(|_| before.ends) {
            changed.told.push((*key, before));
        }
    }

    /// Flows that were forgotten for want of room.
    pub(super) fn forgotten(&self) -> u64 {
        self.forgotten + self.flows.counts().evicted
    }

    /// Everything that a record shows.
    pub(super) fn record(
        &mut self,
        record: &Record<'_>,
        asked: &Asked,
        context: impl FnOnce() -> C,
        memory: &dyn Sessions,
    ) -> Vec<Sighting> {
        self.records += 1;
        let payload: Arc<[u8]> = record.payload.into();
        let tcp_flags = (record.flow.protocol == Protocol::Tcp).then_some(record.tcp_flags);
        let seen =
            |moment| Evidence { payload: payload.clone(), tcp_flags, ..Evidence::of(moment) };
        let mut all = vec![seen(Moment::Packet)];
        match record.payload_kind {
            PayloadKind::TcpOpened => all.push(seen(Moment::Opened)),
            PayloadKind::UdpFirst => all.push(seen(Moment::UdpFirst)),
            PayloadKind::Other | PayloadKind::HttpRequest => {}
        }
        let mut sightings: Vec<Sighting> = all
            .into_iter()
            .map(|evidence| Sighting { evidence, direction: record.flow.direction, number: 0 })
            .collect();
        self.remember(record, asked, context);
        sightings.extend(self.messages(record, asked.wanted, &seen));
        sightings.extend(self.closed(record, memory, &seen));
        sightings
    }

    /// Whether the record's flow is in the middle of a message.
    pub(super) fn is_unfinished(&self, record: &Record<'_>) -> bool {
        self.flows.is_unfinished(&segment(record, self.records))
    }

    /// The messages that the packet completes.
    fn messages(
        &mut self,
        record: &Record<'_>,
        wanted: Wanted,
        seen: &impl Fn(Moment) -> Evidence,
    ) -> Vec<Sighting> {
        let mut found = std::mem::take(&mut self.found);
        let segment = Segment { wanted, ..segment(record, self.records) };
        if let Some(sequence) = record.behind_gap {
            self.flows.give_up_before(&segment, sequence, &mut found);
        }
        self.flows.packet(&segment, &mut found);
        let ue = record.flow_key.ue;
        let mut sightings = Vec::new();
        for (number, found) in (1..).zip(found.drain(..)) {
            let direction = match (found.source.address, found.source.port) {
                (address, port) if address == ue && port == record.flow.ue_port => {
                    Direction::Uplink
                }
                _ => Direction::Downlink,
            };
            let evidence = seen(Moment::Message(Arc::new(found.fact)));
            sightings.push(Sighting { evidence, direction, number });
        }
        self.found = found;
        sightings
    }

    /// The end of a TCP connection, when this packet is it.
    fn closed(
        &mut self,
        record: &Record<'_>,
        memory: &dyn Sessions,
        seen: &impl Fn(Moment) -> Evidence,
    ) -> Option<Sighting> {
        if record.flow.protocol != Protocol::Tcp || record.tcp_flags & (FIN | RST) == 0 {
            return None;
        }
        let watched = self.watched.get_mut(&record.flow_key)?;
        let mut finished = watched.finished;
        finished[record.flow.direction as usize] |= record.tcp_flags & FIN != 0;
        if record.tcp_flags & RST == 0 && finished != [true, true] {
            watched.finished = finished;
            if watched.ends {
                self.note_change(&record.flow_key);
            }
            return None;
        }
        let before = self.watched.pop(&record.flow_key)?;
        self.note_told(&record.flow_key, before);
        let evidence = seen(Moment::Closed(totals(memory.flow(&record.flow_key)?)));
        Some(Sighting { evidence, direction: record.flow.direction, number: 0 })
    }

    fn remember(
        &mut self,
        record: &Record<'_>,
        Asked { silences, ends, .. }: &Asked,
        context: impl FnOnce() -> C,
    ) {
        let key = record.flow_key;
        let opens = record.tcp_flags & (SYN | ACK) == SYN;
        if self.watched.get(&key).is_some() && !opens {
            return;
        }
        if record.tcp_flags & (FIN | RST) != 0 {
            return; // the end of a connection whose begin was not seen, or which has ended
        }
        let watched = Watched {
            context: context(),
            finished: [false; 2],
            silences: silences.clone(),
            reported: 0,
            deadline: 0,
            ends: *ends,
            noted: false,
        };
        if let Some((gone, before)) = self.watched.push(key, watched)
            && gone != key
        {
            self.note_told(&gone, before);
            self.forgotten += 1;
        }
        if *ends {
            self.note_change(&key);
        }
        if let Some(first) = silences.first() {
            self.schedule(&key, record.time_ns.saturating_add(nanos(*first)));
        }
    }

    fn forget(&mut self, key: &FlowKey) {
        if let Some(before) = self.watched.pop(key) {
            self.note_told(key, before);
        }
        self.forgotten += 1;
    }

    pub(super) fn schedule(&mut self, key: &FlowKey, deadline: u64) {
        let Some(watched) = self.watched.peek_mut(key) else { return };
        watched.deadline = deadline;
        self.deadlines.push(Reverse((deadline, zerocopy::transmute!(*key))));
        if self.deadlines.len() > 2 * self.watched.len() + STALE_DEADLINES {
            self.deadlines.retain(|Reverse((deadline, key))| {
                let key: FlowKey = zerocopy::transmute!(*key);
                self.watched.peek(&key).is_some_and(|watched| watched.deadline == *deadline)
            });
        }
    }

    /// The flows that have fallen silent by now.
    pub(super) fn silent(&mut self, now_ns: u64, memory: &dyn Sessions) -> Vec<Silence<C>> {
        let mut all = Vec::new();
        while let Some(Reverse((deadline, key))) = self.deadlines.peek().copied() {
            if deadline > now_ns {
                break;
            }
            self.deadlines.pop();
            let key: FlowKey = zerocopy::transmute!(key);
            if self.watched.peek(&key).is_some_and(|watched| watched.deadline == deadline) {
                all.extend(self.look(&key, now_ns, memory));
            }
        }
        all
    }

    fn look(&mut self, key: &FlowKey, now_ns: u64, memory: &dyn Sessions) -> Option<Silence<C>> {
        let Some(snapshot) = memory.flow(key) else {
            self.forget(key);
            return None;
        };
        let watched = self.watched.peek_mut(key)?;
        let after = *watched.silences.get(watched.reported)?;
        let due = snapshot.last_ns.saturating_add(nanos(after));
        if due > now_ns {
            self.schedule(key, due);
            return None;
        }
        let before = watched.clone();
        watched.reported += 1;
        let evidence =
            Evidence { silent_for: Some(after), ..Evidence::of(Moment::Idle(totals(snapshot))) };
        let context = watched.context.clone();
        let silence = Silence { context, last_ns: snapshot.last_ns, evidence };
        let next = watched.silences.get(watched.reported).copied();
        self.note_told(key, before);
        match next {
            Some(next) => self.schedule(key, snapshot.last_ns.saturating_add(nanos(next))),
            None => {
                self.watched.pop(key);
            }
        }
        Some(silence)
    }
}

/// The record's packet as flows are read from.
fn segment<'a>(record: &Record<'a>, number: u64) -> Segment<'a> {
    let key = &record.flow_key;
    let ue = Endpoint { address: key.ue, port: key.ue_port };
    let application = Endpoint { address: key.application_address, port: key.application_port };
    let (source, destination) = match record.flow.direction {
        Direction::Uplink => (ue, application),
        Direction::Downlink => (application, ue),
    };
    let transport = match record.flow.protocol {
        // Acknowledgement numbers do not cross to user space, so the flag must not either.
        Protocol::Tcp => Transport::Tcp {
            sequence: record.sequence,
            acknowledgement: 0,
            flags: record.tcp_flags & !ACK,
        },
        Protocol::Udp => Transport::Udp,
    };
    Segment {
        source,
        destination,
        transport,
        payload: record.payload,
        length: record.payload_length,
        stamp: Stamp { time_ns: record.time_ns, frame: number },
        quoted: false,
        wanted: Wanted::default(),
    }
}

fn totals(flow: FlowSnapshot) -> FlowTotals {
    FlowTotals {
        duration: Duration::from_nanos(flow.last_ns.saturating_sub(flow.start_ns)),
        packets: flow.packets.iter().sum(),
        bytes: flow.bytes.iter().sum(),
    }
}

pub(super) fn nanos(duration: Duration) -> u64 {
    u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX / 4)
}

#[cfg(test)]
#[path = "watch_tests.rs"]
pub(crate) mod tests;
