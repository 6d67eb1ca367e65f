//! From a plan to bytes, in one pass from the first block to the last.

use super::Plan;
use super::allocate::Place;
use super::catalog::inode_number;
use super::checksum::Seed;
use super::error::{Error, Name};
use super::extent::{Extent, ROOT_LEN, Tree};
use super::inode::{self, Inode};
use super::raw::{
    BLOCK, BLOCK_LEN, BLOCKS_PER_GROUP, FIRST_INODE, FLAG_EXTENTS, FLAG_INDEX, GroupDescriptor, INODE_LEN,
    JOURNAL_INODE, MAX_LINKS, RESIZE_INODE, ROOT_INODE, SUPERBLOCK_OFFSET, Superblock, has_backup, mode,
};
use super::xattr::{self, IN_INODE};
use super::{journal, resize};
use crate::format::entry::EntryKind;
use crate::format::sink::Sink;
use crate::meta::Meta;
use std::io;

/// Something that starts at a block of its own.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Part {
    /// Superblock and descriptors, and in the first group the blocks reserved for more of them.
    Head(u32),
    BlockBitmap(u32),
    InodeBitmap(u32),
    InodeTable(u32),
    Journal,
    ResizeMap,
    /// One extent of a node, by node and place.
    Data(u32, u32),
    /// One node of an extent tree; the tree of the journal has no catalog node.
    TreeNode(u32, u32),
    JournalTreeNode(u32),
    Attributes(u32),
}

/// Writes the filesystem that `plan` describes.
pub fn write(plan: &Plan<'_>, sink: &mut impl Sink) -> Result<(), Error> {
    let mut writer = Writer { plan, sink, seed: Seed::of_filesystem(&plan.uuid) };
    let descriptors = writer.descriptors();
    for (block, part) in parts(plan) {
        let (offset, done) = writer.part(block, part, &descriptors);
        done.map_err(|source| Error::Write { what: writer.name(part), offset, source })?;
    }
    Ok(())
}

/// All parts and their blocks, in ascending order.
fn parts(plan: &Plan<'_>) -> Vec<(u64, Part)> {
    let geometry = &plan.geometry;
    let mut parts = Vec::new();
    for (group, tables) in (0..geometry.groups).zip(&geometry.tables) {
        if has_backup(group) {
            parts.push((geometry.group(group).start, Part::Head(group)));
        }
        parts.push((tables.block_bitmap, Part::BlockBitmap(group)));
        if plan.inodes_in(group) > 0 {
            parts.push((tables.inode_bitmap, Part::InodeBitmap(group)));
            parts.push((tables.inode_table, Part::InodeTable(group)));
        }
    }
    let allocation = &plan.allocation;
    parts.push((allocation.resize_map, Part::ResizeMap));
    if let Some(extent) = allocation.journal.extents.first() {
        parts.push((extent.physical, Part::Journal));
    }
    // Counts of what is in memory fit 32 bits.
    let nodes = |tree: &[u64]| tree.iter().copied().zip(0..).collect::<Vec<(u64, u32)>>();
    parts.extend(
        nodes(&allocation.journal.tree).into_iter().map(|(block, at)| (block, Part::JournalTreeNode(at))),
    );
    for (place, node) in allocation.places.iter().zip(0..) {
        parts.extend(
            place.extents.iter().zip(0..).map(|(extent, at)| (extent.physical, Part::Data(node, at))),
        );
        parts.extend(nodes(&place.tree).into_iter().map(|(block, at)| (block, Part::TreeNode(node, at))));
        parts.extend(place.attributes.map(|block| (block, Part::Attributes(node))));
    }
    parts.sort_unstable();
    parts
}

struct Writer<'w, 'a, S> {
    plan: &'w Plan<'a>,
    sink: &'w mut S,
    seed: Seed,
}

