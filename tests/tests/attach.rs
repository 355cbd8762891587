//! Attachment against the running kernel: hooks, refusals, devices that come and go, and what is
//! left when the owner is gone. Every test has a network namespace of its own, which vanishes
//! with the test's thread.

use std::{
    io::{BufRead as _, BufReader, Read as _},
    process::{Child, Command, Stdio},
    time::{Duration, Instant, SystemTime},
};

use aya::{
    Ebpf,
    programs::{Program, SchedClassifier, TcAttachType},
    sys::{Stats, enable_stats},
};
use detector_user::attach::{
    Attacher, Changes, Device, DeviceStatus, DeviceWish, Directions, Hook, LinkChange, State,
    Watcher,
    device::{self, XdpSlot, XdpSlotMode},
    plan::{HookPoint, Traffic},
    privileges::{KernelFeatures, Release},
    programs::KernelProgram,
};
use detector_user::source;
use nix::sched::{CloneFlags, unshare};

/// Set for the process that is to be killed: which kernel to act for.
const CHILD: &str = "DETECTOR_TEST_ATTACH_CHILD";

/// Returns from the test, saying so, where it cannot run.
macro_rules! own_namespace {
    () => {
        if let Err(reason) = own_namespace() {
            testbed::skip!("{reason}");
        }
    };
}

fn own_namespace() -> Result<(), &'static str> {
    if !testbed::root::is_root() {
        return Err("needs root (namespaces, kernel programs)");
    }
    if source::object::embedded().is_err() {
        return Err("built without the kernel programs; run `cargo xtask build`");
    }
    unshare(CloneFlags::CLONE_NEWNET).expect("a network namespace for this thread");
    // No packets but ours: IPv6 would look for neighbours and routers.
    std::fs::write("/proc/sys/net/ipv6/conf/default/disable_ipv6", "1").expect("sysctl");
    Ok(())
}

fn run(program: &str, words: &str) -> String {
    let output = Command::new(program).args(words.split_whitespace()).output().expect(program);
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{program} {words}: {error}");
    String::from_utf8(output.stdout).expect("text")
}

fn ip(words: &str) {
    run("ip", words);
}

/// `n6` and `peer`, both up.
fn veth() {
    ip("link add n6 type veth peer name peer");
    ip("link set n6 up");
    ip("link set peer up");
}

fn object() -> Ebpf {
    Ebpf::load(source::object::embedded().expect("the kernel object")).expect("it loads")
}

fn wish(pattern: &str, hook: Hook, directions: Directions) -> DeviceWish {
    DeviceWish { hook, directions, ..DeviceWish::new(pattern.parse().expect("a pattern")) }
}

fn attacher(wishes: Vec<DeviceWish>) -> Attacher {
    Attacher::new(object(), wishes).expect("programs load")
}

async fn reconcile(attacher: &mut Attacher) -> Changes {
    attacher.reconcile().await.expect("reconcile")
}

async fn facts(name: &str) -> Device {
    let devices = device::list().await.expect("devices");
    devices.into_iter().find(|device| device.name == name).expect(name)
}

/// Where and with which program the traffic of a device is taken.
fn hooks(statuses: &[DeviceStatus]) -> Vec<(Traffic, HookPoint, KernelProgram)> {
    let hook = |status: &DeviceStatus| match &status.state {
        State::Attached { hook, program, .. } => {
            (status.traffic.expect("traffic"), *hook, *program)
        }
        other => panic!("not attached: {other:?}"),
    };
    statuses.iter().map(hook).collect()
}

fn tcx_programs(device: &str, side: TcAttachType) -> Vec<String> {
    let (_, programs) = SchedClassifier::query_tcx(device, side).expect("tcx query");
    programs.iter().map(|program| String::from_utf8_lossy(program.name()).into_owned()).collect()
}

/// The kernel tells nobody when a process is gone to its last file, nor that a frame was seen.
fn eventually(what: &str, mut condition: impl FnMut() -> bool) {
    let answer = || Ok(condition().then_some(()));
    testbed::wait::until(what, Duration::from_secs(10), answer).expect("in time");
}

fn runs(attacher: &mut Attacher, program: KernelProgram) -> u64 {
    let program = attacher.ebpf_mut().program_mut(program.name()).expect("program");
    let info = match program {
        Program::Xdp(xdp) => xdp.info(),
        Program::SchedClassifier(tc) => tc.info(),
        other => panic!("{other:?}"),
    };
    info.expect("info").run_count()
}

