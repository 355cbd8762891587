//! The kernel programs and the software classifier are one: frame by frame the same records, and
//! at the end the same sessions and counters.

mod common;

use common::{frames, rules};
use detector_common::{
    counter::Counter,
    event::RecordHeader,
    packet::Layer,
    state::{SessionKey, SessionSnapshot},
};
use detector_user::source::{
    kernel::{Kernel, KernelLimits},
    session_map::Sessions,
    software::SoftwareClassifier,
};
use zerocopy::{FromBytes, IntoBytes};

use crate::common::kernel::{Hook, inject};

/// Kernel and software beside each other.
struct Pair {
    kernel: Kernel,
    hook: Hook,
    software: SoftwareClassifier,
    now_ns: u64,
}

impl Pair {
    fn new(hook: Hook) -> Self {
        let (set, image) = rules::shop(1);
        let mut kernel = Kernel::load(KernelLimits::default()).expect("loads");
        kernel.rules.swap(&image, &set.rules).expect("rules are written");
        hook.load(&mut kernel);
        Self { kernel, hook, software: SoftwareClassifier::new(image), now_ns: 1 }
    }

    /// Sends one frame both ways and compares.
    fn send(&mut self, frame: &[u8]) {
        inject(&mut self.kernel, self.hook, frame, 1);
        let from_kernel = self.kernel.ring.next().map(|record| record.to_vec());
        assert!(self.kernel.ring.next().is_none(), "one record a packet");
        self.now_ns += 1000;
        let from_software = self.software.inspect(frame, Layer::Ethernet, 1, self.now_ns);
        assert_eq!(
            from_kernel.map(comparable),
            from_software.map(comparable),
            "{:?}: {frame:02x?}",
            self.hook
        );
    }

    fn compare_memory(&mut self) {
        for counter in Counter::ALL {
            assert_eq!(
                self.kernel.counters.get(counter).expect("counters"),
                self.software.counter(counter),
                "{:?}: {}",
                self.hook,
                counter.name()
            );
        }
        let keys = self.software.keys();
        assert_eq!(sorted(self.kernel.sessions.keys()), sorted(keys.clone()));
        for key in keys {
            let kernel = self.kernel.sessions.get(&key).map(timeless);
            assert_eq!(kernel, self.software.get(&key).map(timeless));
        }
    }
}

/// A record without what differs between two clocks and two devices.
fn comparable(record: Vec<u8>) -> (RecordHeader, Vec<u8>) {
    let (mut header, payload) = RecordHeader::read_from_prefix(&record).expect("a record");
    header.time_ns = 0;
    header.session_start_ns = u64::from(header.session_start_ns != 0);
    header.ifindex = 0;
    // Behind the rules that matched stand those of the last packet of the CPU that judged this one.
    header.rules[usize::from(header.rule_count)..].fill(0);
    (header, payload.to_vec())
}

fn timeless(mut state: SessionSnapshot) -> SessionSnapshot {
    state.start_ns = u64::from(state.start_ns != 0);
    state.last_ns = 0;
    state.cut_until = u64::from(state.cut_until != 0);
    state
}

fn sorted(keys: Vec<SessionKey>) -> Vec<Vec<u8>> {
    let mut keys: Vec<Vec<u8>> = keys.iter().map(|key| key.as_bytes().to_vec()).collect();
    keys.sort();
    keys
}

#[test]
fn hand_made_frames_give_the_same_records() {
    for hook in [Hook::Xdp, Hook::XdpFrags, Hook::Tc] {
        let mut pair = Pair::new(hook);
        let mut matched = 0;
        for frame in frames::conversation() {
            pair.send(&frame);
            matched += 1;
        }
        assert!(matched > 20);
        pair.compare_memory();
        assert!(pair.software.counter(Counter::SessionsStarted) >= 3, "the frames do something");
    }
}

#[test]
fn truncated_and_flipped_frames_give_the_same_records() {
    let mut seed = 0x9e37_79b9_u64;
    let mut random = move || {
        seed ^= seed << 13;
        seed ^= seed >> 7;
        seed ^= seed << 17;
        seed
    };
    for hook in [Hook::Xdp, Hook::Tc] {
        let mut pair = Pair::new(hook);
        for frame in frames::conversation() {
            for _ in 0..200 {
                let mut hurt = frame.clone();
                let least = shortest(hook).min(frame.len());
                hurt.truncate(least + random() as usize % (frame.len() - least + 1));
                for _ in 0..random() % 4 {
                    let at = random() as usize % hurt.len();
                    hurt[at] ^= 1 << (random() % 8);
                }
                pair.send(&hurt);
            }
        }
        pair.compare_memory();
    }
}

/// The shortest frame that the kernel takes for a test run: at TC it must hold the IP header that
/// its EtherType announces.
fn shortest(hook: Hook) -> usize {
    match hook {
        Hook::Xdp | Hook::XdpFrags => 14,
        Hook::Tc => 14 + 40,
    }
}
