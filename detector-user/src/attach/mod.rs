//! Attachment: which devices, at which hooks, and why not.
//!
//! Read in this order: [`wish`] (what the operator wants), [`device`] (what there is),
//! [`privileges`] (what kernel and process can do), [`plan`] (what to try, pure), [`link`] (one
//! try), [`trouble`] and [`holder`] (what went wrong, in plain words), [`attacher`] (keeps wishes
//! and devices in step), [`status`] (what to tell the operator) and [`watch`] (when to look again).
//!
//! ```no_run
//! # async fn example(ebpf: aya::Ebpf) -> anyhow::Result<()> {
//! use detector_user::attach::{Attacher, DeviceWish, Watcher};
//!
//! let wishes = vec![DeviceWish::new("n6".parse()?)];
//! let mut watcher = Watcher::start().await?; // first, so that no change falls between
//! let mut attacher = Attacher::new(ebpf, wishes)?;
//! loop {
//!     for notice in attacher.reconcile().await?.notices {
//!         tracing::warn!("{notice}");
//!     }
//!     if watcher.changed().await.is_none() {
//!         return Ok(());
//!     }
//! }
//! # }
//! ```

pub mod attacher;
pub mod device;
pub mod holder;
pub mod link;
pub mod plan;
pub mod privileges;
pub mod programs;
pub mod status;
pub mod trouble;
pub mod watch;
pub mod wish;

pub use attacher::{Attacher, Changes};
pub use device::{Device, Layer};
pub use status::{DeviceStatus, State};
pub use trouble::{AttachError, Notice, Trouble};
pub use watch::{LinkChange, Watcher};
pub use wish::{DevicePattern, DeviceWish, Directions, Hook};
