//! The structures on disk, field by field, under the names of the kernel's documentation
//! (Documentation/filesystems/ext4; `fs/ext4/ext4.h`). All integers are little-endian.

use super::checksum::Seed;

/// Bytes in a block. The only size written: it is the page size of every kernel these images are for.
pub const BLOCK: u64 = 4096;
/// The same as a length in memory.
pub const BLOCK_LEN: usize = BLOCK as usize;
/// Blocks in a group: as many as one block of bitmap has bits.
pub const BLOCKS_PER_GROUP: u64 = 8 * BLOCK;
/// Groups whose bitmaps and inode tables lie together, as mke2fs has it.
pub const GROUPS_PER_FLEX: u32 = 16;
/// Bytes in an inode.
pub const INODE_LEN: usize = 256;
/// Inodes in a block.
pub const INODES_PER_BLOCK: u32 = (BLOCK_LEN / INODE_LEN) as u32;
/// Most inodes a group can have: the bits of its bitmap.
pub const MAX_INODES_PER_GROUP: u32 = 8 * BLOCK_LEN as u32;
/// Bytes in a group descriptor with the feature 64bit.
pub const DESCRIPTOR_LEN: usize = 64;
/// Group descriptors in a block.
pub const DESCRIPTORS_PER_BLOCK: u64 = BLOCK / DESCRIPTOR_LEN as u64;
/// Block numbers in a block of the old block map.
pub const ADDRESSES_PER_BLOCK: u64 = BLOCK / 4;
/// Where the superblock starts in the filesystem, in bytes.
pub const SUPERBLOCK_OFFSET: u64 = 1024;
/// Bytes of a superblock.
pub const SUPERBLOCK_LEN: usize = 1024;
/// Extra bytes of an inode that are in use: up to and with `i_projid`.
pub const EXTRA_ISIZE: u16 = 32;

/// The root directory.
pub const ROOT_INODE: u32 = 2;
/// Holds the blocks set aside for group descriptors to come.
pub const RESIZE_INODE: u32 = 7;
/// Holds the journal.
pub const JOURNAL_INODE: u32 = 8;
/// The first inode that is not reserved; `lost+found`, as with mke2fs.
pub const FIRST_INODE: u32 = 11;

/// Most names an inode may have (`EXT4_LINK_MAX`).
pub const MAX_LINKS: u32 = 65_000;

/// `EXT4_EXTENTS_FL`: the inode maps its blocks by extents.
pub const FLAG_EXTENTS: u32 = 0x8_0000;
/// `EXT4_INDEX_FL`: the directory has a hash index.
pub const FLAG_INDEX: u32 = 0x1000;

/// `S_IFMT` values of `i_mode`.
pub mod mode {
    /// Named pipe.
    pub const FIFO: u16 = 0x1000;
    /// Character device.
    pub const CHAR: u16 = 0x2000;
    /// Directory.
    pub const DIRECTORY: u16 = 0x4000;
    /// Block device.
    pub const BLOCK: u16 = 0x6000;
    /// Regular file.
    pub const FILE: u16 = 0x8000;
    /// Symbolic link.
    pub const SYMLINK: u16 = 0xa000;
    /// Socket.
    pub const SOCKET: u16 = 0xc000;
}

/// Features, by the name mke2fs and dumpe2fs give them.
pub mod feature {
    /// `has_journal` (compatible).
    pub const HAS_JOURNAL: u32 = 0x4;
    /// `ext_attr` (compatible).
    pub const EXT_ATTR: u32 = 0x8;
    /// `resize_inode` (compatible).
    pub const RESIZE_INODE: u32 = 0x10;
    /// `dir_index` (compatible).
    pub const DIR_INDEX: u32 = 0x20;
    /// `filetype` (incompatible).
    pub const FILETYPE: u32 = 0x2;
    /// `extent` (incompatible).
    pub const EXTENT: u32 = 0x40;
    /// `64bit` (incompatible).
    pub const BIT64: u32 = 0x80;
    /// `flex_bg` (incompatible).
    pub const FLEX_BG: u32 = 0x200;
    /// `sparse_super` (read-only compatible).
    pub const SPARSE_SUPER: u32 = 0x1;
    /// `large_file` (read-only compatible).
    pub const LARGE_FILE: u32 = 0x2;
    /// `huge_file` (read-only compatible).
    pub const HUGE_FILE: u32 = 0x8;
    /// `dir_nlink` (read-only compatible).
    pub const DIR_NLINK: u32 = 0x20;
    /// `extra_isize` (read-only compatible).
    pub const EXTRA_ISIZE: u32 = 0x40;
    /// `metadata_csum` (read-only compatible).
    pub const METADATA_CSUM: u32 = 0x400;
}

