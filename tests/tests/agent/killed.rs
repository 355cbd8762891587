//! SIGKILL at any moment, while users press and sessions come and go: whatever was detected is
//! delivered, and what is delivered twice is the same event.

use std::{
    collections::{BTreeMap, BTreeSet, HashMap},
    path::Path,
    sync::atomic::{AtomicBool, Ordering},
    time::Duration,
};

use nix::sys::signal::Signal;
use testbed::{
    agent::Agent,
    bpffs::BpfFs,
    need_root,
    receiver::{Recorded, Reply},
};

use crate::bed::{
    BUY, Bed, LIMIT, UE, UE6, all_read, balanced, config_with, eventually, metric, rule_text,
    rules_with, settled, sink, status,
};
use crate::pinned::pinned;
use crate::stop::Stop;

const KILLS: u64 = 6;
/// Room for what users do in more than a minute: on a busy machine the next agent's programs may pass
/// the verifier that late. What does not fit would be lost, rightly and counted.
const RING: &str = "32Mi";
/// Presses on one connection; then the session ends.
const PRESSES: usize = 40;
/// Two users and both came back: more sessions than that.
const SESSIONS: usize = 4;

/// A bed with pins and a spool, and what else its delivery has.
pub(crate) fn bed(pins: &Path, sink: &str, delivery: &str) -> Bed {
    let bed = Bed::new();
    let rest = format!(
        "sink: {{url: '{sink}'}}
  pin: {{path: {}}}
  limits: {{ringBytes: {RING}}}
  delivery: {{concurrency: 8, spool: {{directory: spool}}, {delivery}}}",
        pins.display()
    );
    bed.write("config.yaml", &config_with("{name: n6}", &rest));
    let press = "match: {http: {method: POST, pathPrefix: /press/}}";
    let rules = rules_with(press, "{idle: 5s, linger: 50ms}");
    let rules = rules.replace(
        "emit: {type: com.example.buy-click}",
        "emit: {type: com.example.buy-click, data: {path: '{http.path}'}}",
    );
    let session_rules = [("came", "started"), ("left", "ended")]
        .map(|(name, what)| rule_text(name, &format!("match: {{session: {what}}}")));
    bed.write("rules.yaml", &(rules + &session_rules.concat()));
    bed
}

/// A user who opens connections and presses, until told to stop; the paths in their order.
pub(crate) fn press(bed: &Bed, ue: &str, stop: &AtomicBool) -> Vec<String> {
    let mut pressed = Vec::new();
    // Persons: some are away for about as long as it takes the session to end, so that they come back in
    // the very moment in which it does, others for longer.
    let mut pauses = [80, 300].map(Duration::from_millis).into_iter().cycle();
    while !stop.load(Ordering::Relaxed) {
        let mut user = bed.user(ue);
        for _ in 0..PRESSES {
            let path = format!("/press/{ue}/{}", pressed.len());
            user.post(&path, "{}").expect("answer");
            pressed.push(path);
            std::thread::sleep(Duration::from_millis(4));
        }
        drop(user);
        std::thread::sleep(pauses.next().expect("endless"));
    }
    pressed
}

/// Waits until users have left and come back; while no agent runs, no session ends.
pub(crate) fn users_came_back(agent: &Agent<'_>) {
    eventually("sessions end while users press", || {
        status(agent)["ledger"]["left"]["detected"].as_u64() > Some(SESSIONS as u64)
    });
}

#[test]
fn what_was_detected_is_delivered_though_the_agent_is_killed_at_any_moment() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let bed = bed(&bpffs.path("detector"), &sink(), "");
    let receiver = bed.receiver();
    receiver.answer(Reply::Status(202, Duration::from_millis(1)));
    let mut random = fastrand::Rng::with_seed(seed());
    let stop = AtomicBool::new(false);
    let mut agent = bed.start();
    let pressed = std::thread::scope(|scope| {
        let users = [UE, UE6].map(|ue| scope.spawn(|| press(&bed, ue, &stop)));
        let stop = Stop(&stop);
        for _ in 0..KILLS {
            // The moment is the test.
            std::thread::sleep(Duration::from_millis(random.u64(20..900)));
            agent.signal(Signal::SIGKILL).expect("signal");
            agent.wait(LIMIT).expect("killed");
            agent = bed.start();
        }
        users_came_back(&agent);
        drop(stop);
        users.map(|user| user.join().expect("pressed"))
    });
    let all: usize = pressed.iter().map(Vec::len).sum();
    let paths = || {
        let paths: BTreeSet<String> = receiver.recorded().iter().filter_map(path).collect();
        paths.len()
    };
    all_read(&agent, "buy-click");
    eventually("all sessions have ended", || status(&agent)["sessions_open"] == 0);
    eventually("nothing is on its way", || metric(&agent, "detector_ledger_in_flight", &[]) == 0.0);
    let requests = receiver.recorded();
    println!("{KILLS} kills, {all} presses, {} requests", requests.len());
    assert_eq!(metric(&agent, "detector_rule_ring_full_total", &[]), 0.0);
    assert_eq!(paths(), all, "each press");
    assert_eq!(metric(&agent, "detector_ledger_lost_total", &[]), 0.0);
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(&agent, rule));
    let books = &status(&agent)["ledger"]["buy-click"];
    assert_eq!(books["detected"], all, "over all agents: {books}");
    twice_is_the_same(&requests);
    in_order(&requests, &pressed);
    sessions_begin_and_end(&requests);
}

