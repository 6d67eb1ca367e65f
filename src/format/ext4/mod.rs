//! ext4, written from scratch: a list of entries becomes a filesystem, laid out once and never changed.
//!
//! [`plan`] decides where everything lies and writes nothing; [`Plan::write`] gives the bytes in one pass from the
//! first block to the last, so that whoever takes them can hash and count as they go by. The same entries and
//! parameters give the same bytes.
//!
//! What is written is what `mke2fs -t ext4 -b 4096` makes and kernels since 4.2 mount: `has_journal ext_attr
//! resize_inode dir_index filetype extent 64bit flex_bg sparse_super large_file huge_file dir_nlink extra_isize
//! metadata_csum`, inodes of 256 bytes with times to the nanosecond. Room for group descriptors is set aside as
//! mke2fs does it, so the filesystem can grow a thousandfold while it is mounted.
//!
//! # Layers
//!
//! Inodes and blocks are given out layer by layer (see [`Entry::layer`]), each in the order of the list. Given two
//! lists whose entries up to some layer are the same (paths, kinds, lengths and holes of files, sizes of attributes and
//! targets), and two plans with the same geometry (size, number of inodes, journal), these entries have the same inode
//! numbers and their data the same blocks, whatever the layers above hold. A directory that a layer above adds names
//! to keeps its blocks and gets further ones among those of that layer; its contents do change.
//! That a `lost+found` is in one of the lists and not in the other changes neither. The root directory and
//! `lost+found` count as part of the lowest layer.

mod allocate;
mod catalog;
mod checksum;
mod directory;
mod error;
mod extent;
mod geometry;
mod hash;
mod inode;
mod journal;
mod raw;
pub mod read;
mod resize;
mod write;
mod xattr;
#[cfg(test)]
mod tests;

use crate::format::entry::Entry;
use crate::format::sink::Sink;
use crate::meta::Timestamp;
use crate::units::Bytes;
use allocate::Allocation;
use catalog::Catalog;
pub use error::{Error, Name, Problem};
pub use extent::Extent;
use geometry::{Geometry, Misfit};
use hash::NameHash;
use raw::{BLOCK, BLOCKS_PER_GROUP};
use std::ops::Range;

/// Everything about a filesystem that does not come from its entries.
#[derive(Clone, Debug)]
pub struct Parameters {
    /// Size of the whole filesystem. A remainder of less than a block is left alone, and so is, as mke2fs has it, a
    /// last block group too small for its own tables.
    pub size: Bytes,
    /// Volume UUID. Every checksum starts from it.
    pub uuid: [u8; 16],
    /// Seed of the hash that orders names in large directories, as a UUID's bytes.
    pub hash_seed: [u8; 16],
    /// Volume label, filled up with zeros.
    pub label: [u8; 16],
    /// The time of the filesystem itself and of a `lost+found` that is not among the entries.
    pub time: Timestamp,
    /// How many inodes there are.
    pub inodes: InodeCount,
    /// Part of the blocks that only root may use, 0 to 50; mke2fs takes 5.
    pub reserved_percent: u8,
    /// The journal's size.
    pub journal: Journal,
}

/// How many inodes a filesystem has. They can never be added, except by growing it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InodeCount {
    /// One for 16 KiB, as with mke2fs, and more if the entries need more.
    Auto,
    /// One for so many bytes (at least 256), as `mke2fs -i`.
    PerBytes(u64),
}

/// The journal's size.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Journal {
    /// What mke2fs takes for a filesystem of this size; none below 8 MiB.
    Auto,
    /// So many blocks of 4 KiB, at least 1,024.
    Blocks(u32),
    /// No journal.
    None,
}

/// Where everything in a filesystem lies.
pub struct Plan<'a> {
    catalog: Catalog<'a>,
    geometry: Geometry,
    allocation: Allocation,
    directories: Vec<u32>,
    reserved_blocks: u64,
    uuid: [u8; 16],
    hash_seed: [u8; 16],
    label: [u8; 16],
    time: Timestamp,
}

/// Lays out a filesystem of [`Parameters::size`] with these entries (see [`Entry`] for the rules of the list). A
/// `lost+found` is made if the list has none. Reads no contents.
pub fn plan<'a>(entries: &'a [Entry], parameters: &Parameters) -> Result<Plan<'a>, Error> {
    check(parameters)?;
    let catalog = Catalog::new(entries, &NameHash::new(&parameters.hash_seed))?;
    let blocks = parameters.size.0 / BLOCK;
    match fit(&catalog, blocks, parameters) {
        Ok((geometry, allocation)) => Ok(Plan::new(catalog, geometry, allocation, parameters)),
        Err(Misfit::Blocks(_)) => {
            let needed = Bytes(smallest(&catalog, parameters)?.saturating_mul(BLOCK));
            Err(Error::TooSmall { size: parameters.size, needed })
        }
        Err(Misfit::Inodes(available)) => Err(Error::TooFewInodes { needed: catalog.inodes(), available }),
        Err(Misfit::TooLarge) => Err(too_large(parameters.size)),
    }
}

/// The smallest size with which [`plan`] succeeds for these entries; [`Parameters::size`] is not looked at. A
/// device needs some more than that to live on.
pub fn minimum_size(entries: &[Entry], parameters: &Parameters) -> Result<Bytes, Error> {
    check(parameters)?;
    let catalog = Catalog::new(entries, &NameHash::new(&parameters.hash_seed))?;
    Ok(Bytes(smallest(&catalog, parameters)?.saturating_mul(BLOCK)))
}

