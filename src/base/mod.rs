//! Where a tree starts: the packages of an archive, unpacked here without running anything.

pub mod archive;
