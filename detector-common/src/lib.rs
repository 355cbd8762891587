//! What the kernel programs and the agent share: the packet parser, the classifier and the byte
//! layouts between them. `no_std`, no allocation, no `unsafe` of its own.
//!
//! Read in this order: [`packet`] (where bytes come from), [`parse`], [`rule`] (the tables),
//! [`classify`], [`event`] (the record that crosses to user space), [`counter`], [`settings`].
#![no_std]
#![forbid(unsafe_code)]

pub mod http;
pub mod packet;
