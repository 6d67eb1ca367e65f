//! Looking into any disk image, ours or not: without root, without mounting, without changing it.
//!
//! [`open`] reads the partition table and every filesystem it knows. What one partition hides (damage, encryption, a
//! filesystem that is not read) never hides the others: each has its own outcome in [`Volume::contents`].

mod address;
mod system;
mod view;

pub use address::{Address, Part};
pub use system::{Kernel, OsRelease, System};

use crate::content::ReadAt;
use crate::format::codec::Codec;
use crate::format::disk::{self, Disk, DiskError, FilesystemKind, Partition};
use crate::format::mbr::MbrError;
use crate::format::{ext4, fat};
use crate::tree::{PathError, Tree, TreeError};
use crate::units::Bytes;
use std::fs::File;
use std::io::{self, Seek, SeekFrom};
use std::os::unix::fs::FileTypeExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// An image that was looked into.
#[derive(Debug)]
pub struct Inspected {
    /// Where it is.
    pub path: PathBuf,
    /// Its table.
    pub disk: Disk,
    /// Its partitions, in the order of the table. Without a table, the filesystem on the whole disk.
    pub volumes: Vec<Volume>,
}

/// A partition and what is in it.
#[derive(Debug)]
pub struct Volume {
    /// What the table and the first blocks say. The label of a FAT volume is that of its root directory, if it has one.
    pub partition: Partition,
    /// Size and free room of the filesystem, if it is one that is read.
    pub usage: Option<Usage>,
    /// Its files, or why they cannot be read.
    pub contents: Result<Tree, Arc<Unreadable>>,
}

/// How full a filesystem is, by its own books.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Usage {
    /// Its size, which may be less than the partition's.
    pub size: Bytes,
    /// Free room.
    pub free: Bytes,
}

