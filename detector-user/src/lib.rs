//! The agent. The modules stand in the order an action passes them:
//!
//! `rules` (file -> checked rules -> tables) and `config`; `attach` and `source` (devices and
//! kernel programs -> records); `decode`, `session`, `confirm` (record -> [`detection`]);
//! `cloudevent`; `deliver`; with `metrics` and `admin` beside them, and `broker`, the embedded
//! one-box Broker, at the far end.

pub mod attach;
pub mod broker;
pub mod cli;
pub mod confirm;
pub mod decode;
pub mod detection;
pub mod pipeline;
pub mod rules;
pub mod session;
pub mod source;
