//! What the kernel programs and the agent share: the packet parser, the classifier and the byte
//! layouts between them. `no_std`, no allocation, no `unsafe`.
//!
//! Read in this order: [`packet`] (where bytes come from), [`wire`] and [`parse`], [`rule`] (the
//! tables) and [`lookup`], [`state`], [`marks`], [`burst`] and [`cpu`] (what is remembered), [`classify`], [`inspect`] and [`dns_name`] (what user
//! space must read itself), [`event`] (the record that crosses to user space), [`counter`].
#![no_std]
#![forbid(unsafe_code)]

pub mod burst;
pub mod classify;
pub mod counter;
pub mod cpu;
pub mod dns_name;
pub mod event;
pub mod http;
pub mod inspect;
pub mod lookup;
pub mod marks;
pub mod packet;
pub mod parse;
pub mod request_gate;
pub mod rule;
pub mod state;
pub mod verifier;
pub mod wire;

#[cfg(test)]
extern crate std;
