//! The commands of `detector`.

pub mod devices;
