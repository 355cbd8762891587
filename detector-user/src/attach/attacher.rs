//! Keeps wishes and devices in step: attaches what is wished and there, lets go of what is not,
//! and remembers why something could not be attached.

use std::{
    collections::{BTreeMap, BTreeSet},
    path::{Path, PathBuf},
    time::SystemTime,
};

use aya::Ebpf;

use super::{
    device::{self, Device, Layer},
    link::{self, OwnedLink, Refusal},
    plan::{self, Attempt, Part, Traffic},
    privileges::KernelFeatures,
    programs,
    status::{DeviceStatus, State},
    trouble::{AttachError, Notice, Trouble},
    wish::DeviceWish,
};
use crate::pin::{PinDirectory, PinError};

/// Owns the kernel programs and every attachment of them. Dropping it detaches all that is not
/// pinned.
#[derive(Debug)]
pub struct Attacher {
    // Before `ebpf`: links that went by netlink name their program's file descriptor when they
    // detach, and fields are dropped in this order.
    places: BTreeMap<(u32, Traffic), Place>,
    missing: BTreeSet<usize>,
    wishes: Vec<DeviceWish>,
    kernel: KernelFeatures,
    pins: Option<PinDirectory>,
    ebpf: Ebpf,
}

/// One kind of traffic of one device that somebody wished for.
#[derive(Debug)]
struct Place {
    wish: usize,
    device: String,
    layer: Layer,
    held: Option<Held>,
    troubles: Vec<Trouble>,
    sees: String,
}

#[derive(Debug)]
struct Held {
    link: OwnedLink,
    attempt: Attempt,
    since: SystemTime,
}

/// What a wish comes to on one device.
struct Wanted<'a> {
    wish: usize,
    device: &'a Device,
    part: Part,
}

/// What one reconciliation changed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Changes {
    /// Attached just now.
    pub attached: Vec<DeviceStatus>,
    /// Let go: the device went, or was renamed out of its pattern.
    pub detached: Vec<(String, Traffic)>,
    /// New since the last time; what was said is not said again until it changes.
    pub notices: Vec<Notice>,
}

impl Attacher {
    /// Loads the programs of `ebpf` (unless they are) and attaches nothing yet. Of wishes that
    /// fit the same device, the first counts.
    ///
    /// # Errors
    /// When the kernel refuses a program.
    pub fn new(ebpf: Ebpf, wishes: Vec<DeviceWish>) -> Result<Self, AttachError> {
        Self::on(KernelFeatures::detect().map_err(AttachError::Kernel)?, ebpf, wishes)
    }

    /// The same, told what the kernel can do; less than it can is always possible.
    ///
    /// # Errors
    /// As [`Self::new`].
    pub fn on(
        kernel: KernelFeatures,
        mut ebpf: Ebpf,
        wishes: Vec<DeviceWish>,
    ) -> Result<Self, AttachError> {
        programs::load(&mut ebpf, &kernel)?;
        let (places, missing) = (BTreeMap::new(), BTreeSet::new());
        Ok(Self { places, missing, wishes, kernel, pins: None, ebpf })
    }

    /// Takes over the attachments that are pinned there, and pins its own.
    #[must_use]
    pub fn with_pins(mut self, pins: PinDirectory) -> Self {
        self.pins = Some(pins);
        self
    }

    /// Removes the pins that nothing wished for is at, e.g. after the config has changed. To be
    /// called once devices were attached to.
    ///
    /// # Errors
    /// When a pin cannot be removed.
    pub fn sweep_pins(&self) -> Result<usize, PinError> {
        let Some(pins) = &self.pins else { return Ok(0) };
        let held = self.places.values().filter_map(|place| place.held.as_ref());
        let keep: Vec<_> = held.filter_map(|held| held.link.pin().map(Path::to_owned)).collect();
        pins.keep_links(&keep)
    }

