//! What the next agent would need if this one were killed now, where pins are kept: records whose
//! events are not settled stay in the ring, and sessions are noted.

use crate::{
    pipeline::{Adopted, LiveOutside, Pipeline},
    session::SessionChanges,
    source::{
        clock_notes::ClockNotes,
        deep_notes::DeepNotes,
        device_notes::DeviceNotes,
        flow_notes::{FlowChanges, FlowNotes, Told},
        receipt::{Receipt, Receipts},
        ring_chain::RingChain,
        rule_notes::ReadNotes,
        session_map::Sessions,
        session_notes::{NoteKey, SessionNotes},
    },
};

/// The notes that the reader keeps.
pub(super) struct ReaderNotes {
    pub(super) handover: HandoverNotes,
    pub(super) clock: ClockNotes,
    pub(super) devices: DeviceNotes,
}

/// Those of them that follow the ring.
pub(super) struct HandoverNotes {
    pub(super) sessions: SessionNotes,
    pub(super) reads: ReadNotes,
    pub(super) deep: DeepNotes,
    pub(super) flows: FlowNotes,
}

/// Keeps both up to date.
pub(super) struct Handover {
    notes: HandoverNotes,
    receipts: Receipts,
    /// Bytes of the ring that unfinished messages may keep.
    most_unfinished: u64,
    /// Up to where the ring was released.
    released: u64,
    /// Up to where the ring was read.
    read_to: u64,
    endings: Vec<Ending>,
}

/// Sessions that have ended, and flows. Their notes stay until their ends are settled, and until no
/// record of them could be read again, which would seem to begin them.
struct Ending {
    keys: Vec<NoteKey>,
    flows: Vec<Told>,
    read_to: u64,
    told: Receipt,
}

impl Handover {
    /// Of this ring.
    pub(super) fn new(notes: HandoverNotes, ring: &RingChain) -> Self {
        let (size, position) = (ring.size(), ring.position());
        Self {
            notes,
            receipts: Receipts::new(size, position),
            most_unfinished: size / 4,
            released: position,
            read_to: position,
            endings: Vec::new(),
        }
    }

    /// Takes over what the agent before has left.
    pub(super) fn adopt(
        &mut self,
        pipeline: &mut Pipeline<LiveOutside>,
        sessions: &mut dyn Sessions,
    ) {
        pipeline.adopt_reads(self.notes.reads.all());
        self.notes.deep.write(&pipeline.adopt_judgement(self.notes.deep.all()));
        let gone = pipeline.adopt_flows(&self.notes.flows.all());
        gone.iter().for_each(|key| self.notes.flows.remove(key));
        let Adopted { unknown, ended } = pipeline.adopt(&self.notes.sessions.all());
        for key in unknown.iter().chain(&ended) {
            // Killed between the note and the removal.
            if sessions.get(&key.session).is_some_and(|it| it.start_ns == key.start_ns) {
                sessions.remove(&key.session);
            }
        }
        unknown.iter().for_each(|key| self.notes.sessions.remove(key));
    }

    /// A receipt for what is being read, or found by a timer.
    pub(super) fn issue(&self) -> Receipt {
        self.receipts.issue()
    }

    /// A record that ends here was read; what came of it holds the receipt.
    pub(super) fn read(&mut self, end: u64, receipt: Receipt) {
        self.read_to = end;
        self.receipts.read(end, receipt);
    }

    /// Up to where the ring was read.
    pub(super) fn read_to(&self) -> u64 {
        self.read_to
    }

    /// Notes the sessions that have changed, what was read of rules, and what rules remember. The ends
    /// among them are told under this receipt.
    pub(super) fn write(&mut self, pipeline: &mut Pipeline<LiveOutside>, told: Receipt) {
        let SessionChanges { going, told: ended } = pipeline.changed_sessions(self.read_to);
        going.iter().chain(&ended).for_each(|(key, note)| self.notes.sessions.put(key, note));
        for (id, note) in pipeline.changed_reads(self.read_to) {
            self.notes.reads.keep(id, &note);
        }
        self.notes.deep.write(&pipeline.changed_judgement(self.read_to));
        let FlowChanges { open, told: flows } = pipeline.changed_flows();
        open.iter().for_each(|(key, note)| self.notes.flows.put(key, note));
        let keys: Vec<NoteKey> = ended.into_iter().map(|(key, _)| key).collect();
        if !keys.is_empty() || !flows.is_empty() {
            self.endings.push(Ending { keys, flows, read_to: self.read_to, told });
        }
    }

    /// Up to where the ring may be released: what is settled, unless a message began before that is
    /// not read to its end.
    pub(super) fn settled(&mut self, read_to: u64, needed_from: Option<u64>) -> u64 {
        let settled = self.receipts.settled(read_to);
        let fits = |from: &u64| read_to.saturating_sub(*from) <= self.most_unfinished;
        let needed = needed_from.filter(fits).unwrap_or(settled);
        self.released = self.released.max(settled.min(needed));
        self.released
    }

    /// Forgets the sessions that have ended and are settled.
    pub(super) fn forget_ended(&mut self) {
        let (released, notes) = (self.released, &mut self.notes);
        self.endings.retain(|ending| {
            let needed = ending.read_to > released || ending.told.is_held();
            if !needed {
                ending.keys.iter().for_each(|key| notes.sessions.remove(key));
                ending.flows.iter().for_each(|told| notes.flows.settle(told));
            }
            needed
        });
    }

    /// Records whose events were not settled when the ring needed their room.
    pub(super) fn given_up(&self) -> u64 {
        self.receipts.given_up()
    }
}
