//! Bytes by digest on this machine.

pub mod layer;
