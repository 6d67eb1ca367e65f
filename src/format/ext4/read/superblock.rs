//! The superblock and the group descriptors.

use super::{Filesystem, ReadError, corrupt, le16, le32};

pub(super) const ROOT_INODE: u32 = 2;

const MAGIC: u16 = 0xef53;

const COMPAT_SPARSE_SUPER2: u32 = 0x200;
const INCOMPAT_RECOVER: u32 = 0x4;
const INCOMPAT_META_BG: u32 = 0x10;
const INCOMPAT_64BIT: u32 = 0x80;
const INCOMPAT_CSUM_SEED: u32 = 0x2000;
const INCOMPAT_INLINE_DATA: u32 = 0x8000;
const RO_COMPAT_SPARSE_SUPER: u32 = 0x1;
const RO_COMPAT_GDT_CSUM: u32 = 0x10;
const RO_COMPAT_BIGALLOC: u32 = 0x200;
const RO_COMPAT_METADATA_CSUM: u32 = 0x400;

/// Incompatible features by bit, and whether this reader honours them.
const INCOMPATIBLE: [(u32, &str, bool); 16] = [
    (0x1, "compression", false),
    (0x2, "filetype", true),
    (INCOMPAT_RECOVER, "a journal that must be replayed (the filesystem was not unmounted)", false),
    (0x8, "a separate journal device", false),
    (INCOMPAT_META_BG, "meta_bg", true),
    (0x40, "extents", true),
    (INCOMPAT_64BIT, "64bit", true),
    (0x100, "mmp", true),
    (0x200, "flex_bg", true),
    (0x400, "ea_inode", true),
    (0x1000, "dirdata", false),
    (INCOMPAT_CSUM_SEED, "metadata_csum_seed", true),
    (0x4000, "large_dir", true),
    (INCOMPAT_INLINE_DATA, "inline_data", true),
    // Files that are encrypted are refused one by one.
    (0x10000, "encrypt", true),
    (0x20000, "casefold", true),
];

/// What the superblock says, checked.
#[derive(Clone, Debug)]
pub struct Superblock {
    /// Bytes a block: 1024 to 65536.
    pub block_size: u64,
    /// Blocks in the filesystem.
    pub blocks: u64,
    /// Blocks that are free, as the superblock counts them.
    pub free_blocks: u64,
    /// Inodes in the filesystem.
    pub inodes: u32,
    /// Inodes that are free.
    pub free_inodes: u32,
    /// Volume label, without trailing NULs.
    pub label: Vec<u8>,
    /// UUID.
    pub uuid: [u8; 16],
    /// Compatible features.
    pub compat: u32,
    /// Incompatible features.
    pub incompat: u32,
    /// Features that allow reading only when unknown.
    pub ro_compat: u32,
    pub(super) first_data_block: u64,
    pub(super) inode_size: usize,
    pub(super) checksum_seed: u32,
    blocks_per_group: u64,
    inodes_per_group: u32,
    descriptor_size: usize,
    first_meta_group: u64,
}

/// One group descriptor: only what reading needs.
pub(super) struct Group {
    inode_table: u64,
}

