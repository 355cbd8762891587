//! The map of rule tables, a value for each slot: written through a mapping (Linux 5.5), because a value has
//! megabytes and older kernels copy one only if they find that much memory in one piece. Mapped only meanwhile,
//! or it would count as this process's memory.

use std::{mem::offset_of, os::fd::AsFd as _};

use aya::maps::{MapData, MapError};
use detector_common::rule::{SLOTS, Slot};
use nix::sys::mman::ProtFlags;
use zerocopy::{FromBytes as _, IntoBytes as _};

use super::mapping::{Mapping, page_size};
use crate::rules::table::TableImage;

const SLOT: usize = size_of::<Slot>();

/// The map. Programs only read it, and only the slot that is active.
pub(super) struct SlotMap {
    map: MapData,
}

impl SlotMap {
    /// # Errors
    /// When its values are no slots.
    pub(super) fn open(map: MapData) -> Result<Self, MapError> {
        match map.info()?.value_size() as usize {
            SLOT => Ok(Self { map }),
            size => Err(MapError::InvalidValueSize { size, expected: SLOT }),
        }
    }

    /// Puts tables into a slot that is not active; what they have no entries for stays as it was.
    ///
    /// # Errors
    /// When the kernel refuses to map it, or there are more entries than a slot has.
    pub(super) fn write(&mut self, slot: usize, image: &TableImage) -> Result<(), MapError> {
        let tables = [
            (offset_of!(Slot, generation), image.generation.as_bytes()),
            (offset_of!(Slot, buckets), image.buckets.as_bytes()),
            (offset_of!(Slot, ports), image.ports.as_bytes()),
            (offset_of!(Slot, names), image.names.as_bytes()),
            (offset_of!(Slot, rows), image.rows.as_bytes()),
            (offset_of!(Slot, applications), image.applications.as_bytes()),
            (offset_of!(Slot, rules), image.rules.as_bytes()),
        ];
        let (mut memory, at) = self.mapped(slot, ProtFlags::PROT_READ | ProtFlags::PROT_WRITE)?;
        let ends = tables.iter().skip(1).map(|(begin, _)| *begin).chain([SLOT]);
        for ((begin, bytes), end) in tables.iter().zip(ends) {
            let room = end - begin;
            if bytes.len() > room || !memory.write(at + begin, bytes) {
                let (index, max_entries) = (bytes.len() as u32, room as u32);
                return Err(MapError::OutOfBounds { index, max_entries });
            }
        }
        Ok(())
    }

    /// What is read of a slot's tables.
    ///
    /// # Errors
    /// When the kernel refuses to map it.
    pub(super) fn read<R>(
        &self,
        slot: usize,
        what: impl FnOnce(&Slot) -> R,
    ) -> Result<R, MapError> {
        let (memory, at) = self.mapped(slot, ProtFlags::PROT_READ)?;
        let tables = memory.bytes(at, SLOT).map(Slot::ref_from_bytes);
        let outside = MapError::OutOfBounds { index: slot as u32, max_entries: SLOTS as u32 };
        tables.and_then(Result::ok).map(what).ok_or(outside)
    }

    /// The pages of a slot, and where in them it begins.
    fn mapped(&self, slot: usize, protection: ProtFlags) -> Result<(Mapping, usize), MapError> {
        let at = slot * SLOT % page_size();
        let first = slot * SLOT - at;
        Ok((Mapping::new(self.map.fd().as_fd(), at + SLOT, protection, first)?, at))
    }
}
