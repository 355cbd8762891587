//! What another agent has pinned: taken over where this one can read it, else replaced.

use std::path::Path;

use aya::maps::{Map, MapData};
use tracing::{info, warn};

use crate::{
    attach::Attacher,
    pin::{self, OtherLayout, PinDirectory, PinError},
    source::{
        kernel::{KernelLimits, Notes},
        ring_buffer::Ring,
        ring_chain::{Done, RingChain},
        ring_notes::{self, RingNotes},
        rule_maps, table_copy,
    },
};

/// Opens the pins for maps of this agent's layout.
pub(super) fn open(path: &Path, limits: &KernelLimits) -> Result<PinDirectory, PinError> {
    let layout = pin::layout::name(limits);
    let pins = PinDirectory::open(path, &layout)?;
    if pins.inherits() {
        info!("{}: taking over what is pinned: {layout}", path.display());
    }
    Ok(pins)
}

/// Takes over what tables of other layouts hold. To be called before there are rules, and before
/// anything is attached to.
pub(super) fn adopt(pins: &PinDirectory, notes: &mut Notes) -> Result<(), PinError> {
    for OtherLayout { maps, same_source } in pins.other_layouts()? {
        if same_source {
            table_copy::copy_missing(&maps, pins);
        } else {
            // What records mean, when they were made, and by what.
            notes.generations.keep_those_of(&maps);
            notes.clock.keep_those_of(&maps);
            notes.devices.keep_those_of(&maps);
        }
    }
    Ok(())
}

/// The rings to be read.
pub(super) struct Inherited {
    pub(super) ring: RingChain,
    /// What records before this position show is in no counter of this layout.
    pub(super) uncounted_before: u64,
}

/// Removes attachments that are not wished for any longer. Rings of other layouts, which no program
/// uses now, are to be read to their end; then all of the layout is removed. To be called once devices
/// were attached to.
pub(super) fn sweep(attacher: &Attacher, ring: Ring, notes: Option<&mut RingNotes>) -> Inherited {
    let (Some(pins), Some(notes)) = (attacher.pins(), notes) else {
        return Inherited { ring: RingChain::from(ring), uncounted_before: 0 };
    };
    let swept = attacher.sweep_pins().and_then(|links| {
        if links > 0 {
            info!(links, "pinned attachments that the config does not name are detached");
        }
        pins.other_layouts()
    });
    let others = swept.unwrap_or_else(|error| {
        warn!("{error}");
        Vec::new()
    });
    chain(pins, others, ring, notes)
}

fn chain(
    pins: &PinDirectory,
    others: Vec<OtherLayout>,
    mut ring: Ring,
    notes: &mut RingNotes,
) -> Inherited {
    if !others.is_empty() {
        // A packet may still be judged by an old program, which then writes to the old ring.
        rule_maps::wait_for_packets_in_flight();
    }
    let own = map_id(&pins.map(EVENTS));
    let (mut older, mut other_source) = (Vec::new(), false);
    for OtherLayout { maps, same_source } in others {
        let done = done(&maps);
        // Where only other sizes differ, the ring is the same.
        match left_in(&maps).filter(|_| map_id(&maps.join(EVENTS)) != own) {
            Some(left) => {
                other_source |= !same_source;
                older.push((left, done));
            }
            None => done(),
        }
    }
    older.sort_by_key(|(ring, _)| ring.base());
    ring.begin_at(notes.base());
    let ring = RingChain::new(older, ring);
    if ring.base() != notes.base() {
        notes.keep(ring.base());
    }
    let uncounted_before = if other_source { ring.base() } else { 0 };
    Inherited { ring, uncounted_before }
}

const EVENTS: &str = "EVENTS";

/// The kernel's number of a map: two pins may be of the same one.
fn map_id(pin: &Path) -> Option<u32> {
    Some(MapData::from_pin(pin).ok()?.info().ok()?.id())
}

/// The ring of another layout, if there is something in it that no agent has finished.
fn left_in(maps: &Path) -> Option<Ring> {
    let map = MapData::from_pin(maps.join(EVENTS)).ok()?;
    let mut ring = Ring::open(Map::RingBuf(map)).ok()?;
    ring.begin_at(ring_notes::base_of(maps));
    let name = maps.file_name().unwrap_or_default().to_string_lossy();
    let bytes = ring.unread();
    if !ring.has_next() {
        return None;
    }
    info!(bytes, "{name}: records that are left there are read before those of now");
    Some(ring)
}

/// Removes a layout.
fn done(maps: &Path) -> Done {
    let maps = maps.to_owned();
    Box::new(move || {
        let name = maps.file_name().unwrap_or_default().to_string_lossy();
        match pin::remove_directory(&maps) {
            Ok(_) => info!("tables of another layout are replaced by new ones: {name}"),
            Err(error) => warn!("{error}"),
        }
    })
}