impl Superblock {
    pub(super) fn parse(raw: &[u8], len: u64) -> Result<Self, ReadError> {
        let place = || "superblock".to_owned();
        let bad = |problem: String| Err(corrupt(place(), problem));
        let found = le16(raw, 56);
        if found != MAGIC {
            return Err(ReadError::NotExt4 { found });
        }
        let revision = le32(raw, 76);
        let (compat, incompat, ro_compat) =
            if revision == 0 { (0, 0, 0) } else { (le32(raw, 92), le32(raw, 96), le32(raw, 100)) };
        let known = INCOMPATIBLE.iter().fold(0, |bits, (bit, ..)| bits | bit);
        if let Some((_, name, _)) = INCOMPATIBLE.iter().find(|(bit, _, good)| incompat & bit != 0 && !good) {
            return Err(ReadError::Unsupported((*name).to_owned()));
        }
        if incompat & !known != 0 {
            return Err(ReadError::Unsupported(format!("incompatible features {:#x}", incompat & !known)));
        }
        if ro_compat & RO_COMPAT_BIGALLOC != 0 {
            return Err(ReadError::Unsupported("bigalloc".into()));
        }
        if ro_compat & RO_COMPAT_METADATA_CSUM != 0 {
            if raw[0x175] != 1 {
                return Err(ReadError::Unsupported(format!("checksum type {}", raw[0x175])));
            }
            let (stored, computed) = (le32(raw, 0x3fc), !crc32c::crc32c(&raw[..0x3fc]));
            if stored != computed {
                return bad(format!("checksum is {stored:#010x}, computed {computed:#010x}"));
            }
        }
        let log = le32(raw, 24);
        if log > 6 {
            return bad(format!("block size 2^{} bytes", u64::from(log) + 10));
        }
        let block_size = 1024 << log;
        let wide = incompat & INCOMPAT_64BIT != 0;
        let high = |at| if wide { u64::from(le32(raw, at)) << 32 } else { 0 };
        let blocks = u64::from(le32(raw, 4)) | high(0x150);
        if blocks.checked_mul(block_size).is_none_or(|size| size > len) {
            return bad(format!("{blocks} blocks of {block_size} bytes, the partition has {len} bytes"));
        }
        let blocks_per_group = u64::from(le32(raw, 32));
        let inodes_per_group = le32(raw, 40);
        let first_data_block = u64::from(le32(raw, 20));
        let inode_size = if revision == 0 { 128 } else { usize::from(le16(raw, 88)) };
        if blocks_per_group == 0 || blocks_per_group > block_size * 8 {
            return bad(format!("{blocks_per_group} blocks a group"));
        }
        if inodes_per_group == 0 || u64::from(inodes_per_group) > block_size * 8 {
            return bad(format!("{inodes_per_group} inodes a group"));
        }
        if !inode_size.is_power_of_two() || inode_size < 128 || inode_size as u64 > block_size {
            return bad(format!("inodes of {inode_size} bytes"));
        }
        if first_data_block != u64::from(log == 0) || first_data_block >= blocks {
            return bad(format!("first data block {first_data_block}"));
        }
        let descriptor_size = if wide { usize::from(le16(raw, 254)) } else { 32 };
        if !descriptor_size.is_power_of_two() || descriptor_size < 32 || descriptor_size as u64 > block_size {
            return bad(format!("group descriptors of {descriptor_size} bytes"));
        }
        let inodes = le32(raw, 0);
        let group_count = (blocks - first_data_block).div_ceil(blocks_per_group);
        if u64::from(inodes) != group_count * u64::from(inodes_per_group) {
            return bad(format!("{inodes} inodes in {group_count} groups of {inodes_per_group}"));
        }
        let mut uuid = [0; 16];
        uuid.copy_from_slice(&raw[104..120]);
        let seed = if incompat & INCOMPAT_CSUM_SEED != 0 { le32(raw, 0x270) } else { !crc32c::crc32c(&uuid) };
        let label = &raw[120..136];
        let label = &label[..label.iter().position(|byte| *byte == 0).unwrap_or(16)];
        Ok(Self {
            block_size,
            blocks,
            free_blocks: u64::from(le32(raw, 12)) | high(0x158),
            inodes,
            free_inodes: le32(raw, 16),
            label: label.to_vec(),
            uuid,
            compat,
            incompat,
            ro_compat,
            first_data_block,
            inode_size,
            checksum_seed: seed,
            blocks_per_group,
            inodes_per_group,
            descriptor_size,
            first_meta_group: u64::from(le32(raw, 0x104)),
        })
    }

    pub(super) fn checksums(&self) -> bool {
        self.ro_compat & RO_COMPAT_METADATA_CSUM != 0
    }

    pub(super) fn inline_data(&self) -> bool {
        self.incompat & INCOMPAT_INLINE_DATA != 0
    }

    fn group_count(&self) -> u64 {
        (self.blocks - self.first_data_block).div_ceil(self.blocks_per_group)
    }

    fn has_backup(&self, group: u64) -> bool {
        let power_of = |base: u64| {
            let mut power = base;
            while power < group {
                power = power.saturating_mul(base);
            }
            power == group
        };
        if self.compat & COMPAT_SPARSE_SUPER2 != 0 {
            // Only the first meta group's place is asked for with this feature, and meta_bg excludes it in mke2fs.
            return group == 0;
        }
        self.ro_compat & RO_COMPAT_SPARSE_SUPER == 0
            || group <= 1
            || power_of(3)
            || power_of(5)
            || power_of(7)
    }

