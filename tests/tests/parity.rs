//! The kernel programs and the software classifier are one: frame by frame the same records, and
//! at the end the same sessions and counters.

mod common;

use common::{frames, kernel::Hook, pair::Pair};
use detector_common::counter::Counter;

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
        Hook::Tc | Hook::XdpIp | Hook::TcIp => 14 + 40,
    }
}