impl Plan<'_> {
    /// Writes the filesystem. What was not written when this returns is zero, up to [`Plan::size`].
    pub fn write(&self, sink: &mut impl Sink) -> Result<(), Error> {
        write::write(self, sink)
    }

    /// The filesystem's own size: [`Parameters::size`] less what it leaves alone at the end.
    pub fn size(&self) -> Bytes {
        Bytes(self.geometry.blocks * BLOCK)
    }

    /// The ranges of bytes in use, sorted and apart: for a block map. Everything else may hold anything. Of these, the
    /// journal's blocks and inodes never used are zero.
    pub fn used(&self) -> impl Iterator<Item = Range<u64>> + '_ {
        self.allocation.used.iter().map(|run| run.start * BLOCK..run.end() * BLOCK)
    }

    /// Bytes not in use, those that only root may use included.
    pub fn free(&self) -> Bytes {
        Bytes(self.free_blocks() * BLOCK)
    }

    /// The inode number of an entry, by its place in the list; for a hard link that of what it names. `None` past the
    /// end of the list.
    pub fn inode(&self, entry: usize) -> Option<u32> {
        self.catalog.node_of.get(entry).map(|node| catalog::inode_number(*node as usize))
    }

    /// Where an entry's data lies, by its place in the list. Empty for what has no blocks.
    pub fn extents(&self, entry: usize) -> &[Extent] {
        let node = self.catalog.node_of.get(entry).map(|node| *node as usize);
        node.map_or(&[], |node| &self.allocation.places[node].extents)
    }

    fn free_blocks(&self) -> u64 {
        let used: u64 = self.allocation.used.iter().map(|run| run.len).sum();
        self.geometry.blocks.saturating_sub(used)
    }

    /// Inodes in use of a group: they are given out without gaps.
    fn inodes_in(&self, group: u32) -> u32 {
        let before = u64::from(group) * u64::from(self.geometry.inodes_per_group);
        let left = self.catalog.inodes().saturating_sub(before);
        left.min(u64::from(self.geometry.inodes_per_group)) as u32
    }

    fn directories_in(&self, group: u32) -> u32 {
        self.directories.get(group as usize).copied().unwrap_or(0)
    }
}

impl<'a> Plan<'a> {
    fn new(
        catalog: Catalog<'a>,
        geometry: Geometry,
        allocation: Allocation,
        parameters: &Parameters,
    ) -> Self {
        let mut directories = vec![0; geometry.groups as usize];
        for directory in &catalog.directories {
            let number = catalog::inode_number(directory.node as usize);
            directories[((number - 1) / geometry.inodes_per_group) as usize] += 1;
        }
        let reserved_blocks = geometry.blocks * u64::from(parameters.reserved_percent) / 100;
        let Parameters { uuid, hash_seed, label, time, .. } = *parameters;
        Self { catalog, geometry, allocation, directories, reserved_blocks, uuid, hash_seed, label, time }
    }
}

fn check(parameters: &Parameters) -> Result<(), Error> {
    let bad = |name, problem| Err(Error::Parameter { name, problem });
    if parameters.reserved_percent > 50 {
        return bad("reserved_percent", "more than 50");
    }
    if parameters.time.seconds < 0 || !inode::holds(parameters.time) {
        return bad("time", "before 1970 or after 2310");
    }
    match (parameters.journal, parameters.inodes) {
        (Journal::Blocks(0..journal::MIN_BLOCKS), _) => bad("journal", "fewer than 1,024 blocks"),
        (_, InodeCount::PerBytes(0..256)) => bad("inodes", "more than one inode for 256 bytes"),
        _ => Ok(()),
    }
}

fn fit(
    catalog: &Catalog<'_>,
    blocks: u64,
    parameters: &Parameters,
) -> Result<(Geometry, Allocation), Misfit> {
    let geometry = Geometry::new(blocks, catalog.inodes(), parameters.inodes, parameters.journal)?;
    match Allocation::new(catalog, &geometry) {
        Ok(allocation) => Ok((geometry, allocation)),
        Err(_) if geometry.blocks < blocks => Err(Misfit::Blocks(geometry.next_size().max(blocks + 1))),
        Err(missing) => Err(Misfit::Blocks(blocks.saturating_add(missing))),
    }
}

/// The smallest number of blocks that holds the catalog: each size that is refused says below which size no other
/// can do.
fn smallest(catalog: &Catalog<'_>, parameters: &Parameters) -> Result<u64, Error> {
    let mut blocks = catalog.blocks();
    loop {
        let next = match fit(catalog, blocks, parameters) {
            Ok(_) => return Ok(blocks),
            Err(Misfit::Blocks(enough)) => enough.max(blocks + 1),
            Err(Misfit::Inodes(_)) => match parameters.inodes {
                InodeCount::PerBytes(ratio) if blocks < BLOCKS_PER_GROUP => {
                    let span = catalog.inodes().saturating_mul(ratio);
                    (span / BLOCK).clamp(blocks + 1, BLOCKS_PER_GROUP + 1)
                }
                _ => blocks.next_multiple_of(BLOCKS_PER_GROUP) + 1,
            },
            Err(Misfit::TooLarge) => return Err(too_large(Bytes(blocks.saturating_mul(BLOCK)))),
        };
        blocks = next;
    }
}

fn too_large(size: Bytes) -> Error {
    Error::TooLarge { size, limit: Bytes(geometry::MAX_BLOCKS * BLOCK) }
}
