//! What another agent has pinned: taken over where this one can read it, else replaced.

use std::path::Path;

use aya::maps::{Map, MapData};
use tracing::{info, warn};

use crate::{
    attach::Attacher,
    pin::{self, PinDirectory, PinError},
    source::{kernel::KernelLimits, ring_buffer::Ring},
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

/// Removes attachments that are not wished for any longer, and maps of other layouts, which no
/// program uses any longer. To be called once devices were attached to.
pub(super) fn sweep(attacher: &Attacher) {
    let swept = attacher.sweep_pins().and_then(|links| {
        if links > 0 {
            info!(links, "pinned attachments that the config does not name are detached");
        }
        let others = attacher.pins().map(PinDirectory::other_layouts).transpose()?;
        others.unwrap_or_default().iter().try_for_each(|maps| remove_layout(maps))
    });
    if let Err(error) = swept {
        warn!("{error}");
    }
}

fn remove_layout(maps: &Path) -> Result<(), PinError> {
    let unread = unread_records(maps).unwrap_or(0);
    pin::remove_directory(maps)?;
    let name = maps.file_name().unwrap_or_default().to_string_lossy();
    if unread == 0 {
        info!("tables of another layout are replaced by new ones: {name}");
    } else {
        warn!(
            unread,
            "tables of another layout are replaced by new ones: {name}; records that no agent had \
             read are lost with them"
        );
    }
    Ok(())
}

/// How many records are left in a ring buffer; what they say is not looked at.
fn unread_records(maps: &Path) -> Option<usize> {
    let mut ring = Ring::open(Map::RingBuf(MapData::from_pin(maps.join("EVENTS")).ok()?)).ok()?;
    let mut count = 0;
    while ring.next().is_some() {
        count += 1;
    }
    Some(count)
}
