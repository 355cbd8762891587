//! Where event records come from.

pub mod object;
