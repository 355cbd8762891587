//! Faults of the sink, kills and restarts of the agent in any order: a property test over the real
//! process. `DETECTOR_TEST_SCHEDULES` says how many schedules, `DETECTOR_TEST_SEED` the first one.

use std::{collections::BTreeSet, sync::atomic::AtomicBool, time::Duration};

use nix::sys::signal::Signal;
use testbed::{
    agent::Agent,
    bpffs::BpfFs,
    need_root,
    receiver::{Receiver, Recorded, Reply},
    wait,
};

use crate::{
    bed::{Bed, LIMIT, UE, UE6, all_read, balanced, eventually, metric, sink, status},
    killed::{
        bed, in_order, path, press, seed, sessions_begin_and_end, twice_is_the_same,
        users_came_back,
    },
    stop::Stop,
};

const STEPS: usize = 10;
/// A breaker that is open waits longer and longer between two probes.
const RECOVERY: Duration = Duration::from_secs(60);

/// What may happen next.
#[derive(Clone, Copy, Debug)]
enum Fault {
    Well,
    Errors,
    Resets,
    Closes,
    Slow,
    Kill,
    Restart,
}

impl Fault {
    const ALL: [Self; 7] = [
        Self::Well,
        Self::Errors,
        Self::Resets,
        Self::Closes,
        Self::Slow,
        Self::Kill,
        Self::Restart,
    ];

    /// For the sink from now on; `None` if it happens to the agent.
    fn reply(self) -> Option<Reply> {
        match self {
            Self::Well => Some(Reply::status(202)),
            Self::Errors => Some(Reply::status(503)),
            Self::Resets => Some(Reply::Reset),
            Self::Closes => Some(Reply::Close),
            Self::Slow => Some(Reply::Status(202, Duration::from_millis(300))),
            Self::Kill | Self::Restart => None,
        }
    }
}

/// Lets it happen; `agent` is then the one that runs after it.
fn happen<'b>(fault: Fault, bed: &'b Bed, receiver: &Receiver, agent: &mut Agent<'b>) {
    if let Some(reply) = fault.reply() {
        return receiver.answer(reply);
    }
    if matches!(fault, Fault::Kill) {
        agent.signal(Signal::SIGKILL).expect("signal");
        agent.wait(LIMIT).expect("killed");
    } else {
        assert!(agent.terminate(LIMIT).expect("it ends").success(), "{}", agent.tail());
    }
    *agent = bed.start();
}

#[test]
fn whatever_happens_to_sink_and_agent_nothing_is_lost_and_the_books_balance() {
    need_root!();
    let schedules = std::env::var("DETECTOR_TEST_SCHEDULES").ok();
    let schedules = schedules.and_then(|it| it.parse().ok()).unwrap_or(2);
    for seed in (seed()..).take(schedules) {
        let bpffs = BpfFs::mount().expect("bpffs");
        run(&bed(&bpffs.path("detector"), &sink(), ""), fastrand::Rng::with_seed(seed));
    }
}

fn run(bed: &Bed, mut random: fastrand::Rng) {
    let receiver = bed.receiver();
    let stop = AtomicBool::new(false);
    let mut agent = bed.start();
    let mut faults = Vec::new();
    let pressed = std::thread::scope(|scope| {
        let users = [UE, UE6].map(|ue| scope.spawn(|| press(bed, ue, &stop)));
        let stop = Stop(&stop);
        for _ in 0..STEPS {
            // The moment is part of the schedule.
            std::thread::sleep(Duration::from_millis(random.u64(50..500)));
            let fault = random.choice(Fault::ALL).expect("one of them");
            faults.push(fault);
            happen(fault, bed, &receiver, &mut agent);
        }
        users_came_back(&agent);
        drop(stop);
        users.map(|user| user.join().expect("pressed"))
    });
    receiver.answer(Reply::status(202));
    all_read(&agent, "buy-click");
    eventually("all sessions have ended", || status(&agent)["sessions_open"] == 0);
    wait::until("nothing is on its way", RECOVERY, || {
        Ok((metric(&agent, "detector_ledger_in_flight", &[]) == 0.0).then_some(()))
    })
    .unwrap_or_else(|error| panic!("{error}: {faults:?}"));
    check(&agent, &receiver.recorded(), &pressed, &faults);
}

fn check(agent: &Agent<'_>, attempts: &[Recorded], pressed: &[Vec<String>; 2], faults: &[Fault]) {
    let taken = |it: &&Recorded| matches!(it.reply, Reply::Status(202, _));
    let taken: Vec<Recorded> = attempts.iter().filter(taken).cloned().collect();
    let ids: BTreeSet<&str> = taken.iter().map(|it| it.header("ce-id")).collect();
    let presses: BTreeSet<String> = taken.iter().filter_map(path).collect();
    let all: usize = pressed.iter().map(Vec::len).sum();
    println!(
        "{faults:?}: {all} presses, {} events delivered, {} twice, {} presses lost",
        ids.len(),
        taken.len() - ids.len(),
        all - presses.len(),
    );
    assert_eq!(presses.len(), all, "each press");
    assert_eq!(metric(agent, "detector_ledger_lost_total", &[]), 0.0);
    assert_eq!(metric(agent, "detector_rule_ring_full_total", &[]), 0.0);
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(agent, rule));
    twice_is_the_same(attempts);
    in_order(&taken, pressed);
    sessions_begin_and_end(&taken);
}