/// Ten broadcast frames out of a device.
fn send_frames(device: &str) {
    let interfaces = pnet::datalink::interfaces();
    let interface = interfaces.iter().find(|one| one.name == device).expect(device);
    let pnet::datalink::Channel::Ethernet(mut sender, _) =
        pnet::datalink::channel(interface, Default::default()).expect("a packet socket")
    else {
        panic!("not an Ethernet channel")
    };
    let mut frame = [0; 60];
    frame[..6].fill(0xff);
    frame[12..14].copy_from_slice(&[0x88, 0xb5]); // IEEE 802 local experiments
    for _ in 0..10 {
        sender.send_to(&frame, None).expect("sender").expect("sent");
    }
}

#[tokio::test]
async fn auto_takes_native_xdp_and_tc_egress_on_a_veth_and_each_sees_its_way() {
    own_namespace!();
    veth();
    let _stats = enable_stats(Stats::RunTime).expect("program statistics");
    let mut attacher = attacher(vec![wish("n6", Hook::Auto, Directions::Both)]);
    let changes = reconcile(&mut attacher).await;
    let expected = [
        (Traffic::Received, HookPoint::XdpNative, KernelProgram::XdpEthernet),
        (Traffic::Sent, HookPoint::TcEgress, KernelProgram::TcEthernet),
    ];
    assert_eq!(hooks(&changes.attached), expected);
    assert_eq!(hooks(&attacher.status()), expected);
    assert_eq!(changes.notices, []);
    assert!(attacher.is_ready());
    let slots = facts("n6").await.xdp;
    assert_eq!(slots.iter().map(|slot| slot.mode).collect::<Vec<_>>(), [XdpSlotMode::Native]);

    send_frames("peer");
    eventually("XDP runs", || runs(&mut attacher, KernelProgram::XdpEthernet) == 10);
    assert_eq!(runs(&mut attacher, KernelProgram::TcEthernet), 0);
    send_frames("n6");
    eventually("TC runs", || runs(&mut attacher, KernelProgram::TcEthernet) == 10);
    assert_eq!(runs(&mut attacher, KernelProgram::XdpEthernet), 10);
}

#[tokio::test]
async fn a_second_look_changes_nothing() {
    own_namespace!();
    veth();
    let missing = wish("n3", Hook::Auto, Directions::Both);
    let mut attacher = attacher(vec![wish("n6", Hook::Auto, Directions::Both), missing]);
    assert_eq!(reconcile(&mut attacher).await.notices.len(), 1);
    let before = (attacher.status(), facts("n6").await);
    assert_eq!(reconcile(&mut attacher).await, Changes::default());
    assert_eq!((attacher.status(), facts("n6").await), before);
}

#[tokio::test]
async fn a_tun_gets_generic_xdp_and_the_ip_programs() {
    own_namespace!();
    ip("tuntap add dev tun0 mode tun");
    ip("tuntap add dev tun1 mode tun");
    let native = wish("tun1", Hook::Xdp, Directions::Receive);
    let mut attacher = attacher(vec![wish("tun0", Hook::Auto, Directions::Both), native]);
    let changes = reconcile(&mut attacher).await;
    let expected = [
        (Traffic::Received, HookPoint::XdpGeneric, KernelProgram::XdpIp),
        (Traffic::Sent, HookPoint::TcEgress, KernelProgram::TcIp),
    ];
    assert_eq!(hooks(&changes.attached), expected);
    let [notice] = changes.notices.as_slice() else { panic!("{changes:?}") };
    assert_eq!(notice.device, "tun1");
    assert!(notice.what.contains("no Ethernet header"), "{notice}");
    assert!(!attacher.is_ready());
}

#[tokio::test]
async fn hook_tc_takes_both_ways_at_tc() {
    own_namespace!();
    veth();
    let mut attacher = attacher(vec![wish("n6", Hook::Tc, Directions::Both)]);
    let expected = [
        (Traffic::Received, HookPoint::TcIngress, KernelProgram::TcEthernet),
        (Traffic::Sent, HookPoint::TcEgress, KernelProgram::TcEthernet),
    ];
    assert_eq!(hooks(&reconcile(&mut attacher).await.attached), expected);
    for side in [TcAttachType::Ingress, TcAttachType::Egress] {
        // The kernel keeps 15 characters of a name.
        assert_eq!(tcx_programs("n6", side), ["detector_tc_eth"]);
    }
    assert_eq!(facts("n6").await.xdp, []);
}