impl<S: Sink> Writer<'_, '_, S> {
    /// Writes one part; gives the offset it stands at.
    fn part(&mut self, block: u64, part: Part, descriptors: &[u8]) -> (u64, io::Result<()>) {
        let offset = block * BLOCK;
        let plan = self.plan;
        let done = match part {
            Part::Head(group) => self.head(group, offset, descriptors),
            Part::BlockBitmap(group) => self.sink.bytes(offset, &self.block_bitmap(group)),
            Part::InodeBitmap(group) => self.sink.bytes(offset, &self.inode_bitmap(group)),
            Part::InodeTable(group) => {
                let table = self.inode_table(group);
                self.sink.bytes(offset, &table)
            }
            Part::Journal => {
                let raw = journal::superblock(plan.geometry.journal_blocks, BLOCK, &plan.uuid);
                self.sink.bytes(offset, &raw)
            }
            Part::ResizeMap => self.sink.bytes(offset, &resize::map(&plan.geometry)),
            Part::Data(node, at) => self.data(node as usize, at as usize),
            Part::TreeNode(node, at) => {
                let node = node as usize;
                let raw = tree(&plan.allocation.places[node]).node(at as usize, self.inode_seed(node));
                self.sink.bytes(offset, &raw)
            }
            Part::JournalTreeNode(at) => {
                let seed = self.seed.of_inode(JOURNAL_INODE, 0);
                self.sink.bytes(offset, &tree(&plan.allocation.journal).node(at as usize, seed))
            }
            Part::Attributes(node) => self.attributes(node as usize, block),
        };
        (offset, done)
    }

    fn name(&self, part: Part) -> Name {
        match part {
            Part::Data(node, _) | Part::TreeNode(node, _) | Part::Attributes(node) => {
                self.plan.catalog.path(node as usize)
            }
            Part::Head(_) => "superblock and group descriptors".into(),
            Part::BlockBitmap(_) | Part::InodeBitmap(_) => "bitmap".into(),
            Part::InodeTable(_) => "inode table".into(),
            Part::Journal | Part::JournalTreeNode(_) => "journal".into(),
            Part::ResizeMap => "resize inode".into(),
        }
    }

    fn inode_seed(&self, node: usize) -> Seed {
        self.seed.of_inode(inode_number(node), 0)
    }

    fn head(&mut self, group: u32, offset: u64, descriptors: &[u8]) -> io::Result<()> {
        let plan = self.plan;
        // The first group starts with room for a boot sector.
        let superblock_at = if group == 0 { SUPERBLOCK_OFFSET } else { offset };
        self.sink.bytes(superblock_at, &superblock(plan).encode(group as u16))?;
        self.sink.bytes(offset + BLOCK, descriptors)?;
        if group == 0 {
            let first = 1 + plan.geometry.descriptor_blocks;
            for reserved in 0..plan.geometry.reserved_descriptor_blocks {
                let raw = resize::reserved(&plan.geometry, reserved);
                self.sink.bytes((first + reserved) * BLOCK, &raw)?;
            }
        }
        Ok(())
    }

    /// The descriptors of all groups.
    fn descriptors(&self) -> Vec<u8> {
        let plan = self.plan;
        let geometry = &plan.geometry;
        let mut raw = Vec::new();
        for (group, tables) in (0..geometry.groups).zip(&geometry.tables) {
            let inodes = plan.inodes_in(group);
            let block_bitmap = self.block_bitmap(group);
            let ones: u32 = block_bitmap.iter().map(|byte| byte.count_ones()).sum();
            let mut descriptor = GroupDescriptor {
                block_bitmap: tables.block_bitmap,
                inode_bitmap: tables.inode_bitmap,
                inode_table: tables.inode_table,
                free_blocks: BLOCKS_PER_GROUP as u32 - ones,
                free_inodes: geometry.inodes_per_group - inodes,
                directories: plan.directories_in(group),
                unused_inodes: geometry.inodes_per_group - inodes,
                flags: GroupDescriptor::INODE_ZEROED,
                block_bitmap_checksum: self.seed.over(&block_bitmap),
                inode_bitmap_checksum: 0,
            };
            if inodes == 0 {
                descriptor.flags |= GroupDescriptor::INODE_UNINIT;
            } else {
                // Only the bits that stand for inodes are covered.
                let bits = geometry.inodes_per_group as usize / 8;
                descriptor.inode_bitmap_checksum = self.seed.over(&self.inode_bitmap(group)[..bits]);
            }
            raw.extend_from_slice(&descriptor.encode(self.seed, group));
        }
        raw
    }

    fn block_bitmap(&self, group: u32) -> [u8; BLOCK_LEN] {
        let mut raw = [0; BLOCK_LEN];
        let span = self.plan.geometry.group(group);
        let used = &self.plan.allocation.used;
        let first = used.partition_point(|run| run.end() <= span.start);
        for run in used[first..].iter().take_while(|run| run.start < span.end()) {
            let from = run.start.max(span.start) - span.start;
            let to = run.end().min(span.end()) - span.start;
            set_bits(&mut raw, from as usize, to as usize);
        }
        // Blocks past the end of the filesystem count as used.
        set_bits(&mut raw, span.len as usize, BLOCKS_PER_GROUP as usize);
        raw
    }

