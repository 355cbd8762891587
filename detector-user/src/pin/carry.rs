//! Tables of another layout that differ in their sizes only: what this agent can go on with, it takes
//! over as it is.

use std::{io, path::Path};

use aya::maps::MapData;

use super::{
    directory::{at, entries, make, remove_directory},
    layout::Layout,
};
use crate::pin::PinError;

/// Where the tables are put together before they get their name: half of them are none.
pub(super) const BUILDING: &str = "layout-building";

/// Puts into `to` the tables of the layout in `from` that have the same size there. Both layouts are of
/// the same source.
pub(super) fn carry(from: &Path, to: &Path) -> Result<(), PinError> {
    let (Some(old), Some(new)) = (Layout::of(from), Layout::of(to)) else { return Ok(()) };
    let building = to.with_file_name(BUILDING);
    make(&building)?;
    for pin in entries(from)? {
        let name = pin.file_name().unwrap_or_default();
        if old.has_same(&new, &name.to_string_lossy()) {
            pin_again(&pin, &building.join(name)).map_err(at(&pin))?;
        }
    }
    std::fs::rename(&building, to).map_err(at(to))
}

fn pin_again(from: &Path, to: &Path) -> io::Result<()> {
    let map = MapData::from_pin(from).map_err(io::Error::other)?;
    map.pin(to).map_err(io::Error::other)
}

/// Removes what a kill has left of [`carry`].
pub(super) fn clear(pins: &Path) -> Result<(), PinError> {
    let building = pins.join(BUILDING);
    if building.is_dir() {
        remove_directory(&building)?;
    }
    Ok(())
}