#[tokio::test]
async fn a_taken_slot_is_named_and_auto_falls_to_tc_ingress() {
    own_namespace!();
    // Held in native mode: n*; in generic mode: g*.
    let hooks_tried = [("a", Hook::Auto), ("x", Hook::Xdp), ("g", Hook::XdpGeneric)];
    for (name, _) in hooks_tried {
        ip(&format!("link add n{name} type veth peer name g{name}"));
    }
    let native = wish("n*", Hook::Xdp, Directions::Receive);
    let mut holder = attacher(vec![native, wish("g*", Hook::XdpGeneric, Directions::Receive)]);
    assert_eq!(reconcile(&mut holder).await.attached.len(), 6);
    let held = device::list().await.expect("devices");

    let tries = |(name, hook)| wish(&format!("[ng]{name}"), hook, Directions::Receive);
    let mut second = attacher(hooks_tried.map(tries).to_vec());
    let changes = reconcile(&mut second).await;
    let ingress = (Traffic::Received, HookPoint::TcIngress, KernelProgram::TcEthernet);
    assert_eq!(hooks(&changes.attached), [ingress, ingress]);
    assert_eq!(changes.notices.len(), 6, "{changes:?}");
    for notice in &changes.notices {
        let slot = held.iter().find(|device| device.name == notice.device).expect("held").xdp[0];
        let (id, mode) = (slot.program_id, slot.mode.as_str());
        let who = format!("the XDP slot is taken by `detector_xdp_et` (id {id}, {mode}, held by ");
        assert!(notice.what.starts_with(&who), "{notice}");
        assert!(notice.what.ends_with(&format!("pid {})", std::process::id())), "{notice}");
    }
    assert!(!second.is_ready());
    assert_eq!(reconcile(&mut second).await, Changes::default());
    assert_eq!(device::list().await.expect("devices"), held, "the holder keeps its places");
}

#[tokio::test]
async fn a_large_mtu_here_or_at_the_other_end_takes_the_frags_program() {
    own_namespace!();
    let pairs = [("both", 9000, 9000), ("there", 1500, 9000), ("fits", 3498, 3498)];
    for (name, here, there) in pairs {
        ip(&format!("link add {name} mtu {here} type veth peer name {name}-peer mtu {there}"));
    }
    let wishes = pairs.map(|(name, ..)| wish(name, Hook::Auto, Directions::Receive));
    let mut attacher = attacher(wishes.to_vec());
    let changes = reconcile(&mut attacher).await;
    for status in &changes.attached {
        let device = status.device.as_deref().expect("a device");
        let fits = device == "fits";
        let program =
            if fits { KernelProgram::XdpEthernet } else { KernelProgram::XdpFragsEthernet };
        let expected = (Traffic::Received, HookPoint::XdpNative, program);
        assert_eq!(hooks(std::slice::from_ref(status)), [expected], "{device}");
        let said = changes.notices.iter().filter(|notice| notice.device == device);
        let said: Vec<_> = said.map(|notice| notice.what.contains("too large")).collect();
        assert_eq!(said, if fits { vec![] } else { vec![true] }, "{device}");
    }
    assert_eq!(changes.attached.len(), 3);
}

#[tokio::test]
async fn a_device_is_followed_as_it_appears_vanishes_and_returns() {
    own_namespace!();
    let mut watcher = Watcher::start().await.expect("watcher");
    let mut attacher = attacher(vec![wish("n6", Hook::Auto, Directions::Both)]);
    let changes = reconcile(&mut attacher).await;
    assert!(changes.notices[0].what.contains("no such device"), "{changes:?}");
    assert!(matches!(attacher.status()[0].state, State::Missing { .. }));
    assert!(!attacher.is_ready());

    for _ in 0..2 {
        ip("link add n6 type veth peer name peer");
        assert!(matches!(told_of_n6(&mut watcher).await, LinkChange::Appeared { .. }));
        let changes = reconcile(&mut attacher).await;
        assert_eq!((changes.attached.len(), changes.notices), (2, vec![]));
        assert!(attacher.is_ready());

        ip("link delete n6");
        while !matches!(told_of_n6(&mut watcher).await, LinkChange::Vanished { .. }) {}
        let changes = reconcile(&mut attacher).await;
        let detached = [("n6".to_string(), Traffic::Received), ("n6".to_string(), Traffic::Sent)];
        assert_eq!(changes.detached, detached);
        assert!(changes.notices[0].what.contains("no such device"), "{changes:?}");
        assert!(!attacher.is_ready());
    }
}

