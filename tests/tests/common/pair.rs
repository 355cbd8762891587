//! Kernel programs and the software classifier beside each other.

use detector_common::{
    counter::Counter,
    event::RecordHeader,
    state::{SessionKey, SessionSnapshot},
};
use detector_user::{
    rules::{model::RuleSet, table::TableImage},
    source::{
        kernel::{Kernel, KernelLimits},
        session_map::Sessions,
        software::SoftwareClassifier,
    },
};
use zerocopy::{FromBytes, IntoBytes};

use super::{
    kernel::{Hook, inject},
    rules,
};

/// Kernel and software beside each other.
pub(crate) struct Pair {
    pub(crate) kernel: Kernel,
    hook: Hook,
    pub(crate) software: SoftwareClassifier,
    now_ns: u64,
}

impl Pair {
    /// With the shop's rules.
    pub(crate) fn new(hook: Hook) -> Self {
        Self::with(hook, rules::shop(1))
    }

    /// With these rules.
    pub(crate) fn with(hook: Hook, (set, image): (RuleSet, TableImage)) -> Self {
        let mut kernel = Kernel::load(KernelLimits::default()).expect("loads");
        kernel.rules.swap(&image, &set.rules).expect("rules are written");
        hook.load(&mut kernel);
        Self { kernel, hook, software: SoftwareClassifier::new(image), now_ns: 1 }
    }

    /// Sends one frame both ways and compares; gives the record, without its times.
    pub(crate) fn send(&mut self, frame: &[u8]) -> Option<RecordHeader> {
        inject(&mut self.kernel, self.hook, frame, 1);
        let from_kernel = self.kernel.ring.next().map(|record| record.to_vec());
        assert!(self.kernel.ring.next().is_none(), "one record a packet");
        self.now_ns += 1000;
        let layer = self.hook.layer();
        let from_software = self.software.inspect(frame, layer, 1, self.now_ns);
        let (from_kernel, from_software) =
            (from_kernel.map(comparable), from_software.map(comparable));
        assert_eq!(from_kernel, from_software, "{:?}: {frame:02x?}", self.hook);
        from_kernel.map(|(header, _)| header)
    }

    /// Compares counters and sessions.
    pub(crate) fn compare_memory(&mut self) {
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
    // The ring has places of few sizes: what lies behind the payload is no part of the record.
    let payload = &payload[..header.captured as usize];
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
