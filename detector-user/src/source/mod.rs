//! Where event records come from: the kernel programs, or the same classifier in software.

mod agent_map;
pub mod clock_notes;
pub mod deep_notes;
pub mod device_notes;
pub mod flow_notes;
pub mod kernel;
mod mapping;
pub mod object;
pub mod receipt;
pub mod ring;
pub mod ring_buffer;
pub mod ring_chain;
pub mod ring_notes;
pub mod rule_maps;
pub mod rule_notes;
pub mod session_map;
pub mod session_notes;
mod slot_map;
pub mod software;
pub mod table_copy;
