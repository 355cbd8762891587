//! What several kernel tests share.
#![allow(dead_code, reason = "each test binary uses its part")]

pub(crate) mod frames;
pub(crate) mod kernel;
pub(crate) mod pair;
pub(crate) mod rules;
