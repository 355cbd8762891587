//! What the next agent would need if this one were killed now, where pins are kept: records whose
//! events are not settled stay in the ring, and sessions are noted.

use crate::{
    pipeline::{Adopted, LiveOutside, Pipeline},
    source::{
        clock_notes::ClockNotes,
        receipt::{Receipt, Receipts},
        ring_buffer::Ring,
        rule_notes::ReadNotes,
        session_map::Sessions,
        session_notes::{NoteKey, SessionNotes},
    },
};

/// The notes that the reader keeps.
pub(super) struct ReaderNotes {
    pub(super) sessions: SessionNotes,
    pub(super) clock: ClockNotes,
    pub(super) reads: ReadNotes,
}

/// Keeps both up to date.
pub(super) struct Handover {
    notes: SessionNotes,
    reads: ReadNotes,
    receipts: Receipts,
    /// Up to where the ring was read.
    read_to: u64,
    endings: Vec<Ending>,
}

/// Sessions that have ended. Their notes stay until their ends are settled, and until no record of
/// them could be read again, which would seem to begin them.
struct Ending {
    keys: Vec<NoteKey>,
    read_to: u64,
    told: Receipt,
}

impl Handover {
    /// Of this ring.
    pub(super) fn new(notes: SessionNotes, reads: ReadNotes, ring: &Ring) -> Self {
        let receipts = Receipts::new(ring.size(), ring.position());
        Self { notes, reads, receipts, read_to: ring.position(), endings: Vec::new() }
    }

    /// Takes over what the agent before has left; what it had not told to the end is to be told
    /// again, under this receipt.
    pub(super) fn adopt(
        &mut self,
        pipeline: &mut Pipeline<LiveOutside>,
        sessions: &mut dyn Sessions,
        now: std::time::Instant,
    ) -> (Adopted, Receipt) {
        pipeline.adopt_reads(self.reads.all());
        let notes = self.notes.all();
        let adopted = pipeline.adopt(&notes, now);
        for key in adopted.unknown.iter().chain(&adopted.ended) {
            // Killed between the note and the removal.
            if sessions.get(&key.session).is_some_and(|it| it.start_ns == key.start_ns) {
                sessions.remove(&key.session);
            }
        }
        adopted.unknown.iter().for_each(|key| self.notes.remove(key));
        let told = self.receipts.issue();
        // Up to where the agent before had read.
        let read_to = notes.iter().map(|(_, note)| note.as_of).max().unwrap_or(0);
        self.endings.push(Ending { keys: adopted.ended.clone(), read_to, told: told.clone() });
        (adopted, told)
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

    /// Notes the sessions that have changed, and what was read of rules. The ends among them are told under this receipt.
    pub(super) fn write(&mut self, pipeline: &mut Pipeline<LiveOutside>, told: Receipt) {
        let mut keys = Vec::new();
        for (key, note) in pipeline.changed_sessions(self.read_to) {
            self.notes.put(&key, &note);
            if note.ended().is_some() {
                keys.push(key);
            }
        }
        for (id, note) in pipeline.changed_reads(self.read_to) {
            self.reads.keep(id, &note);
        }
        if !keys.is_empty() {
            self.endings.push(Ending { keys, read_to: self.read_to, told });
        }
    }

    /// Up to where the ring may be released.
    pub(super) fn settled(&mut self, read_to: u64) -> u64 {
        self.receipts.settled(read_to)
    }

    /// Forgets the sessions that have ended and are settled.
    pub(super) fn forget_ended(&mut self) {
        let settled = self.receipts.settled(self.read_to);
        let notes = &mut self.notes;
        self.endings.retain(|ending| {
            let needed = ending.read_to > settled || ending.told.is_held();
            if !needed {
                ending.keys.iter().for_each(|key| notes.remove(key));
            }
            needed
        });
    }

    /// Records whose events were not settled when the ring needed their room.
    pub(super) fn given_up(&self) -> u64 {
        self.receipts.given_up()
    }
}
