//! Capture files: from bytes on disk to the innermost transport payloads, in the order of the file.
//!
//! `file` (classic pcap, pcapng, gzip) -> `link` (what a frame begins with) -> `layers` (down
//! through VLANs, tunnels and `fragment`s to TCP and UDP).

pub mod bytes;
pub mod file;
pub mod fragment;
pub mod layers;
pub mod link;
mod section;
#[cfg(test)]
mod tests;
mod tunnel;

pub use self::{
    file::{CaptureError, CaptureFile, Frame},
    layers::Layers,
    link::LinkType,
};
