//! The thread that reads the ring buffer and runs the pipeline. It alone touches sessions, so
//! nothing of them is locked while a record waits.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::anyhow;
use aya::maps::{MapData, RingBuf};

use super::events::EventMaker;
use crate::{
    pipeline::{LiveOutside, Pipeline, PipelineCounts, RuleHistory, boot_id, monotonic_now},
    source::{
        ring::{RecordTaker, RingStop, read_until_stopped, stop_pair},
        session_map::{SessionMap, Sessions as _},
        session_notes::SessionNotes,
    },
};

/// What became of records, as of at most 100 ms ago.
pub(super) type SharedCounts = Arc<Mutex<PipelineCounts>>;

/// The running reader thread.
pub(super) struct Reader {
    stop: RingStop,
    thread: JoinHandle<anyhow::Result<()>>,
    counts: SharedCounts,
}

impl Reader {
    pub(super) fn start(
        ring: RingBuf<MapData>,
        sessions: SessionMap,
        notes: Option<SessionNotes>,
        rules: RuleHistory,
        events: EventMaker,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = stop_pair()?;
        let counts = SharedCounts::default();
        let mut pipeline = Pipeline::new(rules, boot_id(), LiveOutside::default());
        if notes.is_some() {
            pipeline.track_sessions();
        }
        let worker = Worker {
            pipeline,
            sessions,
            notes,
            events,
            counts: counts.clone(),
            published: Instant::now(),
        };
        let thread = std::thread::Builder::new()
            .name("ring-reader".to_owned())
            .spawn(move || worker.run(ring, &stopped))?;
        Ok(Self { stop, thread, counts })
    }

    pub(super) fn counts(&self) -> SharedCounts {
        self.counts.clone()
    }

    /// Whether it ended by itself.
    pub(super) fn has_failed(&self) -> bool {
        self.thread.is_finished()
    }

    /// Reads what is left, ends all sessions, and waits for the thread.
    pub(super) fn stop(self) -> anyhow::Result<()> {
        self.stop.stop();
        self.thread.join().map_err(|_| anyhow!("the reader thread panicked"))?
    }
}

struct Worker {
    pipeline: Pipeline<LiveOutside>,
    sessions: SessionMap,
    /// For the next agent, where pins are kept.
    notes: Option<SessionNotes>,
    events: EventMaker,
    counts: SharedCounts,
    published: Instant,
}

impl Worker {
    fn run(mut self, mut ring: RingBuf<MapData>, stopped: &OwnedFd) -> anyhow::Result<()> {
        self.adopt();
        let read = read_until_stopped(&mut ring, stopped, &mut self);
        // Where pins are kept, sessions go on, and the next agent with them.
        if self.notes.is_none() {
            for detection in self.pipeline.stop(&mut self.sessions, Instant::now()) {
                self.events.send(&detection);
            }
        }
        self.publish();
        Ok(read?)
    }

    /// Takes over the sessions that the agent before has told of: notes are written after the record
    /// that opened a session was read, so none of these is still to be told.
    fn adopt(&mut self) {
        let Some(notes) = self.notes.as_mut() else { return };
        for key in self.pipeline.adopt(&notes.all()) {
            self.sessions.remove(&key);
            notes.remove(&key);
        }
    }

    fn write_notes(&mut self) {
        let Some(notes) = self.notes.as_mut() else { return };
        for (key, note) in self.pipeline.changed_sessions() {
            match note {
                Some(note) => notes.put(&key, &note),
                None => notes.remove(&key),
            }
        }
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = self.pipeline.counts();
    }
}

impl RecordTaker for Worker {
    fn take(&mut self, record: &[u8]) {
        for detection in self.pipeline.record(record, &self.sessions, Instant::now()) {
            self.events.send(&detection);
        }
    }

    fn looked(&mut self) {
        const PUBLISH: Duration = Duration::from_millis(100);
        let now = Instant::now();
        for detection in self.pipeline.tick(monotonic_now(), &mut self.sessions, now) {
            self.events.send(&detection);
        }
        self.write_notes();
        if now.duration_since(self.published) >= PUBLISH {
            self.publish();
        }
    }
}
