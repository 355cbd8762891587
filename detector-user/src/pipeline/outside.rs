//! What the pipeline is told by the outside: the time of day and the names of devices.

use std::{sync::Arc, time::SystemTime};

use uuid::Uuid;

use super::{device_names::DeviceNames, wall_clock::WallClock};

/// What the pipeline must be told, because only the outside knows.
pub trait Outside: Send {
    /// The wall-clock time of a moment on the packet path's clock.
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime;
    /// What a device was called at a moment on the packet path's clock.
    fn device(&mut self, ifindex: u32, monotonic_ns: u64) -> Arc<str>;
}

/// The live agent's outside: this machine's clocks and devices.
#[derive(Default)]
pub struct LiveOutside {
    names: DeviceNames,
    clock: WallClock,
}

impl LiveOutside {
    /// With a clock and devices that other agents may have known before.
    pub fn new(clock: WallClock, names: DeviceNames) -> Self {
        Self { names, clock }
    }
}

impl Outside for LiveOutside {
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime {
        self.clock.at(monotonic_ns)
    }

    fn device(&mut self, ifindex: u32, monotonic_ns: u64) -> Arc<str> {
        self.names.at(ifindex, monotonic_ns, monotonic_now())
    }
}

/// Now, in ns of CLOCK_MONOTONIC: the clock of `bpf_ktime_get_ns`.
pub fn monotonic_now() -> u64 {
    match nix::time::clock_gettime(nix::time::ClockId::CLOCK_MONOTONIC) {
        Ok(time) => time.tv_sec() as u64 * 1_000_000_000 + time.tv_nsec() as u64,
        Err(_) => 0,
    }
}

/// Differs from boot to boot, as CLOCK_MONOTONIC does: see [`SessionTable::new`](crate::session::SessionTable::new).
pub fn boot_id() -> Uuid {
    std::fs::read_to_string("/proc/sys/kernel/random/boot_id")
        .ok()
        .and_then(|text| text.trim().parse().ok())
        .unwrap_or_else(Uuid::new_v4)
}
