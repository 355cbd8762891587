//! Rules: what an operator writes, checked once, and what the kernel tables are compiled from.

pub mod compile;
pub mod model;
pub mod table;
pub mod template;
