//! Flows whose end rules ask for, from agent to agent.

use std::{collections::HashSet, sync::Arc, time::Duration};

use detector_common::state::{FlowKey, SessionKey};

use super::{
    seen_at::SeenAt,
    watch::{FlowWatch, Watched, nanos},
};
use crate::{
    decode,
    detection::Tunnel,
    source::flow_notes::{FlowChanges, FlowNote, Told},
};

/// What changed since it was asked for.
pub(super) struct Changed<C> {
    pub(super) open: HashSet<FlowKey>,
    /// As they were before something was told of them.
    pub(super) told: Vec<(FlowKey, Watched<C>)>,
}

impl<C> Default for Changed<C> {
    fn default() -> Self {
        Self { open: HashSet::new(), told: Vec::new() }
    }
}

impl FlowWatch<SeenAt> {
    /// What changed since the last time.
    pub(super) fn take_changed(&mut self) -> FlowChanges {
        let mut changes = FlowChanges::default();
        let Some(changed) = self.changed.as_mut().map(std::mem::take) else { return changes };
        let mut told_of = HashSet::new();
        for (key, before) in changed.told {
            let time_ns = before.context.time_ns;
            if !before.noted {
                changes.open.push((key, note(&before)));
            }
            let after = self.watched.peek(&key).map(note).filter(|after| after.time_ns == time_ns);
            told_of.insert((key, time_ns));
            changes.told.push(Told { key, time_ns, after });
        }
        for key in changed.open {
            let Some(watched) = self.watched.peek_mut(&key) else { continue };
            watched.noted = true;
            if !told_of.contains(&(key, watched.context.time_ns)) {
                changes.open.push((key, note(watched)));
            }
        }
        changes
    }

    /// Takes over a flow that another agent noted, of an application whose rules ask for these times of
    /// silence. `false` if the note is none.
    pub(super) fn adopt(
        &mut self,
        key: &FlowKey,
        note: &FlowNote,
        silences: Arc<[Duration]>,
    ) -> bool {
        let Some(context) = context(key, note) else { return false };
        let reported = note.reported as usize;
        let next = silences.get(reported).copied();
        let finished = [0, 1].map(|direction| note.finished & (1 << direction) != 0);
        let watched =
            Watched { context, finished, silences, reported, deadline: 0, ends: true, noted: true };
        self.watched.push(*key, watched);
        if let Some(after) = next {
            self.schedule(key, note.time_ns.saturating_add(nanos(after)));
        }
        true
    }
}

fn note(watched: &Watched<SeenAt>) -> FlowNote {
    let at = &watched.context;
    let tunnel = at.tunnel.unwrap_or(Tunnel { teid: 0, message_type: 0, qfi: None });
    FlowNote {
        time_ns: at.time_ns,
        session_start_ns: at.session_start_ns.unwrap_or(0),
        application: at.session.application,
        ifindex: at.ifindex,
        sequence: at.sequence,
        bytes: at.bytes,
        teid: tunnel.teid,
        vlan: at.vlan.unwrap_or(0),
        message_type: tunnel.message_type,
        direction: at.flow.direction as u8,
        has_tunnel: u8::from(at.tunnel.is_some()),
        has_qfi: u8::from(tunnel.qfi.is_some()),
        qfi: tunnel.qfi.unwrap_or(0),
        finished: u8::from(watched.finished[0]) | u8::from(watched.finished[1]) << 1,
        reported: u32::try_from(watched.reported).unwrap_or(u32::MAX),
    }
}

fn context(key: &FlowKey, note: &FlowNote) -> Option<SeenAt> {
    let qfi = (note.has_qfi == 1).then_some(note.qfi);
    let tunnel = Tunnel { teid: note.teid, message_type: note.message_type, qfi };
    Some(SeenAt {
        session: SessionKey { ue: key.ue, application: note.application, reserved: 0 },
        session_start_ns: (note.session_start_ns != 0).then_some(note.session_start_ns),
        flow: decode::flow(key, note.direction).ok()?,
        ifindex: note.ifindex,
        time_ns: note.time_ns,
        tunnel: (note.has_tunnel == 1).then_some(tunnel),
        vlan: (note.vlan != 0).then_some(note.vlan),
        sequence: note.sequence,
        number: 0,
        bytes: note.bytes,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use detector_common::{
        event::PayloadKind,
        packet::Direction,
        state::FlowSnapshot,
        wire::tcp_flag::{ACK, FIN},
    };
    use zerocopy::FromZeros as _;

    use super::*;
    use crate::{
        decode::Record,
        detection::Moment,
        pipeline::watch::{
            Asked, Sighting,
            tests::{OnlyFlows, opened},
        },
    };

    fn syn() -> Record<'static> {
        let mut record = opened(1, 10);
        record.flow_key.protocol = 6;
        record
    }

    fn fin(direction: Direction) -> Record<'static> {
        let mut record = Record { tcp_flags: FIN | ACK, payload_kind: PayloadKind::Other, ..syn() };
        record.flow.direction = direction;
        record
    }

    fn read(watch: &mut FlowWatch<SeenAt>, record: &Record<'_>) -> bool {
        let asked = Asked { ends: true, ..Asked::default() };
        let closed = |it: &Sighting| matches!(it.evidence.moment, Moment::Closed(_));
        let known = OnlyFlows(Some(FlowSnapshot::new_zeroed()));
        watch.record(record, &asked, || SeenAt::of(record), &known).iter().any(closed)
    }

    fn agent(notes: &HashMap<FlowKey, FlowNote>) -> FlowWatch<SeenAt> {
        let mut watch = FlowWatch::new();
        watch.track_changes();
        for (key, note) in notes {
            assert!(watch.adopt(key, note, Arc::default()));
        }
        watch
    }

    #[test]
    fn an_end_of_which_each_agent_saw_a_half_is_told_and_told_again_until_it_is_settled() {
        let mut notes = HashMap::new();
        let mut first = agent(&notes);
        assert!(!read(&mut first, &syn()) && !read(&mut first, &fin(Direction::Uplink)));
        let changes = first.take_changed();
        assert!(changes.told.is_empty());
        notes.extend(changes.open);

        // Killed before what it told was settled: its note of the flow stays.
        let mut second = agent(&notes);
        assert!(read(&mut second, &fin(Direction::Downlink)));
        let changes = second.take_changed();
        assert_eq!((changes.open.len(), changes.told.len()), (0, 1));
        assert_eq!(changes.told[0].after, None);
        assert!(read(&mut agent(&notes), &fin(Direction::Downlink)), "told again");
        assert!(!read(&mut agent(&HashMap::new()), &fin(Direction::Downlink)), "of a flow unknown");
    }

    #[test]
    fn a_flow_that_begins_and_ends_between_two_notes_is_noted_as_it_was_before_it_ended() {
        let mut watch = agent(&HashMap::new());
        read(&mut watch, &syn());
        read(&mut watch, &fin(Direction::Uplink));
        assert!(read(&mut watch, &fin(Direction::Downlink)));
        let changes = watch.take_changed();
        assert_eq!((changes.open.len(), changes.told.len()), (1, 1));
        assert_eq!(changes.open[0].1.finished, 1);
    }
}