/// The next change of `n6`.
async fn told_of_n6(watcher: &mut Watcher) -> LinkChange {
    let of_n6 = |change: &LinkChange| match change {
        LinkChange::Appeared { name, .. }
        | LinkChange::Vanished { name, .. }
        | LinkChange::Changed { name, .. } => name == "n6",
        LinkChange::Renamed { to, .. } => to == "n6",
        LinkChange::Resync => false,
    };
    let next = async {
        loop {
            let changes = watcher.changed().await.expect("netlink goes on");
            // A batch about one device ends with what holds now.
            if let Some(change) = changes.into_iter().rev().find(of_n6) {
                return change;
            }
        }
    };
    tokio::time::timeout(Duration::from_secs(10), next).await.expect("told within 10 s")
}

#[tokio::test]
async fn a_pattern_follows_names_and_a_renamed_device_is_let_go() {
    own_namespace!();
    let mut watcher = Watcher::start().await.expect("watcher");
    let mut attacher = attacher(vec![wish("n6*", Hook::Auto, Directions::Receive)]);
    assert_eq!(reconcile(&mut attacher).await, Changes::default());
    assert!(matches!(attacher.status()[0].state, State::Waiting));
    ip("link add n6a type veth peer name n6b");
    assert_eq!(reconcile(&mut attacher).await.attached.len(), 2);

    ip("link set n6a name n6c");
    assert_eq!(reconcile(&mut attacher).await, Changes::default());
    let names: Vec<_> = attacher.status().into_iter().filter_map(|status| status.device).collect();
    assert_eq!(names.len(), 2);
    assert!(names.contains(&"n6c".to_string()), "{names:?}");

    ip("link set n6c name n6");
    assert!(matches!(told_of_n6(&mut watcher).await, LinkChange::Renamed { .. }));
    ip("link set n6 name other");
    let changes = reconcile(&mut attacher).await;
    assert_eq!(changes.detached, [("n6c".to_string(), Traffic::Received)]);
    assert_eq!(facts("other").await.xdp, []);
}

#[tokio::test]
async fn a_program_that_somebody_detached_is_attached_again() {
    own_namespace!();
    veth();
    let mut attacher = attacher(vec![wish("n6", Hook::Auto, Directions::Receive)]);
    reconcile(&mut attacher).await;
    // What a listing shows after `bpftool link detach`, and after somebody came in our place.
    let elsewhere = XdpSlot { mode: XdpSlotMode::Native, program_id: u32::MAX };
    for xdp in [vec![], vec![elsewhere]] {
        let seen = Device { xdp, ..facts("n6").await };
        let changes = attacher.apply(&[seen], SystemTime::now()).expect("apply");
        assert!(changes.notices[0].what.contains("XDP native lost its program"), "{changes:?}");
        assert_eq!(changes.attached.len(), 1);
        assert_eq!(facts("n6").await.xdp.len(), 1);
    }
}

#[tokio::test]
async fn dropping_the_owner_detaches_everything() {
    own_namespace!();
    veth();
    let both = vec![wish("n6", Hook::Auto, Directions::Both)];
    let mut attacher = attacher(both.clone());
    reconcile(&mut attacher).await;
    drop(attacher);
    assert_eq!(facts("n6").await.xdp, []);
    assert_eq!(tcx_programs("n6", TcAttachType::Egress), [""; 0]);

    let mut before_tcx =
        Attacher::on(KernelFeatures::of(Release(6, 1)), object(), both).expect("programs load");
    reconcile(&mut before_tcx).await;
    assert_eq!(filters("egress"), 1);
    drop(before_tcx);
    assert_eq!(filters("egress"), 0);
}

/// Filters of ours on `n6` that went by netlink.
fn filters(side: &str) -> usize {
    run("tc", &format!("filter show dev n6 {side}")).matches("detector_tc_ethernet").count()
}