/// Writes a 16-bit field.
pub fn put16(bytes: &mut [u8], at: usize, value: u16) {
    bytes[at..at + 2].copy_from_slice(&value.to_le_bytes());
}

/// Writes a 32-bit field.
pub fn put32(bytes: &mut [u8], at: usize, value: u32) {
    bytes[at..at + 4].copy_from_slice(&value.to_le_bytes());
}

/// Writes a 64-bit number as a low and a high 32-bit field.
pub fn put_split(bytes: &mut [u8], low: usize, high: usize, value: u64) {
    put32(bytes, low, value as u32);
    put32(bytes, high, (value >> 32) as u32);
}

/// Whether a group holds a copy of the superblock and the descriptors (`sparse_super`): 0, 1 and the powers of
/// 3, 5 and 7.
pub fn has_backup(group: u32) -> bool {
    let is_power_of = |base: u32| {
        let mut rest = group;
        while rest > 1 && rest.is_multiple_of(base) {
            rest /= base;
        }
        rest == 1
    };
    group <= 1 || [3, 5, 7].into_iter().any(is_power_of)
}

/// What of a superblock is not the same in every filesystem written here.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// All inodes, used or not.
    pub inodes: u32,
    /// All blocks.
    pub blocks: u64,
    /// Blocks only root may use.
    pub reserved_blocks: u64,
    /// Blocks not in use.
    pub free_blocks: u64,
    /// Inodes not in use.
    pub free_inodes: u32,
    /// Inodes in each group.
    pub inodes_per_group: u32,
    /// Blocks after the descriptors, kept for more descriptors.
    pub reserved_descriptor_blocks: u16,
    /// Blocks of metadata and journal, which `statfs` does not count as part of the filesystem's size.
    pub overhead: u32,
    /// When it was made, written and checked: seconds since 1970, 40 bits.
    pub time: u64,
    /// Volume UUID.
    pub uuid: [u8; 16],
    /// Volume label, filled up with zeros.
    pub label: [u8; 16],
    /// Seed of the name hash.
    pub hash_seed: [u8; 16],
    /// `i_block` and size of the journal's inode, if there is one.
    pub journal: Option<([u8; 60], u64)>,
}

impl Superblock {
    /// The copy that `group` holds.
    pub fn encode(&self, group: u16) -> [u8; SUPERBLOCK_LEN] {
        let mut raw = [0; SUPERBLOCK_LEN];
        let b = &mut raw;
        put32(b, 0x00, self.inodes);
        put_split(b, 0x04, 0x150, self.blocks);
        put_split(b, 0x08, 0x154, self.reserved_blocks);
        put_split(b, 0x0c, 0x158, self.free_blocks);
        put32(b, 0x10, self.free_inodes);
        put32(b, 0x18, 2); // s_log_block_size: 1024 << 2
        put32(b, 0x1c, 2); // s_log_cluster_size
        put32(b, 0x20, BLOCKS_PER_GROUP as u32);
        put32(b, 0x24, BLOCKS_PER_GROUP as u32); // s_clusters_per_group
        put32(b, 0x28, self.inodes_per_group);
        put16(b, 0x36, u16::MAX); // s_max_mnt_count: never check because of mounts
        put16(b, 0x38, 0xef53); // s_magic
        put16(b, 0x3a, 1); // s_state: cleanly unmounted
        put16(b, 0x3c, 1); // s_errors: continue
        put32(b, 0x4c, 1); // s_rev_level: dynamic inode sizes
        put32(b, 0x54, FIRST_INODE);
        put16(b, 0x58, INODE_LEN as u16);
        put16(b, 0x5a, group);
        let mut compatible = feature::EXT_ATTR | feature::RESIZE_INODE | feature::DIR_INDEX;
        if self.journal.is_some() {
            compatible |= feature::HAS_JOURNAL;
        }
        put32(b, 0x5c, compatible);
        put32(b, 0x60, feature::FILETYPE | feature::EXTENT | feature::BIT64 | feature::FLEX_BG);
        let read_only = feature::SPARSE_SUPER | feature::LARGE_FILE | feature::HUGE_FILE | feature::DIR_NLINK;
        put32(b, 0x64, read_only | feature::EXTRA_ISIZE | feature::METADATA_CSUM);
        b[0x68..0x78].copy_from_slice(&self.uuid);
        b[0x78..0x88].copy_from_slice(&self.label);
        put16(b, 0xce, self.reserved_descriptor_blocks);
        b[0xec..0xfc].copy_from_slice(&self.hash_seed);
        b[0xfc] = 1; // s_def_hash_version: half MD4
        put16(b, 0xfe, DESCRIPTOR_LEN as u16);
        put32(b, 0x100, 0x4 | 0x8); // s_default_mount_opts: user_xattr, acl
        // Written: also 0 would read as "never", and then e2fsck takes small i_dtime values for an orphan list.
        for (low, high) in [(0x30, 0x274), (0x40, 0x277), (0x108, 0x276)] {
            put32(b, low, self.time as u32); // s_wtime, s_lastcheck, s_mkfs_time
            b[high] = (self.time >> 32) as u8;
        }
        if let Some((block_map, size)) = &self.journal {
            put32(b, 0xe0, JOURNAL_INODE);
            b[0xfd] = 1; // s_jnl_backup_type: s_jnl_blocks is i_block, then the size
            b[0x10c..0x148].copy_from_slice(block_map);
            put_split(b, 0x14c, 0x148, *size);
        }
        put16(b, 0x15c, EXTRA_ISIZE); // s_min_extra_isize
        put16(b, 0x15e, EXTRA_ISIZE); // s_want_extra_isize
        put32(b, 0x160, 2); // s_flags: names hash as unsigned bytes, what ARM's `char` is
        b[0x174] = GROUPS_PER_FLEX.trailing_zeros() as u8;
        b[0x175] = 1; // s_checksum_type: crc32c
        put32(b, 0x248, self.overhead);
        let checksum = super::checksum::update(!0, &b[..0x3fc]);
        put32(b, 0x3fc, checksum);
        raw
    }
}

