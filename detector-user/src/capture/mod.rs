//! Captures: from bytes on disk or at a device to the innermost transport payloads, in the order
//! in which they passed.
//!
//! `file` (classic pcap, pcapng, gzip) or `device` (AF_PACKET) -> `link` (what a frame begins with) -> `layers` (down
//! through VLANs, tunnels and `fragment`s to TCP and UDP).

mod blocks;
pub mod bytes;
pub mod device;
mod ether;
pub mod file;
pub mod fragment;
pub mod layers;
pub mod link;
mod mapped;
mod network;
mod section;
mod source;
#[cfg(test)]
mod tests;
mod tunnel;

pub use self::{
    device::DeviceCapture,
    file::{CaptureError, CaptureFile, Frame},
    layers::Layers,
    link::LinkType,
};
