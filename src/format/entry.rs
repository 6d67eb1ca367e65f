//! The neutral currency between filesystem formats and the tree: what every reader yields and every writer takes.

use crate::content::Content;
use crate::meta::Meta;

/// One name in a filesystem.
///
/// A list of entries describes a filesystem when the root (empty path) comes first, every directory comes before
/// what it holds, no path comes twice, and a hard link comes after the entry it names.
#[derive(Clone, Debug)]
pub struct Entry {
    /// Path from the root, components joined by `/`, without a leading slash; the root is empty. Any bytes but NUL.
    pub path: Vec<u8>,
    /// Permissions, owner, time. For a hard link this is not looked at.
    pub meta: Meta,
    /// What it is.
    pub kind: EntryKind,
    /// Blocks and inodes are given out layer by layer, lowest first, so that two images which share their lower
    /// layers have the same bytes at the same places.
    pub layer: u16,
}

/// What an [`Entry`] is.
#[derive(Clone, Debug)]
pub enum EntryKind {
    /// A directory.
    Directory,
    /// A regular file.
    File(Content),
    /// A symbolic link and its target (any bytes but NUL, at most 4,095).
    Symlink(Vec<u8>),
    /// A character device.
    CharDevice(Device),
    /// A block device.
    BlockDevice(Device),
    /// A named pipe.
    Fifo,
    /// A Unix socket's name.
    Socket,
    /// Another name of an earlier entry that is not a directory, by its place in the list.
    HardLink(usize),
}

/// A device number, as `makedev(3)` takes it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Device {
    /// Driver.
    pub major: u32,
    /// Which device of that driver.
    pub minor: u32,
}