#[tokio::test]
async fn an_old_kernel_gets_tc_by_netlink_and_says_what_a_crash_leaves() {
    own_namespace!();
    veth();
    let _stats = enable_stats(Stats::RunTime).expect("program statistics");
    let kernel = KernelFeatures::of(Release(5, 10));
    let wishes = vec![wish("n6", Hook::Auto, Directions::Both)];
    let mut attacher = Attacher::on(kernel, object(), wishes).expect("programs load");
    let changes = reconcile(&mut attacher).await;
    let expected = [
        (Traffic::Received, HookPoint::TcIngress, KernelProgram::TcEthernet),
        (Traffic::Sent, HookPoint::TcEgress, KernelProgram::TcEthernet),
    ];
    assert_eq!(hooks(&changes.attached), expected);
    let said: String = changes.notices.iter().map(ToString::to_string).collect();
    assert!(said.contains("bpf_xdp_load_bytes"), "{said}");
    assert!(said.contains("a crash of the agent leaves the filter"), "{said}");
    assert_eq!((filters("ingress"), filters("egress")), (1, 1));
    assert_eq!(tcx_programs("n6", TcAttachType::Egress), [""; 0]);
    send_frames("peer");
    send_frames("n6");
    eventually("TC runs", || runs(&mut attacher, KernelProgram::TcEthernet) == 20);
}

/// Ends the process when dropped, whatever the test came to.
struct Killed(Child);

impl Killed {
    fn now(&mut self) {
        self.0.kill().expect("SIGKILL");
        self.0.wait().expect("reaped");
    }
}

impl Drop for Killed {
    fn drop(&mut self) {
        // Fails when it has ended, which is as good.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

/// A process in this thread's namespace that has attached to `n6`.
fn process_that_attached(release: &str) -> Killed {
    let child = Command::new(std::env::current_exe().expect("this binary"))
        .args(["--exact", "child_attaches_and_waits", "--ignored", "--nocapture"])
        .env(CHILD, release)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("a process");
    let mut child = Killed(child);
    let stdout = BufReader::new(child.0.stdout.take().expect("piped"));
    let attached = stdout.lines().map_while(Result::ok).any(|line| line.ends_with("attached"));
    assert!(attached, "the process ended before it attached");
    child
}

/// Not a test: the process of [`process_that_attached`]. Waits until it is killed, or until the
/// test that started it is gone and with it the other end of standard input.
#[tokio::test]
#[ignore = "started by other tests as a process of its own"]
async fn child_attaches_and_waits() {
    let Ok(release) = std::env::var(CHILD) else { return };
    let kernel = match release.as_str() {
        "6.1" => KernelFeatures::of(Release(6, 1)),
        _ => KernelFeatures::detect().expect("this kernel"),
    };
    let wishes = vec![wish("n6", Hook::Auto, Directions::Both)];
    let mut attacher = Attacher::on(kernel, object(), wishes).expect("programs load");
    assert_eq!(reconcile(&mut attacher).await.attached.len(), 2);
    println!("attached");
    std::io::stdin().read_to_end(&mut Vec::new()).expect("standard input");
}

#[tokio::test]
async fn a_killed_owner_leaves_nothing_behind() {
    own_namespace!();
    veth();
    let mut owner = process_that_attached("this one");
    assert_eq!(facts("n6").await.xdp.len(), 1);
    assert_eq!(tcx_programs("n6", TcAttachType::Egress).len(), 1);
    owner.now();
    eventually("TC detached", || tcx_programs("n6", TcAttachType::Egress).is_empty());
    let devices = async || facts("n6").await.xdp;
    let deadline = Instant::now() + Duration::from_secs(10);
    while !devices().await.is_empty() {
        assert!(Instant::now() < deadline, "XDP stays 10 s after its owner was killed");
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
}

#[tokio::test]
async fn what_a_crash_leaves_on_an_old_kernel_the_next_start_removes() {
    own_namespace!();
    veth();
    process_that_attached("6.1").now();
    assert_eq!(filters("egress"), 1, "left behind, as the notice said");
    let wishes = vec![wish("n6", Hook::Auto, Directions::Both)];
    let mut next =
        Attacher::on(KernelFeatures::of(Release(6, 1)), object(), wishes).expect("programs load");
    reconcile(&mut next).await;
    assert_eq!(filters("egress"), 1, "its own and no other");
    drop(next);
    assert_eq!(filters("egress"), 0);
}