/// The sink takes nothing while the user comes, presses and leaves; then the agent is killed.
#[test]
fn a_session_that_ended_before_the_kill_is_told_from_its_begin_and_in_order() {
    need_root!();
    let bpffs = BpfFs::mount().expect("bpffs");
    let bed = pinned(&bpffs.path("detector"), "");
    let receiver = bed.receiver();
    receiver.answer(Reply::status(503));
    let mut agent = bed.start();
    let mut user = bed.user(UE);
    (0..3).for_each(|_| drop(user.post(BUY, "{}").expect("answer")));
    drop(user);
    eventually("its end is found", || status(&agent)["ledger"]["left"]["detected"] == 1);
    agent.signal(Signal::SIGKILL).expect("signal");
    agent.wait(LIMIT).expect("killed");

    receiver.answer(Reply::Status(202, Duration::ZERO));
    let before = receiver.recorded().len();
    let agent = bed.start();
    settled(&agent, "delivered", 5);
    let told = receiver.recorded().split_off(before);
    let told: Vec<&str> = told.iter().map(|it| it.header("ce-rule")).collect();
    assert_eq!(told, ["came", "buy-click", "buy-click", "buy-click", "left"]);
    ["buy-click", "came", "left"].iter().for_each(|rule| balanced(&agent, rule));
}

pub(crate) fn seed() -> u64 {
    let seed = std::env::var("DETECTOR_TEST_SEED").ok().and_then(|seed| seed.parse().ok());
    let seed = seed.unwrap_or(7);
    println!("DETECTOR_TEST_SEED={seed}");
    seed
}

pub(crate) fn path(request: &Recorded) -> Option<String> {
    Some(request.json()["path"].as_str()?.to_owned())
}

/// One press has one id, and one id one event.
pub(crate) fn twice_is_the_same(requests: &[Recorded]) {
    let mut events: HashMap<&str, &Recorded> = HashMap::new();
    let mut ids: HashMap<String, &str> = HashMap::new();
    for request in requests {
        let id = request.header("ce-id");
        if let Some(path) = path(request) {
            assert_eq!(*ids.entry(path.clone()).or_insert(id), id, "{path}");
        }
        let first = events.entry(id).or_insert(request);
        for header in ["ce-time", "ce-rule", "ce-source", "ce-sessionid", "ce-subject"] {
            assert_eq!(request.header(header), first.header(header), "{header} of {id}");
        }
        assert_eq!(request.body, first.body, "{} {id}", request.header("ce-rule"));
    }
}

pub(crate) fn in_order(requests: &[Recorded], pressed: &[Vec<String>; 2]) {
    for of_user in pressed {
        let mut seen = BTreeSet::new();
        let ours: BTreeSet<&String> = of_user.iter().collect();
        let paths = requests.iter().filter_map(path).filter(|path| ours.contains(path));
        let first: Vec<String> = paths.filter(|path| seen.insert(path.clone())).collect();
        assert!(first == *of_user, "first deliveries of a user are in order");
    }
}

/// Each session began and ended once, with as many presses as were delivered of it.
pub(crate) fn sessions_begin_and_end(requests: &[Recorded]) {
    let mut sessions: BTreeMap<&str, (usize, BTreeSet<&str>, Option<u64>)> = BTreeMap::new();
    for request in requests {
        let session = sessions.entry(request.header("ce-sessionid")).or_default();
        match request.header("ce-rule") {
            "came" => session.0 += 1,
            "left" => session.2 = request.json()["session"]["detections"].as_u64(),
            _ => drop(session.1.insert(request.header("ce-id"))),
        }
    }
    assert!(sessions.len() > SESSIONS, "users left and came back: {}", sessions.len());
    for (id, (began, presses, ended)) in sessions {
        assert!(began > 0, "{id} began");
        assert_eq!(ended, Some(presses.len() as u64), "{id} ended");
    }
}
