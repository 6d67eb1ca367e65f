//! On-disk formats: bytes ⇄ values. Nothing here knows a tree, a profile, the network, the clock or the host's files.

pub mod entry;
pub mod disk;
pub mod ext4;
pub mod fat;
pub mod gpt;
pub mod mbr;

pub mod sink;
pub mod ar;
pub mod codec;
pub mod tar;
