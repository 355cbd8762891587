//! Rules: what an operator writes, checked once, and what the kernel tables are compiled from.

pub mod model;
pub mod template;
