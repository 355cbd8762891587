//! Devices without Ethernet: two tun devices, and a thread that carries packets between them.

use std::{
    fs::File,
    io::{Read as _, Write as _},
    os::fd::{AsFd as _, AsRawFd as _},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::JoinHandle,
};

use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use testbed::{need_root, netns::Netns};

use crate::bed::{Bed, UE, UE6, by_user, rule_count, settled, status};

/// A tun device inside; it is there as long as the file is open.
fn tun(namespace: &Netns, name: &str) -> File {
    let open = || {
        let file = File::options().read(true).write(true).open("/dev/net/tun").expect("tun");
        // SAFETY: all of `ifreq` may be zero.
        let mut request: libc::ifreq = unsafe { std::mem::zeroed() };
        for (to, from) in request.ifr_name.iter_mut().zip(name.bytes()) {
            *to = from as libc::c_char;
        }
        request.ifr_ifru.ifru_flags = (libc::IFF_TUN | libc::IFF_NO_PI) as libc::c_short;
        // SAFETY: TUNSETIFF reads an `ifreq`, which lives until the call returns.
        let result = unsafe { libc::ioctl(file.as_raw_fd(), libc::TUNSETIFF, &request) };
        assert_eq!(result, 0, "{}", std::io::Error::last_os_error());
        file
    };
    let file = namespace.enter(open).expect("entered");
    namespace.ip(&format!("link set {name} up")).expect("up");
    file
}

/// Carries packets both ways until dropped.
struct Wire {
    stop: Arc<AtomicBool>,
    thread: Option<JoinHandle<()>>,
}

impl Wire {
    fn between(left: File, right: File) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let stopped = stop.clone();
        let carry = move || {
            while !stopped.load(Ordering::Relaxed) {
                let mut ready =
                    [&left, &right].map(|it| PollFd::new(it.as_fd(), PollFlags::POLLIN));
                poll(&mut ready, PollTimeout::from(50u8)).expect("poll");
                let [from_left, from_right] = ready.map(|it| it.any().unwrap_or(false));
                for (ready, from, to) in [(from_left, &left, &right), (from_right, &right, &left)] {
                    if ready {
                        carry_one(from, to);
                    }
                }
            }
        };
        Self { stop, thread: Some(std::thread::spawn(carry)) }
    }
}

fn carry_one(mut from: &File, mut to: &File) {
    let mut packet = [0; 65_536];
    let length = from.read(&mut packet).expect("a packet");
    to.write_all(&packet[..length]).expect("carried");
}

impl Drop for Wire {
    fn drop(&mut self) {
        self.stop.store(true, Ordering::Relaxed);
        if let Some(thread) = self.thread.take() {
            // The test's own failure is the one to read.
            let _ = thread.join();
        }
    }
}

#[test]
fn an_action_through_a_tun_is_delivered_once_over_ipv4_and_ipv6() {
    need_root!();
    let bed = Bed::unlinked();
    let _wire = Wire::between(tun(&bed.dn, "n6"), tun(&bed.ue, "ue0"));
    bed.address("n6", "ue0");
    let receiver = bed.receiver();
    let agent = bed.start();
    let devices = &status(&agent)["devices"];
    let seen =
        |number: usize| (devices[number]["hook"].as_str(), devices[number]["layer"].as_str());
    assert_eq!(seen(0), (Some("xdp-generic"), Some("ip")), "{devices}");
    assert_eq!(seen(1), (Some("tc-egress"), Some("ip")), "{devices}");
    for ue in [UE, UE6] {
        bed.buy(ue);
    }
    settled(&agent, "delivered", 2);
    let requests = by_user(receiver.recorded());
    let users: Vec<_> = requests.iter().map(|request| request.header("ce-ueip")).collect();
    assert_eq!(users, [UE, UE6]);
    assert_eq!(rule_count(&agent, "buy-click", "matched"), 2);
}
