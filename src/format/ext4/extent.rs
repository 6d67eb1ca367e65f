//! Extents: which blocks of the filesystem hold which blocks of a file, and the tree that says so on disk
//! (Documentation/filesystems/ext4/ifork.rst).
//!
//! The tree is packed full, from the leaves up, so where every node stands follows from the number of extents.

use super::checksum::Seed;
use super::raw::{BLOCK_LEN, put16, put32};

/// A run of blocks of one file that lie side by side.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Extent {
    /// First block, counted in the file.
    pub logical: u32,
    /// First block, counted in the filesystem.
    pub physical: u64,
    /// Blocks, 1 to [`MAX_LEN`].
    pub len: u32,
}

impl Extent {
    /// The block of the file after this run.
    pub fn logical_end(&self) -> u64 {
        u64::from(self.logical) + u64::from(self.len)
    }

    /// The block of the filesystem after this run.
    pub fn physical_end(&self) -> u64 {
        self.physical + u64::from(self.len)
    }
}

/// Longest initialised extent (`EXT_INIT_MAX_LEN`).
pub const MAX_LEN: u32 = 1 << 15;
/// Bytes of `i_block`.
pub const ROOT_LEN: usize = 60;

const MAGIC: u16 = 0xf30a;
const HEADER: usize = 12;
const RECORD: usize = 12;
const PER_ROOT: usize = (ROOT_LEN - HEADER) / RECORD;
/// One record less than would fit: the checksum stands after the last.
const PER_NODE: usize = (BLOCK_LEN - HEADER - 4) / RECORD;

/// How many blocks of tree a file with so many extents needs besides its inode.
pub fn tree_blocks(extents: usize) -> usize {
    levels(extents).iter().sum()
}

/// Number of nodes in each level outside the inode, leaves first.
fn levels(extents: usize) -> Vec<usize> {
    let mut levels = Vec::new();
    let mut records = extents;
    while records > PER_ROOT {
        records = records.div_ceil(PER_NODE);
        levels.push(records);
    }
    levels
}

/// The tree of one file: its extents, and where the nodes of the tree are, leaves first.
pub struct Tree<'a> {
    /// In order of [`Extent::logical`].
    pub extents: &'a [Extent],
    /// As many as [`tree_blocks`] says.
    pub nodes: &'a [u64],
}

impl Tree<'_> {
    /// `i_block`.
    pub fn root(&self) -> [u8; ROOT_LEN] {
        let mut raw = [0; ROOT_LEN];
        let depth = levels(self.extents.len()).len();
        self.fill(&mut raw, depth, 0, usize::MAX, PER_ROOT);
        raw
    }

    /// Node `index` of [`Tree::nodes`].
    pub fn node(&self, index: usize, seed: Seed) -> [u8; BLOCK_LEN] {
        let mut raw = [0; BLOCK_LEN];
        let mut first_of_level = 0;
        for (depth, count) in levels(self.extents.len()).into_iter().enumerate() {
            if index < first_of_level + count {
                self.fill(&mut raw, depth, (index - first_of_level) * PER_NODE, PER_NODE, PER_NODE);
                break;
            }
            first_of_level += count;
        }
        let tail = HEADER + PER_NODE * RECORD;
        let checksum = seed.over(&raw[..tail]);
        put32(&mut raw, tail, checksum);
        raw
    }

    /// Writes at most `limit` records of level `depth`, from record `first` of that level on. Records of level 0
    /// are extents; those above point to the nodes of the level below.
    fn fill(&self, raw: &mut [u8], depth: usize, first: usize, limit: usize, capacity: usize) {
        let levels = levels(self.extents.len());
        let records = if depth == 0 { self.extents.len() } else { levels[depth - 1] };
        let count = records.saturating_sub(first).min(limit);
        put16(raw, 0, MAGIC);
        put16(raw, 2, count as u16);
        put16(raw, 4, capacity as u16);
        put16(raw, 6, depth as u16);
        let nodes_below: usize = levels.iter().take(depth.saturating_sub(1)).sum();
        for (slot, record) in (first..first + count).enumerate() {
            let at = HEADER + slot * RECORD;
            if depth == 0 {
                let extent = self.extents[record];
                put32(raw, at, extent.logical);
                put16(raw, at + 4, extent.len as u16);
                put16(raw, at + 6, (extent.physical >> 32) as u16);
                put32(raw, at + 8, extent.physical as u32);
            } else {
                let node = self.nodes[nodes_below + record];
                put32(raw, at, self.extents[record * PER_NODE.pow(depth as u32)].logical);
                put32(raw, at + 4, node as u32);
                put16(raw, at + 8, (node >> 32) as u16);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_tree_grows_a_level_where_the_records_run_out() {
        for (extents, blocks) in [
            (0, 0),
            (4, 0),
            (5, 1),
            (340, 1),
            (341, 2),
            (4 * 340, 4),
            (4 * 340 + 1, 5 + 1),
            (340 * 340, 340 + 1),
            (4 * 340 * 340, 4 * 340 + 4),
            (4 * 340 * 340 + 1, 4 * 340 + 1 + 5 + 1),
        ] {
            assert_eq!(tree_blocks(extents), blocks, "{extents}");
        }
    }
}
