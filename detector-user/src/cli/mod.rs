//! The commands of `detector`.

pub mod devices;
//! The command line.

pub mod rules;