/// A group descriptor.
#[derive(Clone, Copy, Debug, Default)]
pub struct GroupDescriptor {
    /// Block of the block bitmap.
    pub block_bitmap: u64,
    /// Block of the inode bitmap.
    pub inode_bitmap: u64,
    /// First block of the inode table.
    pub inode_table: u64,
    /// Free blocks.
    pub free_blocks: u32,
    /// Free inodes.
    pub free_inodes: u32,
    /// Directories among the inodes.
    pub directories: u32,
    /// Inodes at the end of the table that were never used.
    pub unused_inodes: u32,
    /// `EXT4_BG_*`.
    pub flags: u16,
    /// Checksum of the block bitmap.
    pub block_bitmap_checksum: u32,
    /// Checksum of the inode bitmap.
    pub inode_bitmap_checksum: u32,
}

impl GroupDescriptor {
    /// `EXT4_BG_INODE_UNINIT`: no inode in use, the bitmap was never written.
    pub const INODE_UNINIT: u16 = 0x1;
    /// `EXT4_BG_INODE_ZEROED`: the unused part of the inode table is zero, the kernel need not clear it.
    pub const INODE_ZEROED: u16 = 0x4;

    /// The descriptor of `group`.
    pub fn encode(&self, seed: Seed, group: u32) -> [u8; DESCRIPTOR_LEN] {
        let mut raw = [0; DESCRIPTOR_LEN];
        let b = &mut raw;
        put_split(b, 0x00, 0x20, self.block_bitmap);
        put_split(b, 0x04, 0x24, self.inode_bitmap);
        put_split(b, 0x08, 0x28, self.inode_table);
        let mut halves = |low, high, value: u32| {
            put16(b, low, value as u16);
            put16(b, high, (value >> 16) as u16);
        };
        halves(0x0c, 0x2c, self.free_blocks);
        halves(0x0e, 0x2e, self.free_inodes);
        halves(0x10, 0x30, self.directories);
        halves(0x1c, 0x32, self.unused_inodes);
        halves(0x18, 0x38, self.block_bitmap_checksum);
        halves(0x1a, 0x3a, self.inode_bitmap_checksum);
        put16(b, 0x12, self.flags);
        let checksum = seed.over_all(&[&group.to_le_bytes(), &b[..]]);
        put16(b, 0x1e, checksum as u16);
        raw
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn backups_are_in_0_1_and_the_powers_of_3_5_and_7() {
        let groups: Vec<u32> = (0..1000).filter(|group| super::has_backup(*group)).collect();
        assert_eq!(groups, [0, 1, 3, 5, 7, 9, 25, 27, 49, 81, 125, 243, 343, 625, 729]);
    }
}
