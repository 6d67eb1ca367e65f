//! ext4.

pub mod read;
