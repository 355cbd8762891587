//! What a device was called when a packet passed it. One moment has one name, whenever and by
//! whichever agent it is asked for: `source` and with it the identity of events hang on it.

use std::{collections::HashMap, sync::Arc};

use crate::source::device_notes::{DeviceName, DeviceNotes, MAX_NAMES};

/// A device may be renamed, or its number given to another one: it is looked for this often, in ns.
const FRESH_NS: u64 = 5_000_000_000;

/// This machine's devices, as they were called over time.
#[derive(Default)]
pub struct DeviceNames {
    devices: HashMap<u32, Device>,
    /// For the next agent, where pins are kept.
    notes: Option<DeviceNotes>,
}

struct Device {
    /// Oldest first; never empty.
    names: Vec<(u64, Arc<str>)>,
    asked_ns: u64,
}

impl DeviceNames {
    /// Names that go on where the agents before left off.
    pub fn noted(notes: DeviceNotes) -> Self {
        Self { devices: HashMap::new(), notes: Some(notes) }
    }

    /// The name of a device at a moment.
    pub(super) fn at(&mut self, ifindex: u32, at_ns: u64, now_ns: u64) -> Arc<str> {
        self.look(ifindex, now_ns, || {
            let name = nix::net::if_::if_indextoname(ifindex).ok()?.into_string().ok()?;
            // The number -1 is taken, and has no name.
            (!name.is_empty()).then_some(name)
        });
        let names = self.devices.get(&ifindex).map_or(&[][..], |device| &device.names);
        let then = names.iter().rev().find(|(from_ns, _)| *from_ns <= at_ns);
        match then.or(names.first()) {
            Some((_, name)) => name.clone(),
            None => format!("ifindex-{ifindex}").into(),
        }
    }

    /// Asks for the name again if that was long ago. One that is gone keeps its last name, or is known
    /// by its number.
    fn look(&mut self, ifindex: u32, now_ns: u64, ask: impl FnOnce() -> Option<String>) {
        let known = self.devices.get(&ifindex);
        if known.is_some_and(|device| now_ns.saturating_sub(device.asked_ns) < FRESH_NS) {
            return;
        }
        let noted = self.notes.as_ref().map(|notes| notes.names(ifindex)).unwrap_or_default();
        let device = self.devices.entry(ifindex).or_insert_with(|| Device {
            names: noted.into_iter().map(|it| (it.from_ns, it.name.into())).collect(),
            asked_ns: now_ns,
        });
        device.asked_ns = now_ns;
        let last = device.names.last().map(|(_, name)| name.clone());
        let name = match (ask(), &last) {
            (Some(name), _) => name.into(),
            (None, Some(last)) => last.clone(),
            (None, None) => format!("ifindex-{ifindex}").into(),
        };
        if last.is_some_and(|last| last == name) {
            return;
        }
        // What passed before it was first asked for is told by the first name.
        let from_ns = if device.names.is_empty() { 0 } else { now_ns };
        device.names.push((from_ns, name));
        let over = device.names.len().saturating_sub(MAX_NAMES);
        device.names.drain(..over);
        if let Some(notes) = self.notes.as_mut() {
            let names = device.names.iter();
            let names = names
                .map(|(from_ns, name)| DeviceName { from_ns: *from_ns, name: name.to_string() });
            notes.keep(ifindex, &names.collect::<Vec<_>>());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: u64 = 1_000_000_000;

    fn name(names: &DeviceNames, at_ns: u64) -> &str {
        let names = &names.devices[&7].names;
        let then = names.iter().rev().find(|(from_ns, _)| *from_ns <= at_ns);
        &then.or(names.first()).unwrap().1
    }

    #[test]
    fn a_device_that_is_renamed_has_its_old_name_for_what_passed_before() {
        let mut names = DeviceNames::default();
        names.look(7, 10 * SECOND, || Some("n6".to_owned()));
        names.look(7, 11 * SECOND, || panic!("asked too often"));
        names.look(7, 20 * SECOND, || Some("uplink".to_owned()));
        names.look(7, 30 * SECOND, || None);
        assert_eq!(
            [1, 19, 20, 99].map(|at| name(&names, at * SECOND)),
            ["n6", "n6", "uplink", "uplink"]
        );
    }

    #[test]
    fn a_device_that_was_never_seen_is_known_by_its_number() {
        let mut names = DeviceNames::default();
        names.look(7, 10 * SECOND, || None);
        assert_eq!(name(&names, 1), "ifindex-7");
        assert_eq!(&*names.at(u32::MAX, 1, 1), "ifindex-4294967295");
    }
}
