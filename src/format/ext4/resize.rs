//! The resize inode: it holds the blocks after the group descriptors, so that `resize2fs` and the kernel can give the
//! descriptors more blocks while the filesystem is mounted (Documentation/filesystems/ext4/special_inodes.rst;
//! `verify_reserved_gdb` in `fs/ext4/resize.c` checks every number here).
//!
//! Its map is of the old kind: the doubly indirect block lists the reserved blocks of the first group, and each of
//! those, taken as an indirect block, lists its counterparts in the groups with copies.

use super::geometry::Geometry;
use super::inode::{Inode, MAP_LEN};
use super::raw::{ADDRESSES_PER_BLOCK, BLOCK, BLOCK_LEN, BLOCKS_PER_GROUP, has_backup, put32};
use crate::meta::Timestamp;

/// `EXT2_DIND_BLOCK`: the place of the doubly indirect block in `i_block`.
const DOUBLY_INDIRECT: usize = 13;
const DIRECT_BLOCKS: u64 = 12;

/// The inode, with its map at block `map`.
pub fn inode(geometry: &Geometry, map: u64, time: Timestamp) -> Inode {
    let mut block_map = [0; MAP_LEN];
    put32(&mut block_map, DOUBLY_INDIRECT * 4, map as u32);
    // As if the doubly indirect block were full.
    let size = (ADDRESSES_PER_BLOCK * ADDRESSES_PER_BLOCK + ADDRESSES_PER_BLOCK + DIRECT_BLOCKS) * BLOCK;
    let copies = 1 + backups(geometry).count() as u64;
    let blocks = 1 + geometry.reserved_descriptor_blocks * copies;
    Inode::reserved(size, time, blocks, block_map, 0)
}

/// The doubly indirect block. The place in it is that of the descriptor block that a reserved block is for.
pub fn map(geometry: &Geometry) -> [u8; BLOCK_LEN] {
    let mut raw = [0; BLOCK_LEN];
    for reserved in 0..geometry.reserved_descriptor_blocks {
        let descriptor = geometry.descriptor_blocks + reserved;
        put32(&mut raw, (descriptor % ADDRESSES_PER_BLOCK) as usize * 4, (1 + descriptor) as u32);
    }
    raw
}

/// The first group's reserved block number `reserved`.
pub fn reserved(geometry: &Geometry, reserved: u64) -> [u8; BLOCK_LEN] {
    let mut raw = [0; BLOCK_LEN];
    let own = 1 + geometry.descriptor_blocks + reserved;
    // Fewer than 40 groups have a copy below 2³² blocks, and a block has room for 1,024.
    for (slot, group) in backups(geometry).enumerate() {
        put32(&mut raw, slot * 4, (own + u64::from(group) * BLOCKS_PER_GROUP) as u32);
    }
    raw
}

fn backups(geometry: &Geometry) -> impl Iterator<Item = u32> {
    (1..geometry.groups).filter(|group| has_backup(*group))
}
