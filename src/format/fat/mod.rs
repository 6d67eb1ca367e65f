//! FAT16 and FAT32: volumes are written from scratch, in one pass, and read into entries.
//!
//! Writing is in two steps. [`plan`] decides everything (names, aliases, clusters) and fails if something cannot be
//! held; [`Plan::write`] only carries it out, front to back. The same entries and parameters give the same bytes.
//!
//! What FAT cannot hold: owners, permissions, extended attributes and hard links are dropped without a word (a hard
//! link becomes a second copy), because every system shows the whole volume with one owner and mode. Links, devices,
//! pipes and sockets are errors, as are names FAT forbids and names that differ only in case. Times have steps of two
//! seconds between 1980 and 2107; outside, the nearest is taken.
//!
//! Clusters are given out layer by layer (see [`Entry::layer`]) and without gaps, so volumes that share their lower
//! layers have the same bytes at the same places. Only a FAT32 root directory that needs more than one cluster is in
//! two pieces: its first cluster is always number 2, where some boot loaders look for it whatever the boot sector says.

mod geometry;
mod name;
mod read;
mod time;
mod write;

use crate::meta::Timestamp;
use crate::units::Bytes;
pub use name::NameProblem;
pub(crate) use read::probe;
pub use read::{ReadError, Volume, read};
use std::fmt;
pub use write::{Plan, minimum_size, plan};

#[cfg(doc)]
use crate::format::entry::Entry;

/// How wide a table entry is: 12, 16 or 28 bits of 32.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FatKind {
    /// Up to 4,084 clusters. Read only: nothing on a Pi uses it.
    Fat12,
    /// 4,085 to 65,524 clusters.
    Fat16,
    /// From 65,525 clusters.
    Fat32,
}

impl fmt::Display for FatKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            FatKind::Fat12 => "FAT12",
            FatKind::Fat16 => "FAT16",
            FatKind::Fat32 => "FAT32",
        })
    }
}

/// What a new volume is to be.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Size of the volume; a multiple of 512 bytes below 2 TiB.
    pub size: Bytes,
    /// Volume label, at most 11 printable ASCII characters; empty for none. Lower case is kept: Raspberry Pi OS
    /// calls this volume `bootfs`, and `/dev/disk/by-label` follows the case.
    pub label: String,
    /// Volume serial number, shown as `XXXX-XXXX`; Linux calls it the UUID.
    pub serial: u32,
    /// Time of the volume label.
    pub time: Timestamp,
    /// FAT16 or FAT32; by default FAT16 below 134,742,016 bytes, as Raspberry Pi OS's images have it.
    pub kind: Option<FatKind>,
    /// Cluster size, a power of two from 512 to 65,536 bytes; by default what `mkfs.vfat` takes.
    pub cluster: Option<Bytes>,
    /// Where the volume starts on its disk, in sectors.
    pub hidden_sectors: u32,
    /// At least this much stays free, for the kernels to come.
    pub free: Bytes,
}

/// Why a volume cannot be made.
#[derive(Debug, thiserror::Error)]
pub enum FatError {
    /// Not a size a volume can have.
    #[error("a FAT volume of {} bytes: the size must be a multiple of 512 below 2 TiB", .size.0)]
    Size {
        /// What was asked for.
        size: Bytes,
    },
    /// Not a cluster size.
    #[error("a FAT cluster of {} bytes: must be a power of two from 512 to 65536", .cluster.0)]
    ClusterSize {
        /// What was asked for.
        cluster: Bytes,
    },
    /// The number of clusters decides the kind of FAT, and it is not the one asked for.
    #[error("{size} in clusters of {cluster} are {found} clusters; {kind} has {least} to {most}")]
    Clusters {
        /// The kind asked for, or chosen by size.
        kind: FatKind,
        /// Size of the volume.
        size: Bytes,
        /// Size of a cluster.
        cluster: Bytes,
        /// Number of clusters.
        found: u32,
        /// Fewest allowed.
        least: u32,
        /// Most allowed.
        most: u32,
    },
    /// The contents do not fit.
    #[error(
        "the files need {needed} with {free} to stay free, but a FAT volume of {size} has room for {room}"
    )]
    Full {
        /// Size of the volume.
        size: Bytes,
        /// What files and directories take.
        needed: Bytes,
        /// What must stay free.
        free: Bytes,
        /// Room for data.
        room: Bytes,
    },
    /// Not a label.
    #[error("{label:?} cannot be a FAT volume label: {problem}")]
    Label {
        /// What was asked for.
        label: String,
        /// Why not.
        problem: &'static str,
    },
    /// A file's name.
    #[error("/{path}: {problem}")]
    Name {
        /// The file.
        path: String,
        /// What is wrong with its name.
        problem: NameProblem,
    },
    /// Two names in one directory that FAT takes for one.
    #[error("/{path} and /{other} are one name on FAT, which does not tell upper from lower case")]
    Collision {
        /// The second of them.
        path: String,
        /// The first of them.
        other: String,
    },
    /// Something FAT has no place for.
    #[error("/{path}: a {found} cannot be on FAT")]
    Kind {
        /// The file.
        path: String,
        /// What it is.
        found: &'static str,
    },
    /// A file of 4 GiB or more.
    #[error("/{path}: {size} do not fit FAT's limit of 4 GiB less one byte")]
    FileSize {
        /// The file.
        path: String,
        /// Its size.
        size: Bytes,
    },
    /// More than 65,536 directory slots.
    #[error("/{path}: the directory needs {slots} slots; FAT allows {limit}")]
    DirectorySize {
        /// The directory.
        path: String,
        /// What it needs, long names included.
        slots: usize,
        /// What is allowed.
        limit: usize,
    },
    /// The list of entries breaks its rules.
    #[error("/{path}: {problem}")]
    Entries {
        /// Which entry.
        path: String,
        /// Which rule.
        problem: &'static str,
    },
}

#[cfg(test)]
mod tests;
