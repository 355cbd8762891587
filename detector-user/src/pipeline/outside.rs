//! What the pipeline is told by the outside: the time of day and the names of devices.

use std::{
    cell::Cell,
    collections::HashMap,
    sync::Arc,
    time::{Duration, Instant, SystemTime},
};

use uuid::Uuid;

/// What the pipeline must be told, because only the outside knows.
pub trait Outside: Send {
    /// The wall-clock time of a moment on the packet path's clock.
    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime;
    /// The name of a device.
    fn device(&mut self, ifindex: u32) -> Arc<str>;
}

/// The live agent's outside: this machine's clocks and devices.
#[derive(Default)]
pub struct LiveOutside {
    names: HashMap<u32, (Arc<str>, Option<Instant>)>,
    /// When the packet path's clock stood at 0, in wall-clock time.
    boot: Cell<Option<SystemTime>>,
}

impl Outside for LiveOutside {
    fn wall_clock(&self, monotonic_ns: u64) -> SystemTime {
        let boot = SystemTime::now() - Duration::from_nanos(monotonic_now());
        let boot = kept_or_new(self.boot.get(), boot);
        self.boot.set(Some(boot));
        boot + Duration::from_nanos(monotonic_ns)
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

/// Two readings of the two clocks are never quite the same: as long as they agree within this, the
/// older holds, so that one moment has one time of day, and the events made of one packet too.
const CLOCKS_AGREE: Duration = Duration::from_millis(1);

/// The kept reading, unless the wall clock was set or has drifted since.
fn kept_or_new(kept: Option<SystemTime>, new: SystemTime) -> SystemTime {
    let agrees = |kept: &SystemTime| {
        let apart = new.duration_since(*kept).unwrap_or_else(|earlier| earlier.duration());
        apart <= CLOCKS_AGREE
    };
    kept.filter(agrees).unwrap_or(new)
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_moment_has_one_time_of_day() {
        let outside = LiveOutside::default();
        let moment = monotonic_now();
        let first = outside.wall_clock(moment);
        for _ in 0..1000 {
            assert_eq!(outside.wall_clock(moment), first);
        }
    }

    #[test]
    fn a_wall_clock_that_was_set_is_followed() {
        let kept = SystemTime::UNIX_EPOCH + Duration::from_secs(1000);
        let (near, ahead) = (kept + Duration::from_micros(999), kept + Duration::from_millis(2));
        assert_eq!(kept_or_new(Some(kept), near), kept);
        assert_eq!(kept_or_new(Some(kept), ahead), ahead);
        assert_eq!(kept_or_new(Some(ahead), kept), kept);
    }
}