    /// The pins, to see what else is there.
    pub fn pins(&self) -> Option<&PinDirectory> {
        self.pins.as_ref()
    }

    /// The object, to take its maps.
    pub fn ebpf_mut(&mut self) -> &mut Ebpf {
        &mut self.ebpf
    }

    /// Brings attachments in step with the devices there are. Changes nothing, and says nothing,
    /// when they are.
    pub async fn reconcile(&mut self) -> Result<Changes, AttachError> {
        let devices = device::list().await?;
        self.apply(&devices, SystemTime::now())
    }

    /// The same, for devices listed before.
    pub fn apply(&mut self, devices: &[Device], now: SystemTime) -> Result<Changes, AttachError> {
        let mut changes = Changes::default();
        let wanted = self.wanted(devices);
        self.let_go(&wanted, &mut changes);
        for (key, wanted) in wanted {
            self.bring_up(key, wanted, now, &mut changes)?;
        }
        self.note_missing(devices, &mut changes);
        Ok(changes)
    }

    /// One entry for each kind of traffic of each device, and for each wish without a device.
    pub fn status(&self) -> Vec<DeviceStatus> {
        let places = self.places.iter().map(|((_, traffic), place)| {
            place.status(*traffic, self.wishes[place.wish].pattern.as_str())
        });
        let used: BTreeSet<_> = self.places.values().map(|place| place.wish).collect();
        let unused = (0..self.wishes.len()).filter(|wish| !used.contains(wish)).map(|wish| {
            let pattern = &self.wishes[wish].pattern;
            let state = if self.missing.contains(&wish) {
                State::Missing { reason: Trouble::NoSuchDevice.notice(pattern.as_str()) }
            } else {
                State::Waiting
            };
            DeviceStatus { pattern: pattern.to_string(), device: None, traffic: None, state }
        });
        places.chain(unused).collect()
    }

    /// Is every wish met, as far as there are devices for patterns?
    pub fn is_ready(&self) -> bool {
        self.status().iter().all(|status| status.state.is_ready())
    }

