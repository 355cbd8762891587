//! The test bed: what tests and the demo stand on. Everything made here is taken away again when
//! its value is dropped, and only processes that were started here are ever ended.
//!
//! [`netns`] (namespaces and veth pairs), [`edge`] and [`ggsn`] (a whole network of them), [`frames`] (packets to order), [`app`] (the application
//! behind N6) and [`client`] (its users), [`receiver`] (an HTTP endpoint for CloudEvents that
//! answers as told), [`relay`] (keeps what passes), [`process`] and [`agent`] (programs under test).

pub mod agent;
pub mod app;
pub mod bpffs;
pub mod client;
pub mod edge;
#[cfg(feature = "frames")]
pub mod frames;
pub mod ggsn;
pub mod netns;
pub mod process;
pub mod receiver;
pub mod relay;
pub mod root;
mod server;
pub mod wait;
