//! Reading ext2, ext3 and ext4 filesystems as entries with lazy contents.
//!
//! The image is hostile until proven otherwise. Every number is checked before it is used as a place or a size; loops
//! end because directories are visited once and extent trees only go forward; memory is bounded by what the image
//! really holds. Where the filesystem keeps checksums (`metadata_csum`) they are verified. What cannot be read right is
//! refused by name ([`ReadError::Unsupported`]), never guessed.
//!
//! Not defended against: two files sharing blocks, and free-space bitmaps that lie. Neither changes what is read.
//!
//! Source: the kernel's Documentation/filesystems/ext4.

mod directory;
mod inode;
mod map;
mod superblock;
mod xattr;

use crate::content::ReadAt;
use crate::format::entry::{Device, Entry, EntryKind};
use inode::Inode;
use std::collections::BTreeMap;
use std::io;
use std::sync::Arc;
pub use superblock::Superblock;

/// Why a filesystem could not be read.
#[derive(Debug, thiserror::Error)]
pub enum ReadError {
    /// The image could not be read, or ends too early.
    #[error("reading {len} bytes at offset {offset} of the filesystem")]
    Io {
        /// Offset in bytes from the start of the filesystem.
        offset: u64,
        /// How many bytes.
        len: usize,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// There is no ext4 superblock.
    #[error("no ext4 filesystem here: the magic number is {found:#06x}, expected 0xef53")]
    NotExt4 {
        /// What stands where the magic number should.
        found: u16,
    },
    /// A feature that this reader does not know, or cannot honour.
    #[error("unsupported: {0}")]
    Unsupported(String),
    /// The filesystem contradicts itself.
    #[error("corrupt filesystem: {place}: {problem}")]
    Corrupt {
        /// Which structure.
        place: String,
        /// Expected and found.
        problem: String,
    },
}

fn corrupt(place: impl Into<String>, problem: impl Into<String>) -> ReadError {
    ReadError::Corrupt { place: place.into(), problem: problem.into() }
}

/// Pieces of all files together. A filesystem whose files are in more pieces than this was made to exhaust memory: it is
/// sixteen times what a terabyte in 1 MiB pieces takes.
const MAX_PIECES: usize = 1 << 24;

/// An open filesystem.
pub struct Filesystem {
    source: Arc<dyn ReadAt>,
    start: u64,
    superblock: Superblock,
    groups: Vec<superblock::Group>,
}

impl Filesystem {
    /// Opens the filesystem that starts `start` bytes into `source` and has `len` bytes.
    pub fn open(source: Arc<dyn ReadAt>, start: u64, len: u64) -> Result<Self, ReadError> {
        let mut raw = vec![0; 1024];
        read(&*source, start, 1024, &mut raw)?;
        let superblock = Superblock::parse(&raw, len)?;
        let mut filesystem = Self { source, start, superblock, groups: Vec::new() };
        filesystem.groups = superblock::groups(&filesystem)?;
        Ok(filesystem)
    }

    /// The superblock.
    pub fn superblock(&self) -> &Superblock {
        &self.superblock
    }