    fn inode_bitmap(&self, group: u32) -> [u8; BLOCK_LEN] {
        let mut raw = [0; BLOCK_LEN];
        set_bits(&mut raw, 0, self.plan.inodes_in(group) as usize);
        set_bits(&mut raw, self.plan.geometry.inodes_per_group as usize, 8 * BLOCK_LEN);
        raw
    }

    /// The inodes in use of one group; those after them were never used and are zeros.
    fn inode_table(&self, group: u32) -> Vec<u8> {
        let first = group * self.plan.geometry.inodes_per_group + 1;
        let mut raw = Vec::with_capacity(self.plan.inodes_in(group) as usize * INODE_LEN);
        for number in first..first + self.plan.inodes_in(group) {
            raw.extend_from_slice(&self.inode(number));
        }
        raw
    }

    fn inode(&self, number: u32) -> [u8; INODE_LEN] {
        let plan = self.plan;
        let inode = match number {
            ROOT_INODE => self.node(super::catalog::ROOT),
            RESIZE_INODE => resize::inode(&plan.geometry, plan.allocation.resize_map, plan.time),
            JOURNAL_INODE if plan.geometry.journal_blocks > 0 => {
                let place = &plan.allocation.journal;
                let size = plan.geometry.journal_blocks * BLOCK;
                Inode::reserved(size, plan.time, place.blocks(), tree(place).root(), FLAG_EXTENTS)
            }
            0..FIRST_INODE => return inode::unused(number, self.seed),
            _ => self.node((number - FIRST_INODE) as usize + super::catalog::LOST_AND_FOUND),
        };
        inode.encode(number, self.seed)
    }

    fn node(&self, at: usize) -> Inode {
        let plan = self.plan;
        let node = &plan.catalog.nodes[at];
        let place = &plan.allocation.places[at];
        let made;
        let (meta, kind) = match node.entry {
            Some(entry) => {
                let entry = &plan.catalog.entries[entry as usize];
                (&entry.meta, &entry.kind)
            }
            None => {
                made = Meta::root(0o700, plan.time);
                (&made, &EntryKind::Directory)
            }
        };
        let mut flags = 0;
        let mut map = [0; ROOT_LEN];
        let mut size = 0;
        let format = match kind {
            EntryKind::Directory => {
                let directory = node.directory.map(|at| &plan.catalog.directories[at as usize]);
                if let Some(directory) = directory {
                    size = u64::from(directory.layout.blocks) * BLOCK;
                    flags |= if directory.layout.indexed() { FLAG_INDEX } else { 0 };
                }
                mode::DIRECTORY
            }
            EntryKind::File(content) => {
                size = content.len();
                mode::FILE
            }
            EntryKind::Symlink(target) => {
                size = target.len() as u64;
                mode::SYMLINK
            }
            EntryKind::CharDevice(_) => mode::CHAR,
            EntryKind::BlockDevice(_) => mode::BLOCK,
            EntryKind::Fifo => mode::FIFO,
            // The catalog has no node for a hard link.
            EntryKind::Socket | EntryKind::HardLink(_) => mode::SOCKET,
        };
        match kind {
            EntryKind::CharDevice(device) | EntryKind::BlockDevice(device) => {
                map = inode::device_map(*device).unwrap_or(map);
            }
            EntryKind::Symlink(target) if target.len() <= inode::MAX_FAST_TARGET => {
                map = inode::target_map(target);
            }
            EntryKind::Directory | EntryKind::File(_) | EntryKind::Symlink(_) => {
                map = tree(place).root();
                flags |= FLAG_EXTENTS;
            }
            EntryKind::Fifo | EntryKind::Socket | EntryKind::HardLink(_) => {}
        }
        // A directory with more links than can be counted has 1 (`dir_nlink`).
        let links = if node.links > MAX_LINKS { 1 } else { node.links as u16 };
        Inode {
            mode: format | meta.mode & 0o7777,
            uid: meta.uid,
            gid: meta.gid,
            size,
            time: meta.mtime,
            links,
            blocks: place.blocks(),
            flags,
            map,
            attribute_block: place.attributes.unwrap_or(0),
            attributes: match xattr::encode(&meta.xattrs) {
                Ok(encoded) => encoded.inode,
                // The catalog has encoded them before.
                Err(_) => [0; IN_INODE],
            },
        }
    }