    /// The block that holds descriptor block `index` (kernel: ext4_descriptor_loc).
    fn descriptor_block(&self, index: u64) -> u64 {
        if self.incompat & INCOMPAT_META_BG == 0 || index < self.first_meta_group {
            return self.first_data_block + 1 + index;
        }
        let group = index * (self.block_size / self.descriptor_size as u64);
        self.first_data_block + group * self.blocks_per_group + u64::from(self.has_backup(group))
    }
}

pub(super) fn groups(filesystem: &Filesystem) -> Result<Vec<Group>, ReadError> {
    let superblock = &filesystem.superblock;
    let size = superblock.descriptor_size;
    let per_block = superblock.block_size as usize / size;
    let count = superblock.group_count();
    let mut groups = Vec::new();
    for index in 0..count.div_ceil(per_block as u64) {
        let block =
            filesystem.block(superblock.descriptor_block(index), || format!("descriptor block {index}"))?;
        let left = count - groups.len() as u64;
        for descriptor in block.chunks_exact(size).take(left.min(per_block as u64) as usize) {
            let number = groups.len() as u32;
            let place = || format!("descriptor of group {number}");
            check_descriptor(superblock, number, descriptor)?;
            let high = if size >= 64 { u64::from(le32(descriptor, 40)) << 32 } else { 0 };
            let inode_table = u64::from(le32(descriptor, 8)) | high;
            let bytes = u64::from(superblock.inodes_per_group) * superblock.inode_size as u64;
            filesystem.check_blocks(inode_table, bytes.div_ceil(superblock.block_size), place)?;
            groups.push(Group { inode_table });
        }
    }
    Ok(groups)
}

fn check_descriptor(superblock: &Superblock, number: u32, descriptor: &[u8]) -> Result<(), ReadError> {
    let stored = le16(descriptor, 30);
    let computed = if superblock.checksums() {
        let mut blanked = descriptor.to_vec();
        blanked[30..32].fill(0);
        let mut crc = raw_crc(superblock.checksum_seed, &number.to_le_bytes());
        crc = raw_crc(crc, &blanked);
        crc as u16
    } else if superblock.ro_compat & RO_COMPAT_GDT_CSUM != 0 {
        let mut crc = crc16(0xffff, &superblock.uuid);
        crc = crc16(crc, &number.to_le_bytes());
        crc = crc16(crc, &descriptor[..30]);
        if descriptor.len() > 32 { crc16(crc, &descriptor[32..]) } else { crc }
    } else {
        return Ok(());
    };
    if stored != computed {
        let problem = format!("checksum is {stored:#06x}, computed {computed:#06x}");
        return Err(corrupt(format!("descriptor of group {number}"), problem));
    }
    Ok(())
}

/// The kernel's `crc32c(seed, …)`: without the inversions that the usual CRC-32C has at both ends.
pub(super) fn raw_crc(seed: u32, bytes: &[u8]) -> u32 {
    !crc32c::crc32c_append(!seed, bytes)
}

/// CRC-16 with the polynomial 0x8005 reflected (lib/crc16.c), as `uninit_bg` descriptors use.
fn crc16(seed: u16, bytes: &[u8]) -> u16 {
    bytes.iter().fold(seed, |crc, byte| {
        (0..8).fold(crc ^ u16::from(*byte), |crc, _| if crc & 1 == 1 { crc >> 1 ^ 0xa001 } else { crc >> 1 })
    })
}

impl Filesystem {
    /// Offset of an inode from the start of the filesystem.
    pub(super) fn inode_offset(&self, number: u32) -> Result<u64, ReadError> {
        let superblock = &self.superblock;
        let index = number.checked_sub(1).filter(|index| *index < superblock.inodes);
        let index = index.ok_or_else(|| {
            corrupt(format!("inode {number}"), format!("the filesystem has {} inodes", superblock.inodes))
        })?;
        let group = &self.groups[(index / superblock.inodes_per_group) as usize];
        let within = u64::from(index % superblock.inodes_per_group) * superblock.inode_size as u64;
        Ok(group.inode_table * superblock.block_size + within)
    }
}