    fn wanted<'a>(&self, devices: &'a [Device]) -> BTreeMap<(u32, Traffic), Wanted<'a>> {
        let mut wanted = BTreeMap::new();
        for device in devices {
            let fits = |wish: &DeviceWish| wish.pattern.matches(&device.name);
            let Some(wish) = self.wishes.iter().position(fits) else { continue };
            let DeviceWish { pattern: _, hook, directions } = &self.wishes[wish];
            for part in plan::plan(device, *hook, *directions, &self.kernel) {
                wanted.insert((device.index, part.traffic), Wanted { wish, device, part });
            }
        }
        wanted
    }

    fn let_go(&mut self, wanted: &BTreeMap<(u32, Traffic), Wanted<'_>>, changes: &mut Changes) {
        // A device renamed from one wish to another starts anew, under that wish's hook.
        let stays = |key: &(u32, Traffic), place: &Place| {
            wanted.get(key).is_some_and(|wanted| wanted.wish == place.wish)
        };
        for ((_, traffic), place) in self.places.extract_if(.., |key, place| !stays(key, place)) {
            if let Some(held) = place.held {
                held.link.detach();
                changes.detached.push((place.device, traffic));
            }
        }
    }

    fn bring_up(
        &mut self,
        key: (u32, Traffic),
        wanted: Wanted<'_>,
        now: SystemTime,
        changes: &mut Changes,
    ) -> Result<(), AttachError> {
        let Wanted { wish, device, part } = wanted;
        let mut said = Vec::new();
        if let Some(mut place) = self.places.remove(&key) {
            if place.is_on(device) {
                place.rename(device, part.traffic);
                self.places.insert(key, place);
                return Ok(());
            }
            if let Some(held) = &place.held {
                let detached = Trouble::Detached { hook: held.attempt.hook };
                changes.notices.push(detached.notice(&device.name));
            }
            said = place.troubles;
        }
        let (held, troubles) = self.try_all(device, &part, now)?;
        let new = troubles.iter().filter(|trouble| !said.contains(trouble));
        changes.notices.extend(new.map(|trouble| trouble.notice(&device.name)));
        let place = Place {
            wish,
            device: device.name.clone(),
            layer: device.layer,
            held,
            troubles,
            sees: plan::sees(device, part.traffic),
        };
        if place.held.is_some() {
            let pattern = self.wishes[wish].pattern.as_str();
            changes.attached.push(place.status(part.traffic, pattern));
        }
        self.places.insert(key, place);
        Ok(())
    }

    /// Tries a part's attempts until one succeeds; tells what stood in the way of the others.
    fn try_all(
        &mut self,
        device: &Device,
        part: &Part,
        now: SystemTime,
    ) -> Result<(Option<Held>, Vec<Trouble>), AttachError> {
        let mut troubles = part.troubles.clone();
        let mut before: Option<PathBuf> = None;
        for attempt in part.attempts.iter().copied() {
            if !plan::worth_trying(attempt, &troubles) {
                continue;
            }
            let pin = self.pins.as_ref().map(|pins| pins.link(device.index, attempt.hook));
            // What is pinned at a hook that will not do any longer stands in the next one's way.
            if let Some(before) = before.filter(|before| Some(before) != pin.as_ref()) {
                link::unpin(&before);
            }
            before = pin.clone();
            match link::attach(&mut self.ebpf, device, attempt, &self.kernel, pin.as_deref()) {
                Ok(link) => {
                    if !attempt.program.is_xdp() && !self.kernel.tcx {
                        troubles.push(Trouble::OutlivesCrash { running: self.kernel.release });
                    }
                    return Ok((Some(Held { link, attempt, since: now }), troubles));
                }
                Err(Refusal::Trouble(trouble)) if troubles.contains(&trouble) => {}
                Err(Refusal::Trouble(trouble)) => troubles.push(trouble),
                Err(Refusal::Fatal(error)) => return Err(error),
            }
        }
        Ok((None, troubles))
    }

    fn note_missing(&mut self, devices: &[Device], changes: &mut Changes) {
        for (index, wish) in self.wishes.iter().enumerate() {
            let Some(name) = wish.pattern.as_name() else { continue };
            if devices.iter().any(|device| device.name == name) {
                self.missing.remove(&index);
            } else if self.missing.insert(index) {
                changes.notices.push(Trouble::NoSuchDevice.notice(name));
            }
        }
    }
}

impl Place {
    /// Is our program on the device? The device tells which XDP programs it has; TC links go
    /// with the device or with us only.
    fn is_on(&self, device: &Device) -> bool {
        self.held.as_ref().is_some_and(|held| {
            !held.attempt.program.is_xdp()
                || device.xdp.iter().any(|slot| slot.program_id == held.link.program_id)
        })
    }

    fn rename(&mut self, device: &Device, traffic: Traffic) {
        if self.device != device.name {
            self.device.clone_from(&device.name);
            self.sees = plan::sees(device, traffic);
        }
    }

    fn status(&self, traffic: Traffic, pattern: &str) -> DeviceStatus {
        let state = match &self.held {
            Some(held) => State::Attached {
                hook: held.attempt.hook,
                program: held.attempt.program,
                layer: self.layer,
                sees: self.sees.clone(),
                since: held.since,
            },
            None => State::NotAttached {
                reasons: self.troubles.iter().map(|trouble| trouble.notice(&self.device)).collect(),
            },
        };
        DeviceStatus {
            pattern: pattern.into(),
            device: Some(self.device.clone()),
            traffic: Some(traffic),
            state,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The agent runs it in a task of its own.
    #[test]
    fn can_live_in_a_spawned_task() {
        fn spawns<F: Future + Send>(_: impl Fn(Attacher) -> F) {}
        spawns(|mut attacher| async move { attacher.reconcile().await });
    }
}
