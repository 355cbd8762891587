//! One fault after the other while users press and sessions come and go: each event is delivered, or
//! in a place that is counted, and the books balance. Each test prints its row of the fault table in
//! `docs/operations.md`.
//!
//! Beside these: SIGKILL at any moment (`killed`), all in any order (`schedule`), a power loss between
//! any two system calls (`detector-user/src/spool/tests.rs`, on a simulated disk), an hour without a
//! sink (`detector-user/src/deliver/tests/outage.rs`, on a clock of its own).

mod clock;
mod disk;
mod mounts;
mod sink;

use std::{collections::BTreeSet, path::Path, sync::atomic::AtomicBool, time::Duration};

use testbed::{
    agent::Agent,
    bpffs::BpfFs,
    receiver::{Receiver, Recorded, Reply},
    wait,
};

use crate::{
    bed::{Bed, UE, UE6, all_read, balanced, eventually, metric, sink, status},
    killed::{in_order, path, press, sessions_begin_and_end, twice_is_the_same, users_came_back},
    stop::Stop,
};

/// A breaker that is open waits up to half a minute between two probes.
const RECOVERY: Duration = Duration::from_secs(90);
/// Users press for so long before a fault and after it: some sessions.
const CALM: Duration = Duration::from_millis(700);

/// What a fault happens to.
struct Scene<'b> {
    bed: &'b Bed,
    agent: Agent<'b>,
    receiver: Option<Receiver>,
    /// By receivers that are gone.
    before: Vec<Recorded>,
}

impl Scene<'_> {
    /// From now on nobody listens where the sink was.
    fn sink_away(&mut self) {
        if let Some(receiver) = self.receiver.take() {
            self.before.extend(receiver.recorded());
        }
    }

    fn sink_back(&mut self) {
        self.receiver = Some(self.bed.receiver());
    }

    fn answer(&self, reply: Reply) {
        self.receiver.as_ref().expect("a receiver").answer(reply);
    }

    fn wait_until_probed(&self) {
        eventually("the agent has noticed", || {
            metric(&self.agent, "detector_delivery_sink_up", &[]) == 0.0
        });
    }

    /// Whether they are in memory too or not.
    fn wait_for_spooled(&self, events: f64) {
        const EVENT: f64 = 500.0;
        eventually("events are on disk", || {
            metric(&self.agent, "detector_spool_bytes", &[]) >= events * EVENT
        });
    }

    fn recorded(&self) -> Vec<Recorded> {
        let now = self.receiver.iter().flat_map(Receiver::recorded);
        self.before.iter().cloned().chain(now).collect()
    }
}

/// Lets it happen while users press; nothing may be lost by it.
fn survives<'b>(fault: &str, bed: &'b Bed, act: impl FnOnce(&mut Scene<'b>)) {
    let (scene, pressed) = happens(bed, bed.start(), act);
    judge(fault, &scene, &pressed);
}

/// Nothing was lost, what came twice was the same, users' events kept their order.
fn judge(fault: &str, scene: &Scene<'_>, pressed: &[Vec<String>; 2]) {
    let row = Row::of(fault, scene, pressed);
    row.print();
    assert_eq!(row.lost, 0, "presses");
    let agent = &scene.agent;
    assert_eq!(metric(agent, "detector_ledger_lost_total", &[]), 0.0);
    assert_eq!(metric(agent, "detector_ledger_dead_lettered_total", &[]), 0.0);
    assert_eq!(metric(agent, "detector_rule_ring_full_total", &[]), 0.0);
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(agent, rule));
    let taken = taken(&scene.recorded());
    twice_is_the_same(&scene.recorded());
    in_order(&taken, pressed);
    sessions_begin_and_end(&taken);
}

/// The same without a verdict: the scene when nothing is on its way any longer, and what was pressed.
fn happens<'b>(
    bed: &'b Bed,
    agent: Agent<'b>,
    act: impl FnOnce(&mut Scene<'b>),
) -> (Scene<'b>, [Vec<String>; 2]) {
    let receiver = Some(bed.receiver());
    let mut scene = Scene { bed, agent, receiver, before: Vec::new() };
    let stop = AtomicBool::new(false);
    let pressed = std::thread::scope(|scope| {
        let users = [UE, UE6].map(|ue| scope.spawn(|| press(bed, ue, &stop)));
        let stop = Stop(&stop);
        std::thread::sleep(CALM);
        act(&mut scene);
        users_came_back(&scene.agent);
        drop(stop);
        users.map(|user| user.join().expect("pressed"))
    });
    all_read(&scene.agent, "buy-click");
    eventually("all sessions have ended", || status(&scene.agent)["sessions_open"] == 0);
    wait::until("nothing is on its way", RECOVERY, || {
        Ok((metric(&scene.agent, "detector_ledger_in_flight", &[]) == 0.0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}\n{}", scene.agent.tail()));
    (scene, pressed)
}

/// Requests that were answered with 202.
fn taken(attempts: &[Recorded]) -> Vec<Recorded> {
    let taken = |it: &&Recorded| matches!(it.reply, Reply::Status(202, _));
    attempts.iter().filter(taken).cloned().collect()
}

/// Of the fault table.
struct Row<'f> {
    fault: &'f str,
    presses: usize,
    delivered: usize,
    twice: usize,
    lost: usize,
}

impl<'f> Row<'f> {
    fn of(fault: &'f str, scene: &Scene<'_>, pressed: &[Vec<String>; 2]) -> Self {
        let taken = taken(&scene.recorded());
        let ids: BTreeSet<&str> = taken.iter().map(|it| it.header("ce-id")).collect();
        let arrived: BTreeSet<String> = taken.iter().filter_map(path).collect();
        let presses = pressed.iter().map(Vec::len).sum();
        Self {
            fault,
            presses,
            delivered: ids.len(),
            twice: taken.len() - ids.len(),
            lost: presses - arrived.len(),
        }
    }

    fn print(&self) {
        let Self { fault, presses, delivered, twice, lost } = self;
        println!("| {fault} | {presses} | {delivered} | {twice} | {lost} |");
    }
}

fn bed(pins: &BpfFs, sink: &str, delivery: &str) -> Bed {
    crate::killed::bed(&pins.path("detector"), sink, delivery)
}

/// The bed's spool of the one sink.
fn spool(bed: &Bed) -> std::path::PathBuf {
    bed.path("spool").join("http")
}

/// The segments in it, the oldest first.
fn segments(spool: &Path) -> Vec<std::path::PathBuf> {
    let entries = std::fs::read_dir(spool).expect("the spool").flatten();
    let mut files: Vec<_> = entries.map(|entry| entry.path()).collect();
    files.retain(|path| path.extension().is_some_and(|extension| extension == "spool"));
    files.sort();
    files
}