    /// Every name in the filesystem, in byte order of names, directories before what they hold.
    pub fn entries(&self) -> Result<Vec<Entry>, ReadError> {
        let mut entries: Vec<Entry> = Vec::new();
        let mut first: BTreeMap<u32, usize> = BTreeMap::new();
        let mut pieces = 0;
        let mut todo: Vec<(Vec<u8>, u32)> = vec![(Vec::new(), superblock::ROOT_INODE)];
        while let Some((path, number)) = todo.pop() {
            let show = || format!("/{}", path.escape_ascii());
            if let Some(index) = first.get(&number) {
                if matches!(entries[*index].kind, EntryKind::Directory) {
                    return Err(corrupt(
                        show(),
                        format!("directory inode {number} has a second name: a cycle"),
                    ));
                }
                let (meta, kind) = (entries[*index].meta.clone(), EntryKind::HardLink(*index));
                entries.push(Entry { path, meta, kind, layer: 0 });
                continue;
            }
            let inode = Inode::read(self, number).map_err(|error| error.at(&path))?;
            let meta = inode.meta(self)?;
            let kind = match inode.file_type() {
                inode::DIRECTORY => {
                    let mut children = directory::list(self, &inode)?;
                    children.sort_by(|a, b| b.0.cmp(&a.0));
                    for pair in children.windows(2) {
                        if pair[0].0 == pair[1].0 {
                            return Err(corrupt(
                                show(),
                                format!("name `{}` comes twice", pair[0].0.escape_ascii()),
                            ));
                        }
                    }
                    for (name, child) in children {
                        let mut below = path.clone();
                        if !below.is_empty() {
                            below.push(b'/');
                        }
                        below.extend_from_slice(&name);
                        if below.len() > 4095 {
                            return Err(ReadError::Unsupported(format!(
                                "path longer than 4095 bytes below {}",
                                show()
                            )));
                        }
                        todo.push((below, child));
                    }
                    EntryKind::Directory
                }
                inode::REGULAR => {
                    let content = map::content(self, &inode)?;
                    pieces += content.pieces().len();
                    if pieces > MAX_PIECES {
                        return Err(ReadError::Unsupported(format!(
                            "files in more than {MAX_PIECES} pieces"
                        )));
                    }
                    EntryKind::File(content)
                }
                inode::SYMLINK => EntryKind::Symlink(map::symlink(self, &inode)?),
                inode::CHARACTER => EntryKind::CharDevice(inode.device()),
                inode::BLOCK => EntryKind::BlockDevice(inode.device()),
                inode::FIFO => EntryKind::Fifo,
                inode::SOCKET => EntryKind::Socket,
                other => return Err(corrupt(show(), format!("inode {number} has unknown type {other:#o}"))),
            };
            first.insert(number, entries.len());
            entries.push(Entry { path, meta, kind, layer: 0 });
        }
        Ok(entries)
    }

    fn read(&self, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
        read(&*self.source, self.start, offset, buffer)
    }

    fn block(&self, number: u64, place: impl Fn() -> String) -> Result<Vec<u8>, ReadError> {
        self.check_blocks(number, 1, place)?;
        let mut block = vec![0; self.superblock.block_size as usize];
        self.read(number * self.superblock.block_size, &mut block)?;
        Ok(block)
    }

    fn check_blocks(&self, first: u64, count: u64, place: impl Fn() -> String) -> Result<(), ReadError> {
        let superblock = &self.superblock;
        let end = first.checked_add(count).filter(|end| *end <= superblock.blocks);
        if end.is_none() || first < superblock.first_data_block {
            let problem = format!("blocks {first}+{count}, the filesystem has {}", superblock.blocks);
            return Err(corrupt(place(), problem));
        }
        Ok(())
    }
}

impl ReadError {
    fn at(self, path: &[u8]) -> Self {
        match self {
            Self::Corrupt { place, problem } => {
                Self::Corrupt { place: format!("/{} ({place})", path.escape_ascii()), problem }
            }
            other => other,
        }
    }
}

fn read(source: &dyn ReadAt, start: u64, offset: u64, buffer: &mut [u8]) -> Result<(), ReadError> {
    let at = start.checked_add(offset).ok_or_else(|| io::Error::from(io::ErrorKind::UnexpectedEof));
    at.and_then(|at| source.read_exact_at(buffer, at)).map_err(|source| ReadError::Io {
        offset,
        len: buffer.len(),
        source,
    })
}

/// Little-endian numbers at fixed places. Callers pass buffers whose length they made sure of; a place outside reads as 0,
/// so that a mistake here is a wrong value that a check refuses and not a panic.
fn le16(bytes: &[u8], at: usize) -> u16 {
    bytes.get(at..at + 2).map_or(0, |b| u16::from_le_bytes([b[0], b[1]]))
}

fn le32(bytes: &[u8], at: usize) -> u32 {
    bytes.get(at..at + 4).map_or(0, |b| u32::from_le_bytes([b[0], b[1], b[2], b[3]]))
}

/// `new_encode_dev` and `old_encode_dev` of the kernel's include/linux/kdev_t.h.
fn decode_device(old: u32, new: u32) -> Device {
    if old != 0 {
        return Device { major: old >> 8 & 0xff, minor: old & 0xff };
    }
    Device { major: new >> 8 & 0xfff, minor: new & 0xff | new >> 12 & 0xf_ff00 }
}
