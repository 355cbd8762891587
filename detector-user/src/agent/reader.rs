//! The thread that reads the ring buffer and runs the pipeline. It alone touches sessions, so
//! nothing of them is locked while a record waits.

use std::{
    os::fd::OwnedFd,
    sync::{Arc, Mutex, PoisonError},
    thread::JoinHandle,
    time::{Duration, Instant},
};

use anyhow::{Context as _, anyhow};
use detector_common::state::{FlowKey, FlowSnapshot, SessionKey, SessionSnapshot};

use super::{
    events::EventMaker,
    handover::{Handover, ReaderNotes},
    memory,
    pins::Inherited,
};
use crate::{
    cpu_budget::CpuBudget,
    detection::Detection,
    memory_budget::{self, MemoryGuard},
    metrics::Metrics,
    pipeline::{
        DeviceNames, LiveOutside, Pipeline, PipelineCounts, RuleHistory, WallClock, boot_id,
        monotonic_now,
    },
    session::ReadUpTo,
    source::{
        receipt::Receipt,
        ring::{RecordTaker, RingStop, read_until_stopped, stop_pair},
        ring_buffer::RingRecord,
        ring_chain::RingChain,
        session_map::{SessionMap, Sessions},
    },
};

/// What became of records, as of at most 100 ms ago.
pub(super) type SharedCounts = Arc<Mutex<ReaderCounts>>;

/// What the reader counts.
#[derive(Clone, Debug, Default)]
pub(super) struct ReaderCounts {
    pub(super) pipeline: PipelineCounts,
    /// Records whose events were not settled when the ring needed their room.
    pub(super) released_early: u64,
    /// When that was; `None` before the first look.
    pub(super) at: Option<Instant>,
    /// Whether all that had been recorded was read.
    pub(super) all_read: bool,
}

/// What is read of the kernel programs, and kept with it.
pub(super) struct Readable {
    pub(super) inherited: Inherited,
    pub(super) sessions: SessionMap,
    /// For the next agent, where pins are kept.
    pub(super) notes: Option<ReaderNotes>,
}

/// What the agent may use of the machine.
pub(super) struct Budgets {
    pub(super) cpu: CpuBudget,
    /// Bytes.
    pub(super) memory: Option<u64>,
}

/// The running reader thread.
pub(super) struct Reader {
    stop: RingStop,
    thread: JoinHandle<anyhow::Result<Unsettled>>,
    counts: SharedCounts,
}

/// What was read and is not settled when the reader has ended.
pub(super) struct Unsettled {
    ring: RingChain,
    handover: Option<Handover>,
    /// Where the oldest unfinished message begins.
    needed_from: Option<u64>,
}

impl Unsettled {
    /// To be called when nothing that was read is in memory any longer: what is settled by now need
    /// not be read again.
    pub(super) fn release(mut self) {
        let read_to = self.ring.position();
        if let Some(handover) = self.handover.as_mut() {
            self.ring.release(handover.settled(read_to, self.needed_from));
            handover.forget_ended();
        }
    }
}

