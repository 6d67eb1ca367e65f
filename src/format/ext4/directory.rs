//! Directory blocks: a plain list of records while one block holds them, a hash index of one or two levels above
//! that (Documentation/filesystems/ext4/directory.rst).

use super::checksum::Seed;
use super::hash::NameHash;
use super::raw::{BLOCK_LEN, put16, put32};

/// One name in a directory.
#[derive(Clone, Copy, Debug)]
pub struct Child<'a> {
    /// 1 to 255 bytes.
    pub name: &'a [u8],
    /// What it names.
    pub inode: u32,
    /// `file_type` of the record: 1 file, 2 directory, 3 and 4 devices, 5 pipe, 6 socket, 7 symbolic link.
    pub file_type: u8,
    /// The layer that gave this name.
    pub layer: u16,
    /// Set by [`Layout::plan`] for directories with an index.
    pub hash: u32,
}

/// `file_type` of a directory.
pub const DIRECTORY: u8 = 2;

/// How a directory's names are spread over its blocks.
#[derive(Clone, Debug, Default)]
pub struct Layout {
    /// Empty for a directory without index.
    leaves: Vec<Leaf>,
    /// Blocks in all.
    pub blocks: u32,
    /// Blocks the directory needs with the names of its own layer and below, and then of each layer that makes it
    /// grow: what layer by layer allocation takes.
    pub stages: Vec<(u16, u32)>,
}

#[derive(Clone, Copy, Debug)]
struct Leaf {
    first: u32,
    count: u32,
    hash: u32,
}

/// Why a directory cannot be laid out.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Refused {
    /// The child at this place has the name of the one before.
    Twice(usize),
    /// Too many names for an index of two levels.
    Large,
}

/// Checksum record at the end of each block of records: looks like an unused record.
const TAIL: usize = 12;
const TAIL_TYPE: u8 = 0xde;
/// Where records end.
const END: usize = BLOCK_LEN - TAIL;
/// `.` and `..`.
const DOTS: usize = 24;
/// Room that a leaf's names may fill at first: a fifth stays free, as e2fsck has it, so that the first new names
/// do not split every leaf.
const FILL: usize = END - END / 5;
/// Index records of the root: the block less dots, root info and checksum.
const PER_ROOT: usize = (BLOCK_LEN - DOTS - 8 - 8) / 8;
/// Index records of a node below the root.
const PER_NODE: usize = (BLOCK_LEN - 8 - 8) / 8;
/// Records such a node is given at first, a fifth less.
const NODE_FILL: usize = PER_NODE - PER_NODE / 5;

