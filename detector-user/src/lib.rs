//! The agent. The modules stand in the order an action passes them:
//!
//! `config`, `rules` (file -> checked rules -> tables; `yaml` under both); `attach` and `source`
//! (devices and kernel programs -> records) with `pin` (what of them outlives the agent); `decode`,
//! `session`, `l7` (payload -> what it says), `confirm`, put together by `pipeline` (record ->
//! [`detection`]); `cloudevent`; `deliver`; with `trace`, `metrics`, `admin` and the budgets of
//! processor time and memory beside them. [`agent`] is all of it at work, [`broker`] the embedded
//! one-box Broker at the far end, and `cli` the commands.

pub mod admin;
pub mod agent;
pub mod attach;
pub mod broker;
pub mod capture;
pub mod cli;
pub mod cloudevent;
pub mod config;
pub mod confirm;
pub mod cpu_budget;
pub mod decode;
pub mod deep;
pub mod deliver;
pub mod detection;
pub mod flow;
pub mod l7;
pub mod memory_budget;
pub mod metrics;
pub mod own_thread;
pub mod pin;
pub mod pipeline;
pub mod replay;
pub mod rules;
pub mod session;
pub mod source;
pub mod spool;
pub mod trace;
pub mod yaml;