    fn attributes(&mut self, node: usize, block: u64) -> io::Result<()> {
        let catalog = &self.plan.catalog;
        let entry = catalog.nodes[node].entry.map(|entry| &catalog.entries[entry as usize]);
        let encoded = entry.and_then(|entry| xattr::encode(&entry.meta.xattrs).ok());
        match encoded.and_then(|encoded| encoded.block) {
            Some(mut raw) => {
                xattr::seal(&mut raw, block, self.seed);
                self.sink.bytes(block * BLOCK, &raw[..])
            }
            None => Ok(()),
        }
    }

    fn data(&mut self, node: usize, at: usize) -> io::Result<()> {
        let plan = self.plan;
        let extent = plan.allocation.places[node].extents[at];
        let offset = extent.physical * BLOCK;
        let Some(entry) = plan.catalog.nodes[node].entry else {
            return self.directory(node, extent);
        };
        match &plan.catalog.entries[entry as usize].kind {
            EntryKind::Directory => self.directory(node, extent),
            EntryKind::File(content) => {
                let from = u64::from(extent.logical) * BLOCK;
                let to = (extent.logical_end() * BLOCK).min(content.len());
                self.sink.copy(offset, content, from, to.saturating_sub(from))
            }
            EntryKind::Symlink(target) => self.sink.bytes(offset, target),
            _ => Ok(()),
        }
    }

    fn directory(&mut self, node: usize, extent: Extent) -> io::Result<()> {
        let catalog = &self.plan.catalog;
        let Some(at) = catalog.nodes[node].directory else { return Ok(()) };
        let directory = &catalog.directories[at as usize];
        let own = inode_number(node);
        let above = inode_number(catalog.directories[directory.parent as usize].node as usize);
        let seed = self.inode_seed(node);
        for index in 0..extent.len {
            let raw = directory.layout.block(extent.logical + index, &directory.children, own, above, seed);
            self.sink.bytes((extent.physical + u64::from(index)) * BLOCK, &raw)?;
        }
        Ok(())
    }
}

fn tree(place: &Place) -> Tree<'_> {
    Tree { extents: &place.extents, nodes: &place.tree }
}

fn superblock(plan: &Plan<'_>) -> Superblock {
    let geometry = &plan.geometry;
    let journal = (geometry.journal_blocks > 0)
        .then(|| (tree(&plan.allocation.journal).root(), geometry.journal_blocks * BLOCK));
    let metadata: u64 = geometry.metadata.iter().map(|run| run.len).sum();
    Superblock {
        // Geometry counts fit 32 bits: at most 2¹⁷ groups of 2¹⁵ inodes, less the one the limit of blocks takes.
        inodes: geometry.inodes().min(u64::from(u32::MAX)) as u32,
        blocks: geometry.blocks,
        reserved_blocks: plan.reserved_blocks,
        free_blocks: plan.free_blocks(),
        free_inodes: (geometry.inodes() - plan.catalog.inodes()) as u32,
        inodes_per_group: geometry.inodes_per_group,
        reserved_descriptor_blocks: geometry.reserved_descriptor_blocks as u16,
        overhead: (metadata + geometry.journal_blocks) as u32,
        time: plan.time.seconds as u64,
        uuid: plan.uuid,
        label: plan.label,
        hash_seed: plan.hash_seed,
        journal,
    }
}

fn set_bits(bitmap: &mut [u8], from: usize, to: usize) {
    let mut bit = from;
    while bit < to {
        if bit.is_multiple_of(8) && to - bit >= 8 {
            let whole = (to - bit) / 8;
            bitmap[bit / 8..bit / 8 + whole].fill(0xff);
            bit += whole * 8;
        } else {
            bitmap[bit / 8] |= 1 << (bit % 8);
            bit += 1;
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn any_range_of_bits_can_be_set() {
        for from in 0..40 {
            for to in from..40 {
                let mut bitmap = [0; 5];
                set_bits(&mut bitmap, from, to);
                let set: Vec<usize> = (0..40).filter(|bit| bitmap[bit / 8] >> (bit % 8) & 1 == 1).collect();
                assert_eq!(set, (from..to).collect::<Vec<_>>());
            }
        }
    }
}