impl Layout {
    /// Spreads `children`, which this sorts. `spare` is a number of blocks the directory has at least if it needs
    /// no index.
    pub fn plan(
        children: &mut [Child<'_>],
        layer: u16,
        hash: &NameHash,
        spare: u32,
    ) -> Result<Self, Refused> {
        let size: usize = children.iter().map(record_len).sum();
        let indexed = DOTS + size > END;
        if indexed {
            for child in children.iter_mut() {
                child.hash = hash.of(child.name);
            }
        }
        children.sort_unstable_by(|a, b| (a.hash, a.name).cmp(&(b.hash, b.name)));
        if let Some(at) = children.windows(2).position(|pair| pair[0].name == pair[1].name) {
            return Err(Refused::Twice(at + 1));
        }
        if !indexed {
            return Ok(Self { leaves: Vec::new(), blocks: spare, stages: vec![(layer, spare)] });
        }

        let mut layers: Vec<u16> = children.iter().map(|child| child.layer.max(layer)).collect();
        layers.push(layer);
        layers.sort_unstable();
        layers.dedup();
        let top = layers.pop().unwrap_or(layer);
        let mut stages: Vec<(u16, u32)> = Vec::new();
        let mut most = 0;
        for stage in layers {
            let below = || children.iter().filter(move |child| child.layer <= stage);
            let size: usize = below().map(record_len).sum();
            if DOTS + size > END {
                most = most.max(pack(below()).len());
                stages.push((stage, index_blocks(most).ok_or(Refused::Large)?));
            } else {
                stages.push((stage, spare));
            }
        }
        let mut leaves = pack(children.iter());
        // More names can pack into fewer leaves; the blocks of the layers below are given out already.
        let spare = usize::try_from(spare).unwrap_or_default();
        while leaves.len() < most
            || index_blocks(leaves.len()).is_some_and(|blocks| (blocks as usize) < spare)
        {
            split_largest(&mut leaves, children);
        }
        let blocks = index_blocks(leaves.len()).ok_or(Refused::Large)?;
        stages.push((top, blocks));
        stages.dedup_by_key(|(_, blocks)| *blocks);
        Ok(Self { leaves, blocks, stages })
    }

    /// Whether the inode has to carry the index flag.
    pub fn indexed(&self) -> bool {
        !self.leaves.is_empty()
    }

    /// Block `index` of the directory `inode`, whose `..` is `parent`.
    pub fn block(
        &self,
        index: u32,
        children: &[Child<'_>],
        inode: u32,
        parent: u32,
        seed: Seed,
    ) -> [u8; BLOCK_LEN] {
        let index = index as usize;
        let nodes = index_nodes(self.leaves.len());
        match (self.indexed(), index) {
            (false, 0) => {
                let mut records = Records::new();
                records.push(b".", inode, DIRECTORY);
                records.push(b"..", parent, DIRECTORY);
                children.iter().for_each(|child| records.push(child.name, child.inode, child.file_type));
                records.finish(seed)
            }
            (false, _) => Records::new().finish(seed),
            (true, 0) => self.root(inode, parent, seed),
            (true, _) if index <= nodes => self.node(index - 1, seed),
            (true, _) => {
                let leaf = self.leaves[index - 1 - nodes];
                let mut records = Records::new();
                let names = &children[leaf.first as usize..(leaf.first + leaf.count) as usize];
                names.iter().for_each(|child| records.push(child.name, child.inode, child.file_type));
                records.finish(seed)
            }
        }
    }

    fn root(&self, inode: u32, parent: u32, seed: Seed) -> [u8; BLOCK_LEN] {
        let mut raw = [0; BLOCK_LEN];
        put_record(&mut raw, 0, 12, b".", inode, DIRECTORY);
        put_record(&mut raw, 12, BLOCK_LEN - 12, b"..", parent, DIRECTORY);
        let nodes = index_nodes(self.leaves.len());
        raw[DOTS + 4] = 1; // hash_version: half MD4, its sign is in the superblock
        raw[DOTS + 5] = 8; // info_length
        raw[DOTS + 6] = u8::from(nodes > 0); // indirect_levels
        let records: Vec<(u32, usize)> = match nodes {
            0 => self.leaves.iter().enumerate().map(|(at, leaf)| (leaf.hash, 1 + at)).collect(),
            _ => (0..nodes).map(|node| (self.leaves[self.share(node).start].hash, 1 + node)).collect(),
        };
        put_index(&mut raw, DOTS + 8, PER_ROOT, &records, seed);
        raw
    }

    fn node(&self, node: usize, seed: Seed) -> [u8; BLOCK_LEN] {
        let mut raw = [0; BLOCK_LEN];
        put16(&mut raw, 4, BLOCK_LEN as u16); // an unused record over the whole block
        let first_leaf = 1 + index_nodes(self.leaves.len());
        let share = self.share(node);
        let records: Vec<(u32, usize)> =
            share.map(|leaf| (self.leaves[leaf].hash, first_leaf + leaf)).collect();
        put_index(&mut raw, 8, PER_NODE, &records, seed);
        raw
    }

    /// The leaves under one node: all nodes get the same number, give or take one.
    fn share(&self, node: usize) -> std::ops::Range<usize> {
        let nodes = index_nodes(self.leaves.len());
        node * self.leaves.len() / nodes..(node + 1) * self.leaves.len() / nodes
    }
}

fn record_len(child: &Child<'_>) -> usize {
    (8 + child.name.len()).next_multiple_of(4)
}

/// Nodes between root and leaves.
fn index_nodes(leaves: usize) -> usize {
    if leaves <= PER_ROOT { 0 } else { leaves.div_ceil(NODE_FILL) }
}

/// Blocks of a directory with so many leaves, if there can be one.
fn index_blocks(leaves: usize) -> Option<u32> {
    let nodes = index_nodes(leaves);
    if nodes > PER_ROOT {
        return None;
    }
    u32::try_from(1 + nodes + leaves).ok()
}

/// Puts names, sorted by hash, into leaves.
fn pack<'c, 'a: 'c>(children: impl Iterator<Item = &'c Child<'a>>) -> Vec<Leaf> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut used = 0;
    let mut before = None;
    for (at, child) in children.enumerate() {
        let len = record_len(child);
        match leaves.last_mut() {
            Some(leaf) if used + len <= FILL => {
                leaf.count += 1;
                used += len;
            }
            _ => {
                let goes_on = u32::from(before == Some(child.hash));
                // A list of entries has fewer than 2³² of them, as it is in memory.
                leaves.push(Leaf { first: at as u32, count: 1, hash: child.hash | goes_on });
                used = len;
            }
        }
        before = Some(child.hash);
    }
    // The first leaf takes everything below the second.
    if let Some(first) = leaves.first_mut() {
        first.hash = 0;
    }
    leaves
}

fn split_largest(leaves: &mut Vec<Leaf>, children: &[Child<'_>]) {
    let largest = leaves.iter().enumerate().max_by_key(|(_, leaf)| leaf.count).map_or(0, |(at, _)| at);
    let leaf = leaves[largest];
    let kept = leaf.count / 2;
    let first = leaf.first + kept;
    let hash = children[first as usize].hash;
    let goes_on = u32::from(first > 0 && children[first as usize - 1].hash == hash);
    leaves[largest].count = kept;
    leaves.insert(largest + 1, Leaf { first, count: leaf.count - kept, hash: hash | goes_on });
}

/// A block of records being filled.
struct Records {
    raw: [u8; BLOCK_LEN],
    last: usize,
    end: usize,
}

impl Records {
    fn new() -> Self {
        Self { raw: [0; BLOCK_LEN], last: 0, end: 0 }
    }

    fn push(&mut self, name: &[u8], inode: u32, file_type: u8) {
        let len = (8 + name.len()).next_multiple_of(4);
        put_record(&mut self.raw, self.end, len, name, inode, file_type);
        self.last = self.end;
        self.end += len;
    }

    /// Lets the last record reach to the checksum.
    fn finish(mut self, seed: Seed) -> [u8; BLOCK_LEN] {
        put16(&mut self.raw, self.last + 4, (END - self.last) as u16);
        put16(&mut self.raw, END + 4, TAIL as u16);
        self.raw[END + 7] = TAIL_TYPE;
        let checksum = seed.over(&self.raw[..END]);
        put32(&mut self.raw, END + 8, checksum);
        self.raw
    }
}

fn put_record(raw: &mut [u8], at: usize, len: usize, name: &[u8], inode: u32, file_type: u8) {
    put32(raw, at, inode);
    put16(raw, at + 4, len as u16);
    raw[at + 6] = name.len() as u8;
    raw[at + 7] = file_type;
    raw[at + 8..at + 8 + name.len()].copy_from_slice(name);
}

/// Index records from `at` on: limit and count stand where the first record's hash would be. The checksum covers
/// the block up to the last record in use, and the tail with a zero in its place.
fn put_index(raw: &mut [u8; BLOCK_LEN], at: usize, limit: usize, records: &[(u32, usize)], seed: Seed) {
    for (slot, (hash, block)) in records.iter().enumerate() {
        put32(raw, at + 8 * slot, *hash);
        put32(raw, at + 8 * slot + 4, *block as u32);
    }
    put16(raw, at, limit as u16);
    put16(raw, at + 2, records.len() as u16);
    let checksum = seed.over_all(&[&raw[..at + 8 * records.len()], &[0; 8]]);
    put32(raw, at + 8 * limit + 4, checksum);
}
