//! What follows from a filesystem's size alone: groups, inode tables, bitmaps, copies of the superblock.
//! The rules are those of mke2fs, so that its tools find nothing unusual.

use super::raw::{
    ADDRESSES_PER_BLOCK, BLOCK, BLOCKS_PER_GROUP, DESCRIPTORS_PER_BLOCK, GROUPS_PER_FLEX, INODE_LEN,
    INODES_PER_BLOCK, MAX_INODES_PER_GROUP, has_backup,
};
use super::{InodeCount, Journal};

/// A run of blocks.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Run {
    /// First block.
    pub start: u64,
    /// Number of blocks.
    pub len: u64,
}

impl Run {
    /// The block after the last.
    pub fn end(&self) -> u64 {
        self.start + self.len
    }
}

/// Where one group's bitmaps and inode table are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Tables {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
}

/// The frame of a filesystem.
#[derive(Clone, Debug)]
pub struct Geometry {
    /// Blocks. May be fewer than asked for: a last group too small for its own tables is left out.
    pub blocks: u64,
    /// Groups.
    pub groups: u32,
    /// Inodes in each group.
    pub inodes_per_group: u32,
    /// Blocks of group descriptors.
    pub descriptor_blocks: u64,
    /// Blocks after them, kept for the descriptors of groups to come.
    pub reserved_descriptor_blocks: u64,
    /// Blocks of journal; zero for none.
    pub journal_blocks: u64,
    /// For each group.
    pub tables: Vec<Tables>,
    /// All blocks that the frame takes, sorted, apart.
    pub metadata: Vec<Run>,
}

/// Why there is no such geometry.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Misfit {
    /// Too few blocks; the number may be enough, and nothing below it is.
    Blocks(u64),
    /// The parameters give only so many inodes.
    Inodes(u64),
    /// More blocks than can be written.
    TooLarge,
}

/// Most blocks of a filesystem written here: their numbers fit 32 bits.
pub const MAX_BLOCKS: u64 = (1 << 32) - 1;
/// What mke2fs wants free in a last group besides its tables.
const LAST_GROUP_SLACK: u64 = 50;
/// mke2fs keeps room for descriptors of a filesystem this many times larger.
const GROWTH: u64 = 1024;
/// mke2fs's default, one inode for so many bytes.
const BYTES_PER_INODE: u64 = 16384;
/// When [`InodeCount::Auto`] has to give more, it gives multiples of this many a group, so that a few files
/// more or less do not move everything.
const AUTO_STEP: u32 = 512;

impl Geometry {
    /// The frame of a filesystem of `blocks` blocks with at least `inodes` inodes, reserved ones included.
    pub fn new(blocks: u64, inodes: u64, count: InodeCount, journal: Journal) -> Result<Self, Misfit> {
        if blocks > MAX_BLOCKS {
            return Err(Misfit::TooLarge);
        }
        let groups = blocks.div_ceil(BLOCKS_PER_GROUP);
        let last = blocks - groups.saturating_sub(1) * BLOCKS_PER_GROUP;
        let inodes_per_group = inodes_per_group(blocks, groups, inodes, count)?;
        let mut geometry = Self {
            blocks,
            // At most 2³² / 2¹⁵.
            groups: groups as u32,
            inodes_per_group,
            descriptor_blocks: groups.div_ceil(DESCRIPTORS_PER_BLOCK),
            reserved_descriptor_blocks: reserved_descriptor_blocks(blocks, groups),
            journal_blocks: journal_blocks(blocks, journal),
            tables: Vec::new(),
            metadata: Vec::new(),
        };
        let needed =
            geometry.head(geometry.groups.saturating_sub(1)) + 2 + geometry.table_blocks() + LAST_GROUP_SLACK;
        if last < needed {
            if groups <= 1 {
                return Err(Misfit::Blocks(needed));
            }
            return match Self::new((groups - 1) * BLOCKS_PER_GROUP, inodes, count, journal) {
                // What does not fit without the last group may fit as soon as there is one.
                Err(Misfit::Blocks(_)) => Err(Misfit::Blocks(blocks - last + needed)),
                other => other,
            };
        }
        geometry.place_tables().ok_or(Misfit::Blocks(blocks + 1))?;
        Ok(geometry)
    }

    /// The next larger size that gives the filesystem another block, for a size whose end was left out.
    pub fn next_size(&self) -> u64 {
        if !self.blocks.is_multiple_of(BLOCKS_PER_GROUP) {
            return self.blocks + 1;
        }
        // The head may grow by a block of descriptors: then the next try says so.
        let table = 2 + self.table_blocks() + LAST_GROUP_SLACK;
        self.blocks + self.head(self.groups) + table
    }

    /// Blocks of one group's inode table.
    pub fn table_blocks(&self) -> u64 {
        u64::from(self.inodes_per_group / INODES_PER_BLOCK)
    }

    /// Blocks at the start of a group for superblock, descriptors and the reserve; zero in most groups.
    pub fn head(&self, group: u32) -> u64 {
        if has_backup(group) { 1 + self.descriptor_blocks + self.reserved_descriptor_blocks } else { 0 }
    }

    /// How many blocks are missing for `wanted` blocks besides the frame and the journal.
    pub fn missing(&self, wanted: u64) -> u64 {
        let metadata: u64 = self.metadata.iter().map(|run| run.len).sum();
        wanted.saturating_add(metadata + self.journal_blocks).saturating_sub(self.blocks)
    }

    /// All inodes.
    pub fn inodes(&self) -> u64 {
        u64::from(self.groups) * u64::from(self.inodes_per_group)
    }