impl Reader {
    pub(super) fn start(
        Readable { inherited: Inherited { ring, uncounted_before }, sessions, notes }: Readable,
        rules: RuleHistory,
        events: EventMaker,
        Budgets { cpu, memory }: Budgets,
        metrics: &Metrics,
    ) -> anyhow::Result<Self> {
        let (stop, stopped) = stop_pair()?;
        let counts = SharedCounts::default();
        let pins = notes.is_some();
        let (notes, outside) = match notes {
            Some(ReaderNotes { handover, clock, devices }) => {
                let names = DeviceNames::noted(devices);
                (Some(handover), LiveOutside::new(WallClock::noted(clock), names))
            }
            None => (None, LiveOutside::default()),
        };
        let mut pipeline = Pipeline::new(rules, boot_id(), outside);
        let memory = memory.map(|budget| {
            pipeline.keep_at_most(memory_budget::messages(budget));
            MemoryGuard::of_process(budget).context("limits.memory: /proc/self/statm")
        });
        let memory = memory.transpose()?;
        if let Some(shown) = memory.as_ref().map(MemoryGuard::family) {
            metrics.collect(move || vec![shown()]);
        }
        if pins {
            pipeline.track_changes();
            pipeline.count_from(uncounted_before);
        }
        let worker = Worker {
            pipeline,
            sessions: EndedLast { map: sessions, ended: Vec::new() },
            handover: notes.map(|notes| Handover::new(notes, &ring)),
            events,
            cpu,
            memory,
            counts: counts.clone(),
            published: Instant::now(),
            all_read: false,
            looked_ns: 0,
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
    pub(super) fn stop(self) -> anyhow::Result<Unsettled> {
        self.stop.stop();
        self.thread.join().map_err(|_| anyhow!("the reader thread panicked"))?
    }
}

struct Worker {
    pipeline: Pipeline<LiveOutside>,
    sessions: EndedLast,
    /// Where pins are kept.
    handover: Option<Handover>,
    events: EventMaker,
    cpu: CpuBudget,
    memory: Option<MemoryGuard>,
    counts: SharedCounts,
    published: Instant,
    all_read: bool,
    /// When the last look ended, in ns of CLOCK_MONOTONIC.
    looked_ns: u64,
}

impl Worker {
    fn run(mut self, mut ring: RingChain, stopped: &OwnedFd) -> anyhow::Result<Unsettled> {
        self.adopt();
        let read = read_until_stopped(&mut ring, stopped, &mut self);
        // Where pins are kept, sessions go on, and the next agent with them.
        if self.handover.is_none() {
            let found = self.pipeline.stop(&mut self.sessions, Instant::now());
            self.send(&found, &Receipt::none());
        }
        self.publish();
        read?;
        let needed_from = self.pipeline.needed_from(monotonic_now());
        Ok(Unsettled { ring, handover: self.handover, needed_from })
    }

    /// Takes over what the agent before has told of.
    fn adopt(&mut self) {
        let Some(handover) = self.handover.as_mut() else { return };
        handover.adopt(&mut self.pipeline, &mut self.sessions.map);
    }

    /// Up to where everything was read: not what came since the look before this one. Where the ring of
    /// the agent before is gone, so is all that could come before the ends that it may not have told.
    fn read_up_to(&self, all_read: bool) -> ReadUpTo {
        let position = self.handover.as_ref().map(Handover::read_to).filter(|_| !all_read);
        let time_ns = if all_read { self.looked_ns } else { self.pipeline.read_until_ns() };
        ReadUpTo { position: position.unwrap_or(u64::MAX), time_ns }
    }

    fn give_way(&mut self, now: Instant) -> Vec<Detection> {
        let relief = self.memory.as_mut().and_then(|memory| memory.relief(now));
        let Some(relief) = relief else { return Vec::new() };
        let ended = self.pipeline.give_way(relief, &mut self.sessions, now);
        memory::give_back();
        ended
    }

    fn issue(&self) -> Receipt {
        self.handover.as_ref().map_or_else(Receipt::none, Handover::issue)
    }

    fn send(&mut self, found: &[Detection], receipt: &Receipt) {
        for detection in found {
            self.events.send(detection, receipt);
        }
    }

    /// Notes first, so that a session that has left the kernel's table is in them.
    fn write_notes(&mut self, receipt: Receipt) {
        if let Some(handover) = self.handover.as_mut() {
            handover.write(&mut self.pipeline, receipt);
        }
        self.sessions.remove_ended();
        self.pipeline.taken_out(monotonic_now());
    }

    fn publish(&mut self) {
        self.published = Instant::now();
        let counts = ReaderCounts {
            pipeline: self.pipeline.counts(),
            at: Some(self.published),
            all_read: self.all_read,
            released_early: self.handover.as_ref().map_or(0, Handover::given_up),
        };
        *self.counts.lock().unwrap_or_else(PoisonError::into_inner) = counts;
    }
}

impl RecordTaker for Worker {
    fn take(&mut self, record: &RingRecord<'_>) {
        self.pipeline.reading(record.begin);
        let found = self.pipeline.record(record, &self.sessions, Instant::now());
        let receipt = self.issue();
        self.send(&found, &receipt);
        if let Some(handover) = self.handover.as_mut() {
            handover.read(record.end, receipt);
        }
    }

    fn settled(&mut self, read_to: u64) -> u64 {
        // What a record changed must be noted before it is given up.
        self.write_notes(Receipt::none());
        match self.handover.as_mut() {
            Some(handover) => handover.settled(read_to, self.pipeline.needed_from(monotonic_now())),
            None => read_to,
        }
    }

    fn rest(&mut self) -> Duration {
        let memory = self.memory.as_mut().map(|memory| memory.rest(Instant::now()));
        self.cpu.reader_rest().max(memory.unwrap_or_default())
    }

    fn looked(&mut self, all: bool) {
        const PUBLISH: Duration = Duration::from_millis(100);
        let now = Instant::now();
        let receipt = self.issue();
        // A session must not end before all that was recorded of it is read.
        let time_ns = if all { monotonic_now() } else { self.pipeline.read_until_ns() };
        let mut found = self.pipeline.left(self.read_up_to(all), now);
        found.extend(self.pipeline.tick(time_ns, &mut self.sessions, now));
        found.extend(self.give_way(now));
        self.write_notes(receipt.clone());
        self.send(&found, &receipt);
        drop(receipt);
        self.all_read = all;
        self.looked_ns = monotonic_now();
        if now.duration_since(self.published) >= PUBLISH {
            if let Some(handover) = self.handover.as_mut() {
                handover.forget_ended();
            }
            self.publish();
        }
    }
}

/// The kernel's session table, out of which sessions are taken only when [`EndedLast::remove_ended`]
/// says so.
struct EndedLast {
    map: SessionMap,
    ended: Vec<SessionKey>,
}

impl EndedLast {
    fn remove_ended(&mut self) {
        for key in self.ended.drain(..) {
            self.map.remove(&key);
        }
    }
}

impl Sessions for EndedLast {
    fn get(&self, key: &SessionKey) -> Option<SessionSnapshot> {
        self.map.get(key)
    }

    fn remove(&mut self, key: &SessionKey) {
        self.ended.push(*key);
    }

    fn has_late_records(&self) -> bool {
        self.map.has_late_records()
    }

    fn keys(&mut self) -> Vec<SessionKey> {
        self.map.keys()
    }

    fn room(&self) -> usize {
        self.map.room()
    }

    fn flow(&self, key: &FlowKey) -> Option<FlowSnapshot> {
        self.map.flow(key)
    }
}
