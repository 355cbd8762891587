//! Where event records come from: the kernel programs, or the same classifier in software.

pub mod kernel;
pub mod object;
pub mod ring;
pub mod rule_maps;
pub mod session_map;
pub mod session_notes;
pub mod software;
