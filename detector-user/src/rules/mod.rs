//! Rules: what an operator writes, checked once, and what the kernel tables are compiled from.
//!
//! `file` (paths -> documents) -> `raw` (as written) -> `check` (cross-checked) -> [`model`].

mod check;
pub mod compile;
pub mod field;
pub mod file;
mod inspection;
pub mod model;
pub mod raw;
mod scalar;
pub mod summary;
pub mod table;
pub mod template;
pub mod term;
