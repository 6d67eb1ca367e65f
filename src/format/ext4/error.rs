//! What can be wrong with a filesystem to be written.

use crate::units::Bytes;
use std::fmt;
use std::io;

/// Why a filesystem cannot be planned or written.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The contents do not fit.
    #[error("an ext4 filesystem of {size} is too small for its contents: it needs at least {needed} ({} bytes)", needed.0)]
    TooSmall {
        /// What was asked for.
        size: Bytes,
        /// The smallest size that holds them.
        needed: Bytes,
    },
    /// More than 32-bit block numbers reach, or contents that no size would hold.
    #[error("an ext4 filesystem of {size} is larger than the {limit} that can be written")]
    TooLarge {
        /// What was asked for, or would be needed.
        size: Bytes,
        /// What is possible.
        limit: Bytes,
    },
    /// The parameters set a number of inodes that is too low.
    #[error("{needed} inodes are needed, the parameters give {available}")]
    TooFewInodes {
        /// Inodes that the entries take, reserved ones included.
        needed: u64,
        /// Inodes the filesystem would have.
        available: u64,
    },
    /// A parameter is out of its range.
    #[error("parameter {name}: {problem}")]
    Parameter {
        /// Which field of `Parameters`.
        name: &'static str,
        /// The rule it breaks.
        problem: &'static str,
    },
    /// An entry cannot be stored.
    #[error("{path}: {problem}")]
    Entry {
        /// Which.
        path: Name,
        /// What ext4, or the list's own rules, do not allow.
        problem: Problem,
    },
    /// An extended attribute cannot be stored.
    #[error("{path}: extended attribute {name}: {problem}")]
    Attribute {
        /// The file.
        path: Name,
        /// The attribute.
        name: Name,
        /// What ext4 does not allow.
        problem: &'static str,
    },
    /// Reading an entry's contents or writing the filesystem failed.
    #[error("writing the ext4 filesystem: {what} at offset {offset}")]
    Write {
        /// What was being written: a path, or a structure.
        what: Name,
        /// Offset in the filesystem, in bytes.
        offset: u64,
        /// What the sink, or the source of the contents, said.
        source: io::Error,
    },
}

/// What is wrong with one entry.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    /// The first entry is something else.
    #[error("the list does not start with the root directory")]
    NoRoot,
    /// Only the first entry is the root.
    #[error("the root directory comes twice")]
    SecondRoot,
    /// No directory of that name came before.
    #[error("its directory does not come before it")]
    NoParent,
    /// A component is empty, `.`, `..` or has a NUL byte.
    #[error("a name that cannot be stored")]
    BadName,
    /// Longer than 255 bytes.
    #[error("a name of {0} bytes is longer than the 255 that ext4 has room for")]
    LongName(usize),
    /// The path is in the list already.
    #[error("this path comes twice")]
    Twice,
    /// A hard link to something later, to a directory or to another link.
    #[error("a hard link to what is not an earlier entry of its own that is no directory")]
    BadLink,
    /// More names than `EXT4_LINK_MAX`.
    #[error("{0} names, more than the 65,000 that ext4 allows a file")]
    Links(u32),
    /// The target is empty, longer than 4,095 bytes, or has a NUL byte.
    #[error("a symbolic link whose target is empty, has a NUL byte or is longer than 4,095 bytes")]
    BadTarget,
    /// More than twelve bits of major or twenty bits of minor number.
    #[error("device number {0}:{1} does not fit 12 and 20 bits")]
    BadDevice(u32, u32),
    /// Longer than extents can map.
    #[error("a file of {0} bytes is longer than ext4 can map (16 TiB less one block)")]
    LongFile(u64),
    /// More names than a two-level index holds.
    #[error("more names than a directory with an index of two levels holds")]
    LargeDirectory,
    /// Outside 1901-12-13 to 2310-04-04, or nanoseconds of 10⁹ or more.
    #[error("a time that ext4 cannot store safely (1901 to 2310, nanoseconds below 1,000,000,000)")]
    Time,
    /// Not a directory.
    #[error("e2fsck wants a directory of this name")]
    LostAndFound,
}

/// A name of any bytes, shown with everything but printable ASCII escaped.
#[derive(Clone, PartialEq, Eq)]
pub struct Name(pub Vec<u8>);

impl Name {
    pub(super) fn path(path: &[u8]) -> Self {
        Self([b"/", path].concat())
    }
}

impl From<&str> for Name {
    fn from(name: &str) -> Self {
        Self(name.into())
    }
}

impl fmt::Display for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(&self.0.escape_ascii(), f)
    }
}

impl fmt::Debug for Name {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}
