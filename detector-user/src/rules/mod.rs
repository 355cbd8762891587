//! Rules: what an operator writes, checked once, and what the kernel tables are compiled from.
//!
//! `file` (paths -> documents) -> `raw` (as written) -> `check` (cross-checked) -> [`model`].

pub mod compile;
pub mod model;
pub mod table;
mod check;
pub mod field;
pub mod file;
pub mod raw;
mod scalar;
pub mod summary;
pub mod template;
