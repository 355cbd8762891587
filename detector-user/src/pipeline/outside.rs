//! What the pipeline is told by the outside: the time of day and the names of devices.

use std::{
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use uuid::Uuid;

use super::wall_clock::WallClock;

/// What the pipeline must be told, because only the outside knows.
pub trait Outside: Send {
    /// The wall-clock time of a moment on the packet path's clock.
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime;
    /// The name of a device.
    fn device(&mut self, ifindex: u32) -> Arc<str>;
}

/// The live agent's outside: this machine's clocks and devices.
#[derive(Default)]
pub struct LiveOutside {
    names: HashMap<u32, (Arc<str>, Option<Instant>)>,
    clock: WallClock,
}

impl LiveOutside {
    /// With a clock that other agents may have known before.
    pub fn new(clock: WallClock) -> Self {
        Self { names: HashMap::new(), clock }
    }
}

impl Outside for LiveOutside {
    fn wall_clock(&mut self, monotonic_ns: u64) -> SystemTime {
        self.clock.at(monotonic_ns)
    }

    fn device(&mut self, ifindex: u32) -> Arc<str> {
        /// A device may be renamed, or its index given to another one.
        const FRESH: Duration = Duration::from_secs(5);
        let now = Instant::now();
        if let Some((name, Some(asked))) = self.names.get(&ifindex)
            && now.duration_since(*asked) < FRESH
        {
            return name.clone();
        }
        let name: Arc<str> = match nix::net::if_::if_indextoname(ifindex) {
            Ok(name) => name.to_string_lossy().into(),
            // Gone since: its last name, or its number.
            Err(_) => match self.names.get(&ifindex) {
                Some((name, _)) => name.clone(),
                None => format!("ifindex-{ifindex}").into(),
            },
        };
        self.names.insert(ifindex, (name.clone(), Some(now)));
        name
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