    /// The blocks of a group.
    pub fn group(&self, group: u32) -> Run {
        let start = u64::from(group) * BLOCKS_PER_GROUP;
        Run { start, len: self.blocks.saturating_sub(start).min(BLOCKS_PER_GROUP) }
    }

    /// Puts the tables of every sixteen groups together at the start of the first: all block bitmaps, then all
    /// inode bitmaps, then the inode tables. `None` when they do not fit.
    fn place_tables(&mut self) -> Option<()> {
        let all: Vec<u32> = (0..self.groups).collect();
        let mut runs = Vec::new();
        let mut tables = Vec::new();
        for group in all.iter().filter(|group| has_backup(**group)) {
            runs.push(Run { start: self.group(*group).start, len: self.head(*group) });
        }
        for flex in all.chunks(GROUPS_PER_FLEX as usize) {
            let mut cursor = self.group(flex[0]).start;
            let mut place = |len| {
                let run = self.fit(cursor, len)?;
                cursor = run.end();
                runs.push(run);
                Some(run.start)
            };
            let block_bitmaps = flex.iter().map(|_| place(1)).collect::<Option<Vec<u64>>>()?;
            let inode_bitmaps = flex.iter().map(|_| place(1)).collect::<Option<Vec<u64>>>()?;
            let table_blocks = self.table_blocks();
            for (block_bitmap, inode_bitmap) in block_bitmaps.into_iter().zip(inode_bitmaps) {
                let inode_table = place(table_blocks)?;
                tables.push(Tables { block_bitmap, inode_bitmap, inode_table });
            }
        }
        runs.sort_unstable();
        self.metadata = merge(runs);
        self.tables = tables;
        Some(())
    }

    /// The first `len` blocks in a row from `cursor` on that no head is in the way of. `len` is less than a group.
    fn fit(&self, mut cursor: u64, len: u64) -> Option<Run> {
        loop {
            // Block numbers fit 32 bits.
            let group = (cursor / BLOCKS_PER_GROUP) as u32;
            let next = self.group(group).start + BLOCKS_PER_GROUP;
            cursor = cursor.max(self.group(group).start + self.head(group));
            if cursor + len > self.blocks {
                return None;
            }
            if cursor + len <= next || !has_backup(group + 1) {
                return Some(Run { start: cursor, len });
            }
            cursor = next;
        }
    }
}

/// Joins neighbours in a sorted list.
pub fn merge(runs: impl IntoIterator<Item = Run>) -> Vec<Run> {
    let mut merged: Vec<Run> = Vec::new();
    for run in runs {
        match merged.last_mut() {
            Some(last) if last.end() == run.start => last.len += run.len,
            _ => merged.push(run),
        }
    }
    merged
}

/// A whole number of blocks of inodes. In a filesystem of several groups the ratio alone decides, so that sizes
/// which differ a little have the same tables at the same places.
fn inodes_per_group(blocks: u64, groups: u64, inodes: u64, count: InodeCount) -> Result<u32, Misfit> {
    // Inode numbers have 32 bits.
    let in_all = u64::from(u32::MAX) / groups.max(1);
    let most = u64::from(MAX_INODES_PER_GROUP).min(in_all - in_all % u64::from(INODES_PER_BLOCK));
    let span = if groups <= 1 { blocks } else { BLOCKS_PER_GROUP };
    let by_ratio = |ratio: u64| {
        let wanted = (span * BLOCK).div_ceil(ratio.max(INODE_LEN as u64));
        wanted.next_multiple_of(u64::from(INODES_PER_BLOCK)).clamp(16, most)
    };
    let groups = groups.max(1);
    let given = match count {
        InodeCount::PerBytes(ratio) => by_ratio(ratio),
        InodeCount::Auto => {
            // An eighth more than needed: the device will make files of its own.
            let wanted = (inodes + inodes / 8).div_ceil(groups);
            let by_ratio = by_ratio(BYTES_PER_INODE);
            let given = if wanted <= by_ratio {
                by_ratio
            } else {
                wanted.next_multiple_of(u64::from(AUTO_STEP)).min(most)
            };
            if given * groups < inodes {
                return Err(Misfit::Blocks(inodes.div_ceil(most).saturating_sub(1) * BLOCKS_PER_GROUP + 1));
            }
            given
        }
    };
    if given * groups < inodes {
        return Err(Misfit::Inodes(given * groups));
    }
    // At most `MAX_INODES_PER_GROUP`.
    Ok(given as u32)
}

fn reserved_descriptor_blocks(blocks: u64, groups: u64) -> u64 {
    let grown = blocks.saturating_mul(GROWTH).min(MAX_BLOCKS);
    let all = grown.div_ceil(BLOCKS_PER_GROUP).div_ceil(DESCRIPTORS_PER_BLOCK);
    all.saturating_sub(groups.div_ceil(DESCRIPTORS_PER_BLOCK)).min(ADDRESSES_PER_BLOCK)
}

/// The sizes mke2fs gives a journal.
fn journal_blocks(blocks: u64, journal: Journal) -> u64 {
    match journal {
        Journal::None => 0,
        Journal::Blocks(blocks) => u64::from(blocks),
        Journal::Auto => match blocks {
            0..2048 => 0,
            2048..32_768 => 1024,
            32_768..262_144 => 4096,
            262_144..524_288 => 8192,
            524_288..4_194_304 => 16_384,
            4_194_304..8_388_608 => 32_768,
            8_388_608..16_777_216 => 65_536,
            16_777_216..33_554_432 => 131_072,
            _ => 262_144,
        },
    }
}