/// Why the files of a partition cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum Unreadable {
    /// Nothing that is known.
    #[error("no known filesystem")]
    Unknown,
    /// A filesystem that hardtack recognises and does not read.
    #[error("{0}, which hardtack recognises but does not read")]
    Unsupported(FilesystemKind),
    /// FAT that is damaged.
    #[error(transparent)]
    Fat(#[from] fat::ReadError),
    /// ext4 that is damaged, or has features that are not read.
    #[error(transparent)]
    Ext4(#[from] ext4::read::ReadError),
    /// Files that make no tree.
    #[error("its files contradict each other")]
    Tree(#[from] TreeError),
}

impl Unreadable {
    /// Whether the filesystem is damaged, and not merely one that hardtack does not read.
    pub fn is_damage(&self) -> bool {
        !matches!(
            self,
            Self::Unknown | Self::Unsupported(_) | Self::Ext4(ext4::read::ReadError::Unsupported(_))
        )
    }
}

/// Why an image, or something in it, cannot be looked at.
#[derive(Debug, thiserror::Error)]
pub enum InspectError {
    /// The file.
    #[error("cannot open `{}`", .path.display())]
    Open {
        /// Which.
        path: PathBuf,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// A directory, a pipe, a terminal.
    #[error("`{}` is neither a file nor a block device", .0.display())]
    NotAFile(PathBuf),
    /// A compressed image.
    #[error("`{}` is compressed ({codec}); an image can only be looked into when it is unpacked", .path.display())]
    Compressed {
        /// Which file.
        path: PathBuf,
        /// With what.
        codec: &'static str,
    },
    /// Neither a table nor a filesystem.
    #[error(
        "`{}` is no disk image: it has neither a partition table nor a filesystem that is known", .0.display()
    )]
    NotAnImage(PathBuf),
    /// The table says that the disk is longer than the file.
    #[error("`{}` is cut off: partition {number} ends at {end}, the file at {len}", .path.display())]
    Truncated {
        /// Which file.
        path: PathBuf,
        /// The first partition that does not fit.
        number: u32,
        /// Where it ends.
        end: Bytes,
        /// Size of the file.
        len: Bytes,
    },
    /// The partition table.
    #[error("cannot look into `{}`", .path.display())]
    Disk {
        /// Which file.
        path: PathBuf,
        /// What is wrong.
        #[source]
        source: DiskError,
    },
    /// There is no such partition.
    #[error("there is no partition {number}; the image has {known}")]
    NoPartition {
        /// The number asked for.
        number: u32,
        /// The numbers there are.
        known: String,
    },
    /// A partition that cannot be read.
    #[error("cannot read partition {number}")]
    Volume {
        /// Its number.
        number: u32,
        /// Why.
        #[source]
        source: Arc<Unreadable>,
    },
    /// No partition looks like the root of a system.
    #[error("no partition holds a root filesystem that can be read: {0}")]
    NoRoot(String),
    /// The path, or what is there.
    #[error(transparent)]
    Tree(#[from] TreeError),
    /// Not a path.
    #[error(transparent)]
    Path(#[from] PathError),
}

/// Opens an image (a file or a block device) and reads everything in it but the contents of files.
pub fn open(path: &Path) -> Result<Inspected, InspectError> {
    let failed = |source| InspectError::Open { path: path.to_owned(), source };
    // Looked at before it is opened: opening a pipe waits for its other end.
    let metadata = std::fs::metadata(path).map_err(failed)?;
    if !metadata.is_file() && !metadata.file_type().is_block_device() {
        return Err(InspectError::NotAFile(path.to_owned()));
    }
    let mut file = File::open(path).map_err(failed)?;
    // A block device has no length but an end.
    let len = Bytes(file.seek(SeekFrom::End(0)).map_err(failed)?);
    let mut start = [0; 8];
    let magic = usize::try_from(len.0).map_or(8, |len| len.min(8));
    ReadAt::read_exact_at(&file, &mut start[..magic], 0).map_err(failed)?;
    if let Some(codec) = compression(&start) {
        return Err(InspectError::Compressed { path: path.to_owned(), codec });
    }
    of_source(path, Arc::new(file), len)
}

/// The same for bytes that are not a file's; `path` is for messages.
pub fn of_source(path: &Path, source: Arc<dyn ReadAt>, len: Bytes) -> Result<Inspected, InspectError> {
    let disk = disk::open(&source, len).map_err(|error| match error {
        DiskError::Mbr(MbrError::OutOfDisk { number, first, end, disk }) if first > 0 && end > disk => {
            let end = Bytes(end.saturating_mul(crate::units::SECTOR));
            InspectError::Truncated { path: path.to_owned(), number, end, len }
        }
        source => InspectError::Disk { path: path.to_owned(), source },
    })?;
    if disk.table == disk::Table::None && disk.partitions.is_empty() {
        return Err(InspectError::NotAnImage(path.to_owned()));
    }
    let volumes = disk.partitions.iter().map(|partition| volume(&source, partition.clone())).collect();
    Ok(Inspected { path: path.to_owned(), disk, volumes })
}

fn compression(start: &[u8]) -> Option<&'static str> {
    Some(match Codec::of_magic(start) {
        Codec::Gzip => "gzip",
        Codec::Xz => "xz",
        Codec::Zstd => "zstd",
        Codec::Plain if start.starts_with(b"PK\x03\x04") => "zip",
        Codec::Plain if start.starts_with(b"BZh") => "bzip2",
        Codec::Plain => return None,
    })
}

fn volume(source: &Arc<dyn ReadAt>, mut partition: Partition) -> Volume {
    let (start, len) = (partition.start.0, partition.len.0);
    let mut usage = None;
    let contents = match partition.filesystem.as_mut() {
        None => Err(Unreadable::Unknown),
        Some(found) if found.kind.is_fat() => {
            fat::read(source.clone(), start, len).map_err(Unreadable::from).and_then(|volume| {
                usage = Some(Usage { size: volume.size, free: volume.free });
                if !volume.label.is_empty() {
                    found.label = String::from_utf8_lossy(&volume.label).into_owned();
                }
                Ok(Tree::from_entries(volume.entries)?)
            })
        }
        Some(found) if found.kind.is_ext() => ext4::read::Filesystem::open(source.clone(), start, len)
            .map_err(Unreadable::from)
            .and_then(|filesystem| {
                let superblock = filesystem.superblock();
                // The reader has checked that the blocks fit the partition; how many are free is the image's word.
                let bytes = |blocks: u64| Bytes(blocks.min(superblock.blocks) * superblock.block_size);
                usage = Some(Usage { size: bytes(superblock.blocks), free: bytes(superblock.free_blocks) });
                Ok(Tree::from_entries(filesystem.entries()?)?)
            }),
        Some(found) => Err(Unreadable::Unsupported(found.kind)),
    };
    Volume { partition, usage, contents: contents.map_err(Arc::new) }
}

#[cfg(test)]
mod tests;
